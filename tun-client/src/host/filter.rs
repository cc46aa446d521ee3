//! The packet filter: what may pass between virtual addresses and the host's other interfaces.
//!
//! Routes decide where a packet goes; the filter decides that it goes nowhere when they are wrong.
//! It stays when the process dies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{ExpressionAttribute, InetHookNumber, ListAttribute};

use super::nftables::{
    self, Direction, accept, arp_sender, arp_target, destination, drop, in_network, interface,
    is_address, marked, neighbour_solicitation_for, source,
};
use super::prefix::Prefix;

/// The bit of a packet's mark that says that a socket of the client sent it (`SO_MARK`, which takes
/// CAP_NET_ADMIN).
pub const OWN_MARK: u32 = 1 << 28;

/// The name of the loopback interface.
const LOOPBACK: &str = "lo";
/// After all translation of addresses (`NF_IP_PRI_NAT_SRC`, 100).
const AFTER_TRANSLATION: i32 = 300;
/// Before all others (`NF_IP_PRI_RAW`, -300).
const BEFORE_ALL: i32 = -400;
/// ARP has filters of one priority only.
const ARP_PRIORITY: i32 = 0;
/// `NF_ARP_IN`, `NF_ARP_OUT` (Linux, `linux/netfilter_arp.h`).
const ARP_IN: u32 = 0;
const ARP_OUT: u32 = 1;

/// A list of expressions: all have to hold, and the last one says what happens then.
pub type Sentence = Vec<ListAttribute<ExpressionAttribute>>;

/// What the packet filter is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The client's interface, by name: it may be made after the filter.
    pub interface: String,
    /// The virtual networks.
    pub networks: Vec<Prefix>,
    /// The host's own virtual addresses, and the resolver's.
    pub own: BTreeSet<IpAddr>,
    /// Networks of others inside the virtual ones, with the interface that each is on.
    pub local: BTreeSet<(Prefix, String)>,
    /// Hosts inside the virtual networks that the client itself talks to: relays, the directory.
    pub underlay: BTreeSet<IpAddr>,
}

/// A chain of the packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The table that it is in.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// The hook's number in the family of its table.
    pub hook: u32,
    /// Chains of one hook are asked in this order.
    pub priority: i32,
    /// In order.
    pub sentences: Vec<Sentence>,
}

/// The tables of the packet filter, all of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// IPv4 and IPv6.
    Inet,
    /// ARP.
    Arp,
}

impl Filter {
    /// The chains that say so.
    #[must_use]
    pub fn chains(&self) -> Vec<Chain> {
        let inet = |name: &str, hook: InetHookNumber, priority, sentences| Chain {
            table: Table::Inet,
            name: name.into(),
            hook: hook.into(),
            priority,
            sentences,
        };
        let arp = |name: &str, hook, sentences| Chain {
            table: Table::Arp,
            name: name.into(),
            hook,
            priority: ARP_PRIORITY,
            sentences,
        };
        vec![
            inet(
                "out",
                InetHookNumber::PostRouting,
                AFTER_TRANSLATION,
                self.leaving(),
            ),
            inet(
                "in",
                InetHookNumber::PreRouting,
                BEFORE_ALL,
                self.arriving(),
            ),
            arp("in", ARP_IN, self.asked()),
            arp("out", ARP_OUT, self.asking()),
        ]
    }

    /// What leaves the host, its own packets and those that it forwards.
    fn leaving(&self) -> Vec<Sentence> {
        let mut chain = Vec::new();
        for name in [self.interface.as_str(), LOOPBACK] {
            chain.push(nftables::all([interface(Direction::Out, name), accept()]));
        }
        // Nobody on a wire sees an address of a service beside that of its host.
        for own in &self.own {
            chain.push(nftables::all([is_address(source(*own)), drop()]));
        }
        for host in &self.underlay {
            let to = is_address(destination(*host));
            chain.push(nftables::all([marked(OWN_MARK), to, accept()]));
        }
        // The source as well: what has no address there is not of that network any more.
        for (network, name) in &self.local {
            chain.push(nftables::all([
                interface(Direction::Out, name),
                in_network(source(network.address), *network),
                in_network(destination(network.address), *network),
                accept(),
            ]));
        }
        for network in &self.networks {
            let to = in_network(destination(network.address), *network);
            chain.push(nftables::all([to, drop()]));
        }
        chain
    }

    /// What arrives from elsewhere.
    fn arriving(&self) -> Vec<Sentence> {
        let mut chain = Vec::new();
        for name in [self.interface.as_str(), LOOPBACK] {
            chain.push(nftables::all([interface(Direction::In, name), accept()]));
        }
        for own in &self.own {
            chain.push(nftables::all([is_address(destination(*own)), drop()]));
            if let IpAddr::V6(own) = own {
                chain.push(nftables::all([neighbour_solicitation_for(*own), drop()]));
            }
        }
        chain
    }

    /// ARP questions and answers that arrive.
    fn asked(&self) -> Vec<Sentence> {
        self.own_ipv4()
            .map(|own| {
                let other = nftables::not_interface(Direction::In, &self.interface);
                nftables::all([other, arp_target(own), drop()])
            })
            .collect()
    }

    /// ARP questions and answers that leave.
    fn asking(&self) -> Vec<Sentence> {
        self.own_ipv4()
            .map(|own| {
                let other = nftables::not_interface(Direction::Out, &self.interface);
                nftables::all([other, arp_sender(own), drop()])
            })
            .collect()
    }

    fn own_ipv4(&self) -> impl Iterator<Item = std::net::Ipv4Addr> {
        self.own.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }
}
