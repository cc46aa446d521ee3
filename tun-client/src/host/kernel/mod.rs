//! The kernel's side: what it has, and changes to it.
//!
//! Everything is asked for whole and by netlink. Questions take a few milliseconds and do not wait
//! for anybody.

mod anchor;
mod apply;
mod filter;
mod observe;

use std::cell::RefCell;

use mixline_netlink::{Client, NETFILTER, ROUTE};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::filter::Chain;
use super::prefix::Prefix;

/// What the kernel refused, and what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}{}", hint(source))]
pub struct KernelError {
    /// What was to be done.
    pub action: String,
    /// What the kernel says.
    pub source: mixline_netlink::Error,
}

impl KernelError {
    fn at(action: impl Into<String>) -> impl FnOnce(mixline_netlink::Error) -> Self {
        let action = action.into();
        move |source| Self { action, source }
    }
}

/// What a person can do about a refusal.
fn hint(error: &mixline_netlink::Error) -> &'static str {
    match error {
        mixline_netlink::Error::Refused(error) | mixline_netlink::Error::Socket(error) => {
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => " (it needs root, or CAP_NET_ADMIN)",
                std::io::ErrorKind::Unsupported => " (the kernel lacks nf_tables)",
                _ => "",
            }
        }
        _ => "",
    }
}

/// Connections to the kernel of one network namespace: that of the thread that opened them.
pub struct Kernel {
    routes: Client<RouteNetlinkMessage>,
    filters: Client<NetfilterMessage>,
    /// The filter as it was read last, and when that was.
    known: RefCell<Option<Known>>,
}

/// The generation of nftables, and the client's chains in it.
type Known = (u32, Option<Vec<Chain>>);

impl Kernel {
    /// Opens them. Reading addresses and routes needs no privilege; the packet filter and changes
    /// need CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> Result<Self, KernelError> {
        let at = || KernelError::at("open netlink");
        Ok(Self {
            routes: Client::open(ROUTE).and_then(Client::strict).map_err(at())?,
            filters: Client::open(NETFILTER).map_err(at())?,
            known: RefCell::default(),
        })
    }
}

fn family(prefix: &Prefix) -> AddressFamily {
    if prefix.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}
