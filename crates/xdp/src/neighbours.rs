//! Which Ethernet address the next hop of an IP address has, from the kernel's routes and
//! neighbours (rtnetlink).
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

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// How a frame gets to an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
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
/// Most addresses that are remembered; a relay has no more neighbours at a time than this
/// without asking again.
const MAX_HOPS: usize = 65_536;
/// Messages that announce a change: `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`,
/// `_IPV6_IFADDR`, `_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

/// The table. One thread's own.
pub struct Neighbours {
    questions: Socket,
    changes: Socket,
    hops: HashMap<IpAddr, (Hop, Instant)>,
    buffer: Vec<u8>,
}

impl Neighbours {
    /// An empty table, which hears of changes from now on.
    ///
    /// # Errors
    /// What the kernel says of netlink sockets.
    pub fn new() -> io::Result<Self> {
        let mut questions = Socket::new(NETLINK_ROUTE)?;
        questions.bind_auto()?;
        questions.connect(&SocketAddr::new(0, 0))?;
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.bind_auto()?;
        for group in GROUPS {
            changes.add_membership(group)?;
        }
        changes.set_non_blocking(true)?;
        Ok(Self {
            questions,
            changes,
            hops: HashMap::new(),
            buffer: Vec::with_capacity(8192),
        })
    }

    /// How to get to `to`, or nothing if this datagram is to go through the kernel's socket.
    pub fn hop(&mut self, to: IpAddr, now: Instant) -> Option<Hop> {
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
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.changes.recv(&mut self.buffer, 0) {
                Ok(0) => break,
                Ok(_) => changed = true,
                // more was announced than the socket holds: something did change
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => changed = true,
                Err(_) => break,
            }
        }
        if changed {
            self.hops.clear();
        }
    }

    /// Asks for the route, the neighbour on it and the interface's own address.
    fn ask(&mut self, to: IpAddr) -> io::Result<Option<Hop>> {
        let Some((interface, gateway, source)) = self.route(to)? else {
            return Ok(None);
        };
        let Some(neighbour) = self.neighbour(interface, gateway)? else {
            return Ok(None);
        };
        let Some(own) = self.link_address(interface)? else {
            return Ok(None);
        };
        Ok(Some(Hop {
            interface,
            from: own,
            to: neighbour,
            source,
        }))
    }

    /// Interface, gateway (or `to` itself) and source address of the route to `to`.
    fn route(&mut self, to: IpAddr) -> io::Result<Option<(u32, IpAddr, IpAddr)>> {
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
    fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
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

    /// Ethernet address of an interface; nothing if it has none.
    fn link_address(&mut self, interface: u32) -> io::Result<Option<[u8; 6]>> {
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

    /// One question and its one answer; an error of the kernel (no route, no such neighbour)
    /// is no answer.
    fn question(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST;
        packet.finalize();
        self.buffer.clear();
        self.buffer.resize(packet.buffer_len(), 0);
        packet.serialize(&mut self.buffer);
        self.questions.send(&self.buffer, 0)?;
        let (answer, _) = self.questions.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(match answer.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
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
