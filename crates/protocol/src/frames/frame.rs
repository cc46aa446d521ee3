//! Reading and writing single frames.

use crate::size::FRAMES;
use crate::{Error, Result};

/// Bytes before a frame's body: kind and length.
pub const FRAME_HEADER: usize = 3;
/// Bytes before the data of a fragment: id, offset, total.
pub const FRAGMENT_HEADER: usize = 8;
/// The longest packet, bytes: the IP length field's range.
pub const MAX_PACKET: usize = 65535;
/// The longest message, bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// One frame, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole IP packet.
    Packet(&'a [u8]),
    /// A part of an IP packet.
    PacketFragment(Fragment<'a>),
    /// A control frame: see `session::control`.
    Control(&'a [u8]),
    /// A whole message.
    Message(&'a [u8]),
    /// A part of a message.
    MessageFragment(Fragment<'a>),
}

/// A part of a packet or message. Reading has checked that it is not empty and ends within
/// `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which packet, among the sender's packets of the last seconds.
    pub id: u32,
    /// Where the data stands in the packet.
    pub offset: u16,
    /// How long the packet is.
    pub total: u16,
    /// The part.
    pub data: &'a [u8],
}

/// The frames of a cell, in order; after an error nothing more.
#[must_use]
pub fn frames(bytes: &[u8; FRAMES]) -> Frames<'_> {
    Frames { rest: bytes }
}

/// Iterator of [`frames`].
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = (self.rest, Error::Replay);
        todo!()
    }
}

/// Writes frames one after the other into the 1040 bytes of a cell.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    cell: &'a mut [u8; FRAMES],
    used: usize,
}

impl<'a> FrameWriter<'a> {
    /// Starts at the front of a cell; what the cell held is overwritten or zeroed.
    pub fn new(cell: &'a mut [u8; FRAMES]) -> Self {
        Self { cell, used: 0 }
    }

    /// Appends a frame if it fits; says whether it did.
    pub fn push(&mut self, frame: &Frame<'_>) -> bool {
        let _ = (frame, &self.cell, self.used);
        todo!()
    }

    /// Bytes still free.
    #[must_use]
    pub fn left(&self) -> usize {
        FRAMES - self.used
    }

    /// Zeroes what is left: the cell is ready to be sealed.
    pub fn finish(self) {
        todo!()
    }
}
