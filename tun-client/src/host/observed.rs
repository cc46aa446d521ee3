//! What the kernel has of what concerns the client.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::filter::Chain;
use super::prefix::Prefix;

/// The table of the client's own routes.
pub const TABLE: u32 = 0x6d69;
/// The table of routes for what comes from the own virtual addresses: it leads inside, whoever else
/// has a network there.
pub const INSIDE_TABLE: u32 = 0x6d6a;
/// All tables of the client's.
pub const OWN_TABLES: [u32; 2] = [TABLE, INSIDE_TABLE];
/// The kernel's table of the host's own addresses.
pub const LOCAL_TABLE: u32 = 255;
/// The kernel's table of all routes that name no other.
pub const MAIN_TABLE: u32 = 254;
/// The index of the loopback interface in every network namespace (Linux, `loopback_net_init`).
pub const LOOPBACK: u32 = 1;
/// The index and the name of the anchor, the link of the resolver's address where systemd-resolved
/// runs. The number is high, so that whoever lists a host's addresses comes to the others first.
pub const ANCHOR: (u32, &str) = (0x6dff, "mixline-dns");

/// What the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses of interfaces, in the kernel's order.
    pub addresses: Vec<Address>,
    /// All policy rules, in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// The routes of [`OWN_TABLES`].
    pub routes: Vec<Route>,
    /// Routes of other tables by an interface, as far as [`is_looked_at`].
    pub others: Vec<OtherRoute>,
    /// Interfaces that were wires before: one that has just lost its routes is still one.
    pub were_wires: BTreeSet<u32>,
    /// The chains of the client's packet filter, or none if it is not there.
    pub filter: Option<Vec<Chain>>,
    /// Whether the kernel has IPv6.
    pub ipv6: bool,
    /// Whether the client's interface takes IPv6 addresses.
    pub ipv6_inside: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up, with or without carrier.
    pub up: bool,
    /// Whether its other end is in another network namespace.
    pub elsewhere: bool,
    /// Whether hardware is behind it.
    pub hardware: bool,
    /// Whether it leads to one peer: most tunnels do.
    pub point_to_point: bool,
    /// Whether it is a bridge to containers and virtual machines of this host, and to nothing else.
    pub contained: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface's index.
    pub interface: u32,
    /// The address and its network.
    pub prefix: Prefix,
}

/// A policy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Rules are asked in the order of this number, and in that of their making where it is equal.
    pub priority: u32,
    /// Which sources it is for.
    pub from: Prefix,
    /// Which destinations it is for.
    pub to: Prefix,
    /// Whether it asks for anything else: mark, interface, port.
    pub narrowed: bool,
    /// The table that it leads to; 0 for a rule that does something else.
    pub table: u32,
}

/// A route of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Which of [`OWN_TABLES`] it is in.
    pub table: u32,
    /// Which destinations it is for.
    pub to: Prefix,
    /// What happens to them.
    pub target: Target,
    /// Of two routes to one network the lower one counts.
    pub metric: u32,
}

/// A route of another table than [`OWN_TABLES`] and [`LOCAL_TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherRoute {
    /// The table that it is in.
    pub table: u32,
    /// Which destinations it is for.
    pub to: Prefix,
    /// The interface that they leave by.
    pub interface: u32,
    /// Whether they go to a gateway there.
    pub gateway: bool,
    /// The gateway's address.
    pub via: Option<IpAddr>,
}

/// What happens to the packets of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// They leave by an interface.
    Interface(u32),
    /// The next rule decides.
    Throw,
    /// The sender hears that nobody is there.
    Unreachable,
    /// Something that the client never asks for.
    Other,
}

impl Route {
    /// Whether the kernel puts it into the place of another one.
    #[must_use]
    pub fn has_place_of(&self, other: &Self) -> bool {
        let place = |route: &Self| (route.table, route.to, route.metric);
        place(self) == place(other)
    }
}

impl Rule {
    /// Whether it belongs to the client.
    #[must_use]
    pub fn is_own(&self) -> bool {
        OWN_TABLES.contains(&self.table)
    }

    /// Whether it is for packets from anywhere, however they come.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        !self.narrowed && self.from.length == 0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.from, self.to)
    }
}

impl Observed {
    /// The interface of this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The anchor, if it is there and up.
    #[must_use]
    pub fn anchor(&self) -> Option<u32> {
        let is_it = |link: &&Link| (link.index, link.name.as_str()) == ANCHOR && link.up;
        self.links.iter().find(is_it).map(|link| link.index)
    }

    /// Whether an interface has this address, by itself.
    #[must_use]
    pub fn has(&self, interface: u32, address: Ipv4Addr) -> bool {
        self.addresses.contains(&Address {
            interface,
            prefix: Prefix::host(address),
        })
    }

    /// Whether the host's own addresses are looked for before all else.
    #[must_use]
    pub fn is_local_first(&self) -> bool {
        let first = |ipv6: bool| {
            let mut rules = self.rules.iter().filter(|r| r.to.is_ipv6() == ipv6);
            rules
                .next()
                .is_none_or(|rule| rule.table == LOCAL_TABLE && rule.is_for_all())
        };
        first(false) && first(true)
    }

    /// The name of an interface, or its number if it has just gone.
    #[must_use]
    pub fn name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
}

/// Whether a route of another table says something about the virtual networks: it leads into one
/// of them, or everywhere.
#[must_use]
pub fn is_looked_at(to: &Prefix, networks: &[Prefix]) -> bool {
    to.length == 0 || networks.iter().any(|network| network.covers(to))
}
