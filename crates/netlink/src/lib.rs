//! A blocking client of netlink sockets (netlink(7)), for threads without an async runtime.
//!
//! [`Client`] asks questions and collects the answers, [`Changes`] hears what the kernel
//! announces, and [`generic`] asks generic netlink families by their names. The messages are
//! those of the `netlink-packet-*` crates.
//!
//! ```
//! use mixline_netlink::{Client, ROUTE};
//! use netlink_packet_core::NLM_F_DUMP;
//! use netlink_packet_route::RouteNetlinkMessage;
//! use netlink_packet_route::link::LinkMessage;
//!
//! # fn main() -> Result<(), mixline_netlink::Error> {
//! let client = Client::open(ROUTE)?;
//! let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
//! let links = client.request(question, NLM_F_DUMP)?;
//! assert!(!links.is_empty(), "at least the loopback interface");
//! # Ok(())
//! # }
//! ```

mod changes;
mod client;
mod error;
pub mod generic;

pub use changes::Changes;
pub use client::Client;
pub use error::{Error, Result};
/// The protocol of packet filters.
pub use netlink_sys::protocols::NETLINK_NETFILTER as NETFILTER;
/// The protocol of links, addresses, routes and neighbours (rtnetlink(7)).
pub use netlink_sys::protocols::NETLINK_ROUTE as ROUTE;
