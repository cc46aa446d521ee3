//! Packing a stream of packets into cells.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::Result;
use crate::size::FRAMES;

/// The rest of a cell below which no fragment is started in it, bytes.
pub const MIN_FRAGMENT_SPACE: usize = 64;

/// Where packed cells go: the caller's buffers, filled in place.
pub trait CellSink {
    /// The frames of the cell that is being filled: the same one until [`Self::complete`].
    fn cell(&mut self) -> &mut [u8; FRAMES];
    /// The cell is full (or flushed) and all its 1040 bytes are written: seal and send it.
    fn complete(&mut self);
}

/// Where the packers of one session draw fragment ids from; clones share one sequence.
#[derive(Debug, Clone, Default)]
pub struct FragmentIds(Arc<AtomicU32>);

impl FragmentIds {
    /// A sequence that starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Packs packets, messages and control frames into successive cells.
///
/// One per session and path (a cell goes over one path); it holds only how far the current
/// cell is filled.
#[derive(Debug)]
pub struct Packer {
    ids: FragmentIds,
    used: usize,
}

impl Packer {
    /// With no cell begun. The packers of a session share its `ids`.
    #[must_use]
    pub fn new(ids: FragmentIds) -> Self {
        Self { ids, used: 0 }
    }

    /// Packs one IP packet.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] for an empty packet or one over 65535 bytes; nothing is written.
    pub fn packet(&mut self, packet: &[u8], sink: &mut impl CellSink) -> Result<()> {
        let _ = (packet, sink, &self.ids);
        todo!()
    }

    /// Packs one message.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] for an empty message or one over 16 KiB; nothing is written.
    pub fn message(&mut self, message: &[u8], sink: &mut impl CellSink) -> Result<()> {
        let _ = (message, sink);
        todo!()
    }

    /// Packs one control frame, which is never split.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] if it is longer than a cell holds; nothing is written.
    pub fn control(&mut self, body: &[u8], sink: &mut impl CellSink) -> Result<()> {
        let _ = (body, sink);
        todo!()
    }

    /// Completes the current cell if something is in it.
    pub fn flush(&mut self, sink: &mut impl CellSink) {
        let _ = sink;
        todo!()
    }

    /// Whether the current cell is empty: nothing waits for a flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}
