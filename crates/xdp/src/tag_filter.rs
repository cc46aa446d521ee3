//! The replay filter that the kernel reads and the relay writes.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use mixline_relay_common::tag_filter::{Position, WORDS};
use prefetch_index::prefetch_index;

use crate::{Error, Result};

/// A generation is full when it has taken a tag for every this many bits.
const BITS_A_TAG: u64 = 24;

/// The mapped `REPLAY` array: two generations of blocks, of which the kernel tests both and
/// the relay sets bits in the current one, only after a datagram has authenticated.
///
/// Shared by the workers; setting a tag takes no lock that anyone holds for long: the
/// current generation changes when it is full or [`TagFilter::HORIZON`] old.
#[derive(Clone)]
pub struct TagFilter(Arc<Inner>);

struct Inner {
    map: MmapRaw,
    key: [u64; 2],
    mask: u32,
    /// Which half is written, and how many tags it has taken.
    current: AtomicU32,
    taken: AtomicU64,
    since: RwLock<Instant>,
}

// SAFETY: the mapping is shared memory that is only touched through atomics.
unsafe impl Sync for Inner {}
// SAFETY: as above; unmapping may happen on any thread.
unsafe impl Send for Inner {}

impl TagFilter {
    /// A generation is written for at most this long. A link session dies after 180 s, and with it
    /// the key that a tag was made with: two generations outlast it.
    pub const HORIZON: Duration = Duration::from_secs(180);

    /// Maps the array behind `fd`: `2 * (mask + 1)` blocks.
    pub(crate) fn map(fd: impl AsFd, key: [u64; 2], mask: u32, now: Instant) -> Result<Self> {
        use std::os::fd::AsRawFd as _;
        let bytes = 2 * (mask as usize + 1) * WORDS * 8;
        let raw = fd.as_fd().as_raw_fd();
        let map = MmapOptions::new()
            .len(bytes)
            .map_raw(raw)
            .map_err(|e| Error::Map {
                map: "REPLAY",
                why: e.to_string(),
            })?;
        Ok(Self(Arc::new(Inner {
            map,
            key,
            mask,
            current: AtomicU32::new(0),
            taken: AtomicU64::new(0),
            since: RwLock::new(now),
        })))
    }

    fn words(&self) -> &[AtomicU64] {
        let words = 2 * (self.0.mask as usize + 1) * WORDS;
        // SAFETY: the mapping has this many aligned 64-bit words, lives as long as `self`, and is
        // touched by nothing in this process but atomics. The kernel only reads it.
        unsafe { std::slice::from_raw_parts(self.0.map.as_ptr().cast::<AtomicU64>(), words) }
    }

    /// The position of a datagram's tag, whose memory is prefetched, so that it is there when the
    /// datagram has authenticated.
    #[must_use]
    pub fn locate(&self, tag: &[u8; 16]) -> Position {
        let (low, high) = tag.split_at(8);
        let word = |half: &[u8]| half.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
        let position = Position::of([word(low), word(high)], self.0.key, self.0.mask);
        prefetch_index(self.words(), self.first_word(position));
        position
    }

    /// The first word of a block of the current generation.
    fn first_word(&self, position: Position) -> usize {
        let generation = self.0.current.load(Ordering::Relaxed);
        (position.block as usize + generation as usize * (self.0.mask as usize + 1)) * WORDS
    }

    /// Remembers the tag of a datagram that has authenticated.
    pub fn mark(&self, position: Position) {
        let block = &self.words()[self.first_word(position)..][..WORDS];
        for (i, word) in block.iter().enumerate() {
            // Not one step: that would be a barrier for each word, a twentieth of a datagram's
            // time. Two workers that write one word at once can lose a bit, and then the kernel
            // lets a replay through to the session's window, which does not.
            word.store(
                word.load(Ordering::Relaxed) | position.bit(i),
                Ordering::Relaxed,
            );
        }
        self.0.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts a new generation if the current one is full or old; call it now and then, from
    /// one thread. True if it did.
    pub fn rotate(&self, now: Instant) -> bool {
        let full = (u64::from(self.0.mask) + 1) * 512 / BITS_A_TAG;
        let since = *self.0.since.read().unwrap_or_else(PoisonError::into_inner);
        let old = now.saturating_duration_since(since) >= Self::HORIZON;
        if self.0.taken.load(Ordering::Relaxed) < full && !old {
            return false;
        }
        let next = 1 - self.0.current.load(Ordering::Relaxed);
        let half = (self.0.mask as usize + 1) * WORDS;
        for word in &self.words()[next as usize * half..][..half] {
            word.store(0, Ordering::Relaxed);
        }
        self.0.taken.store(0, Ordering::Relaxed);
        self.0.current.store(next, Ordering::Release);
        *self.0.since.write().unwrap_or_else(PoisonError::into_inner) = now;
        true
    }
}
