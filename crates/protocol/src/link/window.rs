//! The sliding window that refuses a counter seen before (RFC 6479's ring of words).
//!
//! Exact: with the largest accepted counter `top`, a counter is refused if it was accepted
//! before or if `counter + WIDTH <= top`.

use crate::prefetch::prefetch_element;
use crate::{Error, Result};

/// Bits in a word.
const BITS: u64 = 64;

/// Which of the last [`SlidingWindow::WIDTH`] counters have been accepted.
///
/// `WORDS` words are one more than the width needs, because the newest word is partly ahead.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct SlidingWindow<const WORDS: usize> {
    /// One more than the largest accepted counter; zero if none was.
    end: u64,
    /// The word of counters `64 n ..` stands at `n % WORDS`.
    words: [u64; WORDS],
}

/// The window of a link, 8192 counters wide: 5 ms of a link at 1.6 million datagrams a second.
pub type Window = SlidingWindow<129>;

impl<const WORDS: usize> SlidingWindow<WORDS> {
    /// How far behind the largest accepted counter another may be.
    pub const WIDTH: u64 = (WORDS as u64 - 1) * BITS;

    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(WORDS >= 2) };
        Self {
            words: [0; WORDS],
            end: 0,
        }
    }

    /// Asks for what says whether `counter` has been seen; not for the window's first field,
    /// which is at its address.
    pub fn prefetch(&self, counter: u64) {
        prefetch_element(&self.words, Self::slot(counter / BITS));
    }

    /// Whether `counter` is neither seen nor too old. Changes nothing.
    #[must_use]
    pub fn check(&self, counter: u64) -> bool {
        if counter >= self.end {
            return true;
        }
        if self.end - counter > Self::WIDTH {
            return false;
        }
        self.words[Self::slot(counter / BITS)] & Self::bit(counter) == 0
    }

    /// Marks `counter` as seen. Only for a datagram that has authenticated, or else anybody
    /// could shut out what is still to come.
    ///
    /// # Errors
    /// [`Error::Replay`] if it is seen or too old, or `u64::MAX`, which has no successor.
    pub fn accept(&mut self, counter: u64) -> Result<()> {
        if counter == u64::MAX || !self.check(counter) {
            return Err(Error::Replay);
        }
        if counter >= self.end {
            let word = counter / BITS;
            // The words after that of the last accepted counter, up to the new one, are stale.
            let first = if self.end == 0 {
                0
            } else {
                (self.end - 1) / BITS + 1
            };
            let stale = (word + 1).saturating_sub(first).min(WORDS as u64);
            for n in 0..stale {
                self.words[Self::slot(word - n)] = 0;
            }
            self.end = counter + 1;
        }
        self.words[Self::slot(counter / BITS)] |= Self::bit(counter);
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "below WORDS, which is a usize"
    )]
    fn slot(word: u64) -> usize {
        (word % WORDS as u64) as usize
    }

    fn bit(counter: u64) -> u64 {
        1 << (counter % BITS)
    }
}

impl<const WORDS: usize> Default for SlidingWindow<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}
