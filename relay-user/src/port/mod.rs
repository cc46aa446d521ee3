//! Ports: how datagrams get in and out.
//!
//! A port gives and takes batches of up to 64 datagrams, in place. Sessions, replay,
//! paths and mixing are the same behind each; another kind of port is another file here.

mod af_xdp;
mod choose;
mod contract;
mod error;
mod interface;
#[cfg(test)]
mod memory;
mod open;
mod replay_marking;
mod shared;
mod trust;
mod udp;
mod watch;
mod xdp_filter;

pub use choose::may_have_xdp;
pub use contract::{Dropped, FIRST_PORT_TOKEN, MOST_BATCHES, Port};
pub use error::{Cards, InterfaceError, OpenError, XdpError, stacked};
pub use interface::{addresses_of, all_cards, interface_of, receive_queues};
#[cfg(test)]
pub use memory::MemoryPort;
pub use open::{Ports, open};
pub use trust::LOOK_EVERY;
pub use udp::ControlSockets;
pub use watch::{GIVEN_UP, Watch};
pub use xdp_filter::XdpFilter;
