//! Which nodes there are, which networks they are in and which addresses they have.
//!
//! Every node has a namespace of its own and one wire, a veth pair, to the router's namespace. Each
//! relay is in a /16 (IPv4) and a /32 (IPv6) of its own, so that every three of them may form a
//! path. None of the addresses lies in 10.0.0.0/8 or fd00::/8, which are Mixline's virtual ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Relays in the network.
pub const RELAYS: usize = 8;
/// The UDP port of every relay.
pub const RELAY_PORT: u16 = 7000;
/// The TCP port of the directory's public part. Further directories, at the same address, have those behind it.
pub const DIRECTORY_PORT: u16 = 8080;
/// Where a relay serves its metrics, inside its namespace.
pub const METRICS: &str = "127.0.0.1:9300";
/// The namespace that forwards between all others.
pub const ROUTER: &str = "mixline-router";

/// What is at the end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The service directory.
    Directory,
    /// A relay, counted from 1.
    Relay(usize),
    /// The host that offers `freespeech.anon`.
    Service,
    /// The host that uses it.
    Client,
}

impl Node {
    /// All nodes, in the order in which they are started.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Directory)
            .chain((1..=RELAYS).map(Self::Relay))
            .chain([Self::Service, Self::Client])
    }

    /// `relay3`: also the name of the router's end of the wire.
    pub fn name(self) -> String {
        match self {
            Self::Directory => "directory".into(),
            Self::Relay(number) => format!("relay{number}"),
            Self::Service => "service".into(),
            Self::Client => "client".into(),
        }
    }

    /// `mixline-relay3`.
    pub fn namespace(self) -> String {
        format!("mixline-{}", self.name())
    }

    /// The IPv4 address of the node itself; the network is the /24 around it.
    pub fn ipv4(self) -> Ipv4Addr {
        match self {
            Self::Directory => Ipv4Addr::new(172, 20, 0, 2),
            Self::Relay(number) => Ipv4Addr::new(172, 20 + small(number), 0, 2),
            Self::Client => Ipv4Addr::new(172, 30, 0, 2),
            Self::Service => Ipv4Addr::new(172, 31, 0, 2),
        }
    }

    /// The IPv6 address of the node itself; the network is the /64 around it.
    pub fn ipv6(self) -> Ipv6Addr {
        let second = match self {
            Self::Directory => 0x100,
            Self::Relay(number) => u16::from(small(number)),
            Self::Client => 0x200,
            Self::Service => 0x201,
        };
        Ipv6Addr::new(0x3fff, second, 0, 0, 0, 0, 0, 2)
    }

    /// The router's IPv4 address on this node's wire.
    pub fn gateway_ipv4(self) -> Ipv4Addr {
        let [a, b, c, _] = self.ipv4().octets();
        Ipv4Addr::new(a, b, c, 1)
    }

    /// The router's IPv6 address on this node's wire.
    pub fn gateway_ipv6(self) -> Ipv6Addr {
        let mut segments = self.ipv6().segments();
        segments[7] = 1;
        Ipv6Addr::from(segments)
    }

    /// Both addresses with a relay's port.
    pub fn relay_addresses(self) -> [SocketAddr; 2] {
        [
            SocketAddr::new(IpAddr::V4(self.ipv4()), RELAY_PORT),
            SocketAddr::new(IpAddr::V6(self.ipv6()), RELAY_PORT),
        ]
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The URL of a directory's public part; directories are counted from 0.
pub fn directory_url(number: usize) -> String {
    format!(
        "http://{}:{}",
        Node::Directory.ipv4(),
        directory_port(number)
    )
}

/// The TCP port of a directory's public part.
pub fn directory_port(number: usize) -> u16 {
    DIRECTORY_PORT + u16::from(small(number))
}

/// A relay's number as an octet; there are few enough of them.
fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn relays_are_in_networks_of_their_own() {
        let slash16: HashSet<_> = (1..=RELAYS)
            .map(|n| Node::Relay(n).ipv4().octets()[1])
            .collect();
        let slash32: HashSet<_> = (1..=RELAYS)
            .map(|n| Node::Relay(n).ipv6().segments()[1])
            .collect();
        assert_eq!((slash16.len(), slash32.len()), (RELAYS, RELAYS));
    }

    #[test]
    fn no_node_has_a_virtual_address() {
        for node in Node::all() {
            assert_ne!(node.ipv4().octets()[0], 10, "{node}");
            assert_ne!(node.ipv6().octets()[0], 0xfd, "{node}");
        }
    }

    #[test]
    fn a_wire_joins_two_addresses_of_one_network() {
        for node in Node::all() {
            assert_eq!(node.ipv4().octets()[..3], node.gateway_ipv4().octets()[..3]);
            assert_eq!(
                node.ipv6().segments()[..4],
                node.gateway_ipv6().segments()[..4]
            );
            assert_ne!(node.ipv4(), node.gateway_ipv4());
        }
    }
}
