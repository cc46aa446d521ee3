//! Addresses on the wires: of the nodes that are measured, and of their neighbours.

use std::net::Ipv4Addr;

use super::abi::NETWORK;

/// How many neighbours a relay has.
pub const NEIGHBOURS: usize = 64;
/// The port of all relays.
pub const PORT: u16 = 7000;

/// The address of a node's neighbour, counted from 0.
#[must_use]
pub fn neighbour(node: u8, at: usize) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], node, at as u8 + 1)
}

/// The address of a node.
#[must_use]
pub fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], node, 254)
}
