//! Addresses on the wires: of the nodes that are measured, and of their neighbours.

use std::net::Ipv4Addr;

use super::abi::NETWORK;

/// How many neighbours a relay has.
pub const NEIGHBOURS: usize = 64;
/// The port of all relays.
pub const PORT: u16 = 7000;

/// The address of a place's neighbour, counted from 0.
#[must_use]
pub fn neighbour(place: u8, at: usize) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], place, at as u8 + 1)
}

/// The address of what is at a place.
#[must_use]
pub fn address(place: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], place, 254)
}
