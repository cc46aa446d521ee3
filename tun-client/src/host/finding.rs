//! What a person should know about the host.

use std::fmt;
use std::net::IpAddr;

use super::others::MAX_LOCAL;
use super::outside::MAX_OUTSIDE;
use super::prefix::Prefix;

/// What about the host stands in the way, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A network of others inside a virtual one: it goes on, and its addresses are not Mixline's.
    Yielded {
        /// The network.
        network: Prefix,
        /// The interface that it is behind.
        interface: String,
    },
    /// A route into a virtual network that does not count.
    Overruled {
        /// Where it leads to.
        network: Prefix,
        /// The interface that it leads by.
        interface: String,
    },
    /// An address of others that a name had first: nobody is reached there.
    Kept {
        /// The address.
        address: IpAddr,
        /// The interface that the others are behind.
        interface: String,
    },
    /// A network of others in which names have more addresses than can be kept: it does not count.
    Crowded {
        /// The network.
        network: Prefix,
        /// The interface that it is behind.
        interface: String,
    },
    /// More addresses of relays and servers lie inside the virtual networks than are let through.
    TooManyOutside,
    /// A rule that comes before the client's: what it leads away is dropped.
    Earlier {
        /// Its priority.
        priority: u32,
        /// Its table.
        table: u32,
    },
    /// More networks of others than are taken note of.
    TooMany,
    /// The kernel makes no link for the resolver's address.
    NoAnchor {
        /// What it says.
        why: String,
    },
    /// The client's interface takes no IPv6 address.
    NoIpv6 {
        /// The interface.
        interface: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yielded { network, interface } => write!(
                f,
                "{network} is behind {interface}: its addresses are not reached through Mixline, \
                 and names that have one of them have an IPv6 address only"
            ),
            Self::Overruled { network, interface } => write!(
                f,
                "the route to {network} by {interface} is overruled: its addresses are virtual \
                 ones (a directory with another `network` leaves them alone)"
            ),
            Self::Kept { address, interface } => write!(
                f,
                "{address} was a name's address before it was one behind {interface}: nobody is \
                 reached there for a day, or until `mixline-client down` (with `lock: always`, \
                 `unlock --anyway`)"
            ),
            Self::Crowded { network, interface } => write!(
                f,
                "names have so many addresses of {network}, which is behind {interface} now, that \
                 nothing there is reached for a day, or until `mixline-client down` (with \
                 `lock: always`, `unlock --anyway`)"
            ),
            Self::TooManyOutside => write!(
                f,
                "more than {MAX_OUTSIDE} relays and servers have addresses inside the virtual \
                 networks: the rest of them is not reached (a directory with another `network` \
                 leaves them alone)"
            ),
            Self::Earlier { priority, table } => write!(
                f,
                "the policy rule {priority} (table {table}) comes before Mixline's and leads \
                 virtual addresses elsewhere: they are dropped; remove it, or make it again after \
                 `mixline-client up`"
            ),
            Self::TooMany => write!(
                f,
                "more than {MAX_LOCAL} networks of others lie inside the virtual networks: the \
                 rest of them is not reached"
            ),
            Self::NoAnchor { why } => write!(
                f,
                "{why}: systemd-resolved forgets where .anon names are when the client ends without \
                 a goodbye, and the packet filter alone keeps them from others (it needs the module \
                 dummy or veth)"
            ),
            Self::NoIpv6 { interface } => write!(
                f,
                "no IPv6 on {interface} (disabled in the kernel): .anon names have IPv4 addresses \
                 only"
            ),
        }
    }
}
