//! What a relay has already relayed.
use crate::Result;
use crate::time::UnixTime;
use std::time::{Duration, Instant};

/// Bits of a generation per entry when it counts as full.
pub const BITS_PER_ENTRY: usize = 24;

/// Remembers 16-byte tags; shared by threads.
pub struct ReplayFilter(());

impl ReplayFilter {
    /// An empty filter of twice `bytes_per_generation`, hashing with the secret `key`.
    #[must_use]
    pub fn new(_bytes_per_generation: usize, _key: [u8; 16], _now: Instant) -> Self {
        todo!()
    }
    /// A generation is replaced at this age even if not full: how long the keys live under
    /// which a tag can come back (onion epoch and grace).
    pub fn set_life(&self, _life: Duration) {
        todo!()
    }
    /// Remembers the tag; true if it was new.
    #[must_use]
    pub fn check_and_set(&self, _tag: &[u8; 16]) -> bool {
        todo!()
    }
    /// Whether the tag is remembered.
    #[must_use]
    pub fn contains(&self, _tag: &[u8; 16]) -> bool {
        todo!()
    }
    /// Begins a new generation if it is time or the current one is full; call it about once a second.
    /// True if it did.
    pub fn rotate(&self, _now: Instant) -> bool {
        todo!()
    }
    /// How full the current generation is, 1.0 at its capacity.
    #[must_use]
    pub fn fill(&self) -> f64 {
        todo!()
    }
    /// Every tag of this last while is surely remembered.
    #[must_use]
    pub fn horizon(&self, _now: Instant) -> Duration {
        todo!()
    }
    /// The filter as bytes, secret key included.
    #[must_use]
    pub fn save(&self, _now: Instant, _wall: UnixTime) -> Vec<u8> {
        todo!()
    }
    /// A saved filter.
    ///
    /// # Errors
    /// `Length`, `Version`, `Malformed`, `Authentication` (the checksum).
    pub fn load(_bytes: &[u8], _now: Instant, _wall: UnixTime) -> Result<Self> {
        todo!()
    }
}
