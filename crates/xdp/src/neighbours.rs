//! The next hop of an IP address and its Ethernet address, from the kernel's routes and
//! neighbours (rtnetlink(7)).
//!
//! What is not known, or was last asked for too long ago, is left to the kernel: the
//! caller sends that datagram through an ordinary socket, upon which the kernel resolves
//! the neighbour, or verifies it, as it would for its own traffic. So the table holds
//! only what the kernel believes, and a gateway or an Ethernet address that changes heals
//! by itself: any change of links, addresses, routes or neighbours empties the table.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_netlink::{Changes, Client, Error, ROUTE, Result};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// How a frame gets to an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that leads there.
    pub interface: u32,
    /// That interface's Ethernet address.
    pub from: [u8; 6],
    /// The neighbour's Ethernet address.
    pub to: [u8; 6],
    /// The IP address that the kernel would send from.
    pub source: IpAddr,
}

/// After this long, one datagram goes through the kernel's socket, so that the kernel
/// keeps its neighbour verified (RFC 4861, section 7.3: reachable time is 30 s).
const VERIFY: Duration = Duration::from_secs(10);
/// At most this many addresses are remembered; with more neighbours at a time, a relay asks
/// again.
const MAX_HOPS: usize = 65_536;
/// Messages that announce a change: `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`,
/// `_IPV6_IFADDR`, `_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

/// The table. One thread's own.
pub struct Neighbours {
    client: Client<RouteNetlinkMessage>,
    changes: Changes,
    hops: HashMap<IpAddr, (NextHop, Instant)>,
}

impl Neighbours {
    /// An empty table, which hears of changes from now on.
    ///
    /// # Errors
    /// What the kernel says of netlink sockets.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            client: Client::open(ROUTE)?,
            changes: Changes::listen(ROUTE, &GROUPS)?,
            hops: HashMap::new(),
        })
    }

    /// How to get to `to`; none if this datagram is to go through the kernel's socket.
    pub fn next_hop(&mut self, to: IpAddr, now: Instant) -> Option<NextHop> {
        if let Some((hop, asked)) = self.hops.get(&to) {
            if now.saturating_duration_since(*asked) < VERIFY {
                return Some(*hop);
            }
            self.hops.remove(&to);
            return None;
        }
        let hop = self.ask(to).unwrap_or_else(|e| {
            tracing::debug!("asking the kernel for a next hop: {e}");
            None
        })?;
        if self.hops.len() >= MAX_HOPS {
            self.hops.clear();
        }
        self.hops.insert(to, (hop, now));
        Some(hop)
    }

    /// Empties the table if the kernel has announced a change. Call it now and then: it costs
    /// a system call.
    pub fn hear(&mut self) {
        if self.changes.heard() {
            self.hops.clear();
        }
    }

    /// Asks for the route, the neighbour on it and the interface's own address.
    fn ask(&self, to: IpAddr) -> Result<Option<NextHop>> {
        let Some((interface, gateway, source)) = self.route(to)? else {
            return Ok(None);
        };
        let Some(neighbour) = self.neighbour(interface, gateway)? else {
            return Ok(None);
        };
        let Some(own) = self.link_address(interface)? else {
            return Ok(None);
        };
        Ok(Some(NextHop {
            interface,
            from: own,
            to: neighbour,
            source,
        }))
    }

    /// Interface, gateway (or `to` itself) and source address of the route to `to`.
    fn route(&self, to: IpAddr) -> Result<Option<(u32, IpAddr, IpAddr)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(to.into()));
        let answer = self.question(RouteNetlinkMessage::GetRoute(message))?;
        let Some(RouteNetlinkMessage::NewRoute(route)) = answer else {
            return Ok(None);
        };
        let (mut interface, mut gateway, mut source) = (None, to, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(index),
                RouteAttribute::Gateway(address) => match ip_of_route(&address) {
                    Some(address) => gateway = address,
                    None => return Ok(None),
                },
                RouteAttribute::PrefSource(address) => source = ip_of_route(&address),
                // an IPv6 gateway of an IPv4 route: left to the kernel
                RouteAttribute::Via(_) => return Ok(None),
                _ => {}
            }
        }
        Ok(interface
            .zip(source)
            .map(|(interface, source)| (interface, gateway, source)))
    }

    /// Ethernet address of a neighbour that the kernel holds for valid.
    fn neighbour(&self, interface: u32, address: IpAddr) -> Result<Option<[u8; 6]>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = interface;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }));
        let answer = self.question(RouteNetlinkMessage::GetNeighbour(message))?;
        let Some(RouteNetlinkMessage::NewNeighbour(neighbour)) = answer else {
            return Ok(None);
        };
        let valid = matches!(
            neighbour.header.state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
        );
        Ok(neighbour
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) if valid => {
                    bytes.as_slice().try_into().ok()
                }
                _ => None,
            }))
    }

    /// Ethernet address of an interface; none if it has none.
    fn link_address(&self, interface: u32) -> Result<Option<[u8; 6]>> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        let answer = self.question(RouteNetlinkMessage::GetLink(message))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else {
            return Ok(None);
        };
        Ok(link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
                _ => None,
            }))
    }

    /// One question and its one answer; a refusal of the kernel (no route, no such neighbour) is
    /// no answer.
    fn question(&self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
        match self.client.ask(message) {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn ip_of_route(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
