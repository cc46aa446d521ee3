//! The packet filter: what may pass between virtual addresses and the host's other interfaces.
//!
//! Routes decide where a packet goes; the filter decides that it goes nowhere when they are wrong.
//! It stays when the process dies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{ExpressionAttribute, InetHookNumber, ListAttribute};

use super::nftables::{
    self, Direction, accept, arp_sender, arp_sender_in, arp_sender_not_in, arp_target, destination,
    drop, in_network, interface, is_address, neighbour_solicitation_for, not_in_network, source,
};
use super::outside::{Outside, Transport};
use super::prefix::Prefix;
use super::questions;
use crate::config::DNS_PORT;

/// Addresses of one wire (RFC 4291, section 2.5.6).
const LINK_LOCAL: Prefix = Prefix {
    address: IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
    length: 10,
};
/// The name of the loopback interface.
const LOOPBACK: &str = "lo";
/// After all translation of addresses (`NF_IP_PRI_NAT_SRC`, 100).
const AFTER_TRANSLATION: i32 = 300;
/// Before all others (`NF_IP_PRI_RAW`, -300).
const BEFORE_ALL: i32 = -400;
/// How many addresses of the host's own are told apart in a network of others: a sentence has at most
/// 128 expressions, of which an address takes two.
const MAX_HEARD: usize = 48;
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
    /// Networks of others inside the virtual ones.
    pub local: BTreeSet<Local>,
    /// Addresses inside those that names had first: nobody is reached there.
    pub kept: BTreeSet<IpAddr>,
    /// What the host is meant by inside networks of others on a wire: its addresses there and those
    /// for all.
    pub heard: BTreeSet<IpAddr>,
    /// Whom the client itself reaches by another interface.
    pub outside: BTreeSet<Outside>,
    /// Interfaces that somebody outside the host is behind, by name.
    pub wires: BTreeSet<String>,
    /// Interfaces that nobody but the host itself is behind, by name.
    pub inner: BTreeSet<String>,
    /// The resolver's address.
    pub resolver: Option<IpAddr>,
}

/// A network of others inside a virtual one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    /// The network.
    pub network: Prefix,
    /// The interface that it is behind.
    pub interface: String,
    /// Whether that is a wire.
    pub wire: bool,
    /// On a wire, the sources with which packets of the host's own go there.
    pub from: Prefix,
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
                "names",
                InetHookNumber::PostRouting,
                AFTER_TRANSLATION,
                self.asked_of_others(),
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
        chain.extend(self.resolver_of_containers(Direction::Out));
        // Nobody on a wire sees an address of a service beside that of its host.
        for own in &self.own {
            chain.push(nftables::all([is_address(source(*own)), drop()]));
        }
        // Nor that of a peer, or of whom a container asks: the client answers in the name of those. A
        // container that asks as a neighbour would have the answer sent to that one.
        for wire in &self.wires {
            for network in &self.networks {
                let from = source(network.address);
                let mut sentence = vec![
                    nftables::is_forwarded(),
                    interface(Direction::Out, wire),
                    in_network(from, *network),
                ];
                let others = self.others(network);
                sentence.extend(others.map(|other| not_in_network(from, other)));
                sentence.push(drop());
                chain.push(nftables::sentence(sentence));
            }
        }
        for outside in &self.outside {
            chain.push(nftables::all([
                is_address(destination(outside.at.ip())),
                nftables::to_port(outside.transport, outside.at.port()),
                accept(),
            ]));
        }
        // A program was told it for a name, and does not mean a neighbour.
        for kept in &self.kept {
            chain.push(nftables::all([is_address(destination(*kept)), drop()]));
        }
        for local in &self.local {
            let by = || interface(Direction::Out, &local.interface);
            let network = local.network;
            let to = || in_network(destination(network.address), network);
            if !local.wire {
                chain.push(nftables::all([by(), to(), accept()]));
                continue;
            }
            // On a wire the source as well: a host without an address there has left that network,
            // and would send to whoever is its gateway now. What it forwards is not its own.
            chain.push(nftables::all([
                nftables::is_forwarded(),
                by(),
                to(),
                accept(),
            ]));
            for own in [Some(local.from), network.is_ipv6().then_some(LINK_LOCAL)] {
                let Some(own) = own else { continue };
                let from = in_network(source(own.address), own);
                chain.push(nftables::all([by(), from, to(), accept()]));
            }
        }
        for network in &self.networks {
            let to = in_network(destination(network.address), *network);
            chain.push(nftables::all([to, drop()]));
        }
        chain
    }

    /// Questions for names that nobody but the client answers, to whatever server.
    fn asked_of_others(&self) -> Vec<Sentence> {
        let mut chain = Vec::new();
        for name in [self.interface.as_str(), LOOPBACK] {
            chain.push(nftables::all([interface(Direction::Out, name), accept()]));
        }
        chain.push(nftables::all([nftables::not_to_port(DNS_PORT), accept()]));
        // A name server of the host's own asks by a wire in turn.
        for name in &self.inner {
            chain.push(nftables::all([interface(Direction::Out, name), accept()]));
        }
        let others = self.local.iter().map(|local| local.network).collect();
        chain.extend(questions::sentences(&self.networks, &others, &self.kept));
        chain
    }

    /// What arrives from elsewhere, and from peers whose network others have.
    fn arriving(&self) -> Vec<Sentence> {
        let mut chain = Vec::new();
        // An answer to them goes inside by its source. Programs answer by UDP without one, and then it
        // would go to a neighbour.
        for local in &self.local {
            let network = local.network;
            chain.push(nftables::all([
                interface(Direction::In, &self.interface),
                in_network(source(network.address), network),
                nftables::answers_without_source(),
                drop(),
            ]));
        }
        for name in [self.interface.as_str(), LOOPBACK] {
            chain.push(nftables::all([interface(Direction::In, name), accept()]));
        }
        chain.extend(self.resolver_of_containers(Direction::In));
        for own in &self.own {
            chain.push(nftables::all([is_address(destination(*own)), drop()]));
            if let IpAddr::V6(own) = own {
                chain.push(nftables::all([neighbour_solicitation_for(*own), drop()]));
            }
        }
        for outside in &self.outside {
            chain.push(nftables::all([
                is_address(source(outside.at.ip())),
                nftables::from_port(outside.transport, outside.at.port()),
                accept(),
            ]));
        }
        // A host that forwards sends back to a wire what is for a neighbour there, and would be silent
        // for an own address alone.
        for local in self.local.iter().filter(|local| local.wire) {
            let mut sentence = vec![
                interface(Direction::In, &local.interface),
                in_network(destination(local.network.address), local.network),
            ];
            let mine = self.heard.iter().copied();
            let mine = mine.filter(|address| local.network.contains(*address));
            let mine = mine.take(MAX_HEARD);
            sentence.extend(mine.map(|address| nftables::not_address(destination(address))));
            sentence.push(drop());
            chain.push(nftables::sentence(sentence));
        }
        // A virtual source is somebody's identity, and nobody has it on a wire. A virtual destination
        // that is not the host's own would tell the own ones by their silence.
        for wire in &self.wires {
            for network in &self.networks {
                for field in [source(network.address), destination(network.address)] {
                    let mut sentence =
                        vec![interface(Direction::In, wire), in_network(field, *network)];
                    sentence.extend(
                        self.others(network)
                            .map(|other| not_in_network(field, other)),
                    );
                    sentence.push(drop());
                    chain.push(nftables::sentence(sentence));
                }
            }
        }
        chain
    }

    /// Questions of containers, which have the host's resolver for theirs, and answers to them.
    fn resolver_of_containers(&self, direction: Direction) -> Vec<Sentence> {
        let Some(resolver) = self.resolver else {
            return Vec::new();
        };
        let one = |name: &String, transport| {
            let (address, port) = match direction {
                Direction::In => (
                    destination(resolver),
                    nftables::to_port(transport, DNS_PORT),
                ),
                Direction::Out => (source(resolver), nftables::from_port(transport, DNS_PORT)),
            };
            let by = interface(direction, name);
            nftables::all([by, is_address(address), port, accept()])
        };
        let inner = self.inner.iter();
        inner
            .flat_map(|name| [one(name, Transport::Udp), one(name, Transport::Tcp)])
            .collect()
    }

    /// Networks of others inside a virtual one.
    fn others(&self, network: &Prefix) -> impl Iterator<Item = Prefix> {
        let inside = |local: &&Local| network.covers(&local.network);
        self.local.iter().filter(inside).map(|local| local.network)
    }

    /// ARP questions and answers that arrive.
    fn asked(&self) -> Vec<Sentence> {
        self.own_ipv4()
            .map(|own| {
                let other = nftables::not_interface(Direction::In, &self.interface);
                nftables::all([other, arp_target(own), drop()])
            })
            .chain(self.networks.iter().filter_map(|network| {
                // The kernel is silent to whoever asks in the name of an own address, and answers
                // all others.
                let IpAddr::V4(first) = network.network().address else {
                    return None;
                };
                let mut sentence = vec![
                    nftables::not_interface(Direction::In, &self.interface),
                    arp_sender_in(first, network.length),
                ];
                sentence.extend(self.others(network).filter_map(|other| {
                    match other.network().address {
                        IpAddr::V4(first) => Some(arp_sender_not_in(first, other.length)),
                        IpAddr::V6(_) => None,
                    }
                }));
                sentence.push(drop());
                Some(nftables::sentence(sentence))
            }))
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
