//! Packing a stream of packets into cells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::frame::{
    FRAGMENT_HEADER, FRAME_HEADER, Fragment, Frame, FrameWriter, MAX_MESSAGE, MAX_PACKET,
};
use crate::size::FRAMES;
use crate::{Error, Result};

/// The rest of a cell below which no fragment is started in it, bytes: eleven of them would
/// be header, and the packet would need one more piece to arrive.
pub const MIN_FRAGMENT_SPACE: usize = 64;

/// Where packed cells go: the caller's buffers, which are filled in place.
pub trait CellSink {
    /// The frames of the cell that is being filled: the same one until [`Self::complete`].
    fn cell(&mut self) -> &mut [u8; FRAMES];
    /// All 1040 bytes of that cell are written: seal it, send it.
    fn complete(&mut self);
}

/// Where the packers of one session draw fragment ids from; clones share one sequence.
///
/// It wraps after 2^32 fragmented packets, long after reassembly has forgotten the first.
#[derive(Debug, Clone, Default)]
pub struct FragmentIds(Arc<AtomicU32>);

impl FragmentIds {
    /// A sequence that starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Packs packets, messages and control frames into successive cells.
///
/// A packet goes whole where it fits. One that does not fit the rest of the current cell
/// starts there if that is at least [`MIN_FRAGMENT_SPACE`], and otherwise in the next cell.
///
/// There is one packer per session and path (a cell goes over one path). It holds no more
/// than how far the current cell is filled.
#[derive(Debug)]
pub struct Packer {
    ids: FragmentIds,
    used: usize,
    /// Bytes at the beginning of each cell that are left to the caller.
    reserved: usize,
}

impl Packer {
    /// With no cell begun. All packers of a session share its `ids`.
    #[must_use]
    pub fn new(ids: FragmentIds) -> Self {
        Self::behind(ids, 0)
    }

    /// The same, for cells whose first `reserved` bytes the caller writes: a frame of its own. They are
    /// at most [`FRAMES`] less what the longest control frame needs.
    #[must_use]
    pub fn behind(ids: FragmentIds, reserved: usize) -> Self {
        Self {
            ids,
            used: reserved,
            reserved,
        }
    }

    /// Packs one IP packet.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is empty or over 65535 bytes; nothing is written then.
    pub fn packet(&mut self, packet: &[u8], sink: &mut impl CellSink) -> Result<()> {
        if packet.is_empty() || packet.len() > MAX_PACKET {
            return Err(Error::Limit {
                what: "packet length",
            });
        }
        self.pack(packet, Frame::Packet, Frame::PacketFragment, sink);
        Ok(())
    }

    /// Packs one message.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is empty or over 16 KiB; nothing is written then.
    pub fn message(&mut self, message: &[u8], sink: &mut impl CellSink) -> Result<()> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(Error::Limit {
                what: "message length",
            });
        }
        self.pack(message, Frame::Message, Frame::MessageFragment, sink);
        Ok(())
    }

    /// Packs one control frame. It is never split: [`crate::session::Control`] fits a cell.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is empty or longer than a cell holds; nothing is written then.
    pub fn control(&mut self, body: &[u8], sink: &mut impl CellSink) -> Result<()> {
        if body.is_empty() || body.len() > FRAMES - FRAME_HEADER - self.reserved {
            return Err(Error::Limit {
                what: "control frame length",
            });
        }
        if !self.push(&Frame::Control(body), sink) {
            self.flush(sink);
            self.push(&Frame::Control(body), sink);
        }
        Ok(())
    }

    /// Completes the current cell, if something is in it.
    pub fn flush(&mut self, sink: &mut impl CellSink) {
        if !self.is_empty() {
            FrameWriter::resume(sink.cell(), self.used).finish();
            sink.complete();
            self.used = self.reserved;
        }
    }

    /// Whether nothing waits for a flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == self.reserved
    }

    /// Bytes free in the current cell, or in a whole one if none is begun.
    #[must_use]
    pub fn left(&self) -> usize {
        FRAMES - self.used
    }

    /// `bytes` are at least one, and at most what 16 bits count.
    fn pack<'p>(
        &mut self,
        bytes: &'p [u8],
        whole: fn(&'p [u8]) -> Frame<'p>,
        fragment: fn(Fragment<'p>) -> Frame<'p>,
        sink: &mut impl CellSink,
    ) {
        if self.left() < MIN_FRAGMENT_SPACE && FRAME_HEADER + bytes.len() > self.left() {
            self.flush(sink);
        }
        if self.push(&whole(bytes), sink) {
            return;
        }
        let id = self.ids.next();
        let mut offset = 0;
        while offset < bytes.len() {
            let space = self.left() - FRAME_HEADER - FRAGMENT_HEADER;
            let end = bytes.len().min(offset + space);
            #[expect(clippy::cast_possible_truncation, reason = "the callers' bounds")]
            let piece = Fragment {
                id,
                offset: offset as u16,
                total: bytes.len() as u16,
                data: &bytes[offset..end],
            };
            self.push(&fragment(piece), sink);
            offset = end;
        }
    }

    fn push(&mut self, frame: &Frame<'_>, sink: &mut impl CellSink) -> bool {
        let mut writer = FrameWriter::resume(sink.cell(), self.used);
        let fits = writer.push(frame);
        self.used = writer.used();
        if self.left() <= FRAME_HEADER {
            self.flush(sink);
        }
        fits
    }
}
