//! What the XDP program and the relay agree on.
//!
//! [`wire`] has the few offsets of a datagram that both need, [`frame`] finds datagrams in
//! Ethernet frames and writes their headers, [`checksum`] is the checksum of those headers,
//! [`maps`] has the layout of the maps they share, [`verdict`] the reasons for which the program
//! passes or drops a frame, [`tag_filter`] finds where a datagram's tag stands in the replay
//! filter, [`bucket`] limits handshakes, and [`stamp`] is the time when a frame came. The XDP program never sees the protocol crate; the
//! protocol crate asserts at compile time that its own numbers are these.
#![no_std]

pub mod bucket;
pub mod checksum;
pub mod frame;
pub mod maps;
pub mod stamp;
pub mod tag_filter;
pub mod verdict;
pub mod wire;

pub use wire::{DATAGRAM_LENGTH, LINK_HEADER_LENGTH, TAG_LENGTH, TAG_OFFSET};
