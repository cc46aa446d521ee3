//! Putting fragments together again.

use std::time::{Duration, Instant};

use super::Frame;
use crate::Result;

/// Bytes of buffers that one session's reassembly holds at most, the pool included.
pub const REASSEMBLY_MEMORY: usize = 1024 * 1024;
/// Incomplete packets and messages at most: what the memory holds of the smallest buffer.
pub const MAX_PARTIALS: usize = 512;
/// How long a packet may stay incomplete.
pub const REASSEMBLY_TIME: Duration = Duration::from_secs(5);

/// What a frame delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered<'a> {
    /// A whole IP packet.
    Packet(&'a [u8]),
    /// A whole message.
    Message(&'a [u8]),
    /// The body of a control frame.
    Control(&'a [u8]),
}

/// What a reassembly has given up, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Incomplete after [`REASSEMBLY_TIME`].
    pub expired: u64,
    /// Pushed out, incomplete, by newer ones.
    pub evicted: u64,
    /// Refused: inconsistent or over a limit.
    pub refused: u64,
}

/// The incomplete packets and messages of one session.
#[derive(Debug, Default)]
pub struct Reassembly {
    counters: ReassemblyCounters,
}

impl Reassembly {
    /// Empty; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one frame. Whole frames pass through; a fragment that completes its packet
    /// delivers it, from a buffer that is used again at the next call.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for a fragment that contradicts an earlier one of the same
    /// id, [`crate::Error::Limit`] for a message over 16 KiB or a packet in too many pieces; what
    /// had arrived of it is dropped.
    pub fn accept<'a>(
        &'a mut self,
        frame: Frame<'a>,
        now: Instant,
    ) -> Result<Option<Delivered<'a>>> {
        let _ = (frame, now);
        todo!()
    }

    /// Drops what is older than [`REASSEMBLY_TIME`], and the pool if nothing has come for as
    /// long. To be called now and then; `accept` needs no help to stay bounded.
    pub fn expire(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// What has been given up so far.
    #[must_use]
    pub fn counters(&self) -> ReassemblyCounters {
        self.counters
    }

    /// Bytes of buffers held, the pool included: at most [`REASSEMBLY_MEMORY`].
    #[must_use]
    pub fn memory(&self) -> usize {
        todo!()
    }
}
