//! The sliding window.
use crate::Result;

/// Which counters have been seen: the last `(WORDS - 1) * 64`.
#[derive(Debug, Clone)]
pub struct SlidingWindow<const WORDS: usize> {
    #[allow(dead_code)]
    bits: [u64; WORDS],
}

/// The link's: 8192 wide.
pub type Window = SlidingWindow<129>;

impl<const WORDS: usize> SlidingWindow<WORDS> {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self { bits: [0; WORDS] }
    }
    /// Whether `counter` is neither seen nor too old. Changes nothing.
    #[must_use]
    pub fn check(&self, _counter: u64) -> bool {
        todo!()
    }
    /// Marks `counter` as seen; only after its datagram has authenticated.
    ///
    /// # Errors
    /// [`crate::Error::Replay`] if it is seen or too old.
    pub fn accept(&mut self, _counter: u64) -> Result<()> {
        todo!()
    }
}

impl<const WORDS: usize> Default for SlidingWindow<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}
