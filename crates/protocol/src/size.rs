//! The sizes that every node agrees on.
//!
//! ```text
//! datagram 1408 = link header 16 | sealed 1376 | tag 16
//! sealed   1376 = kind 1, zero 7 | cell 1368
//! cell     1368 = path header 296 | payload 1072
//! payload  1072 = masked counter 16 | sealed frames 1040 | tag 16
//! ```
//!
//! 1408 and 48 bytes of IPv6 and UDP headers fit every route with an MTU of 1456 or more.

use zerocopy::{FromBytes, IntoBytes, transmute_mut};

/// Bytes in every UDP payload between two nodes.
pub const DATAGRAM: usize = 1408;
/// Bytes before the sealed part of a datagram.
pub const LINK_HEADER: usize = 16;
/// Bytes that the link seals.
pub const SEALED: usize = 1376;
/// Bytes of an AES-256-GCM tag.
pub const TAG: usize = 16;
/// Bytes of kind and zeros before the cell.
pub const KIND: usize = 8;
/// Bytes of a cell.
pub const CELL: usize = 1368;
/// Where the cell stands in a datagram.
pub const CELL_OFFSET: usize = LINK_HEADER + KIND;
/// Bytes of a path header.
pub const PATH_HEADER: usize = 296;
/// Bytes of the payload that paths carry.
pub const PAYLOAD: usize = 1072;
/// Bytes of the masked counter at the beginning of a session's payload.
pub const COUNTER: usize = 16;
/// Bytes of frames in a payload.
pub const FRAMES: usize = 1040;

/// One UDP payload.
pub type Datagram = [u8; DATAGRAM];
/// One cell: path header and payload.
pub type Cell = [u8; CELL];
/// A cell's two parts.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct CellParts {
    /// For relays.
    pub header: Header,
    /// For the other end.
    pub payload: Payload,
}

/// A cell by its parts.
pub fn parts(cell: &mut Cell) -> &mut CellParts {
    transmute_mut!(cell)
}

/// What a path carries.
pub type Payload = [u8; PAYLOAD];
/// A path header.
pub type Header = [u8; PATH_HEADER];

const _: () = {
    assert!(DATAGRAM == LINK_HEADER + SEALED + TAG);
    assert!(SEALED == KIND + CELL);
    assert!(CELL == PATH_HEADER + PAYLOAD);
    assert!(PAYLOAD == COUNTER + FRAMES + TAG);
    assert!(DATAGRAM == mixline_relay_common::DATAGRAM_LENGTH);
    assert!(LINK_HEADER == mixline_relay_common::LINK_HEADER_LENGTH);
    assert!(TAG == mixline_relay_common::TAG_LENGTH);
    assert!(DATAGRAM - TAG == mixline_relay_common::TAG_OFFSET);
};
