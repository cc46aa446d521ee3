//! Whose turn it is: the two generations of a filter take new tags one after the other.
//!
//! Any number of threads look for a tag and then write it, while one thread passes the turn on. Of all that bring
//! the same tag, at most one may be told that it is new, and a tag that was new in one turn is found in
//! the next. Threads would have to agree on the turn for that, and those that bring tags are not to wait. So turns are
//! counted twice, on either side of a fence: a turn is *announced*, and then it *begins*. Who brings a tag
//!
//! 1. reads which turn has begun,
//! 2. looks into the other generation,
//! 3. writes into the generation of that turn, under the lock of a block, which says whether it was there,
//! 4. passes a fence, and reads which turn was announced. If it is the next one, goes on at 3 with that.
//!
//! *Both write in the same turn*: the block's lock orders them, and the second finds what the first has written.
//!
//! *Y ends in turn `n`, X begins in `n + 1`*: Y has read that `n + 1` was not announced, after its fence, so its fence
//! precedes the one between announcement and beginning, in the one order that sequentially consistent fences
//! have (C++20, section atomics.order, 3 and 4). X has read the beginning, with acquire, so that fence happens before
//! X looks. What Y wrote before its fence is therefore seen by X in step 2. Without the second count there is
//! no fence on the side of X: the turn's own release and acquire say that X sees what was before the turn, and Y
//! may write after it.
//!
//! *A thread that finds two turns announced since its own* was off the processor for as long as a generation lasts. It
//! says that its tag is old, since another may have written it in the turn between.
//!
//! A tag is forgotten while its generation is emptied for the turn after the next.
//!
//! `tests/replay_turns.rs` tries all that two such threads and a turn can do under the rules of C11.

use super::atomic::{AtomicU64, Ordering, fence};

/// Counts the turns of two generations.
#[derive(Debug, Default)]
pub(super) struct Turn {
    announced: AtomicU64,
    begun: AtomicU64,
}

impl Turn {
    /// The generation whose turn it is.
    pub(super) fn generation(&self) -> usize {
        generation(self.begun.load(Ordering::Acquire))
    }

    /// Brings a tag: `is_known` looks for it in the generation that it is given, `write` writes it into one and says
    /// whether it was not there. True if the tag is new.
    #[inline]
    pub(super) fn take(
        &self,
        is_known: impl FnOnce(usize) -> bool,
        mut write: impl FnMut(usize) -> bool,
    ) -> bool {
        // With acquire, what stands below it is not done before it.
        let mut turn = self.begun.load(Ordering::Acquire);
        if is_known(1 - generation(turn)) {
            return false;
        }
        let mut new = write(generation(turn));
        loop {
            fence(Ordering::SeqCst);
            let announced = self.announced.load(Ordering::Acquire);
            if announced == turn {
                return new;
            }
            if announced != turn.wrapping_add(1) {
                return false;
            }
            turn = announced;
            new &= write(generation(turn));
        }
    }

    /// Lets the other generation, which is empty, have its turn. Called by one thread.
    pub(super) fn pass(&self) {
        let next = self.begun.load(Ordering::Relaxed).wrapping_add(1);
        // With release, whoever sees this finds the generation emptied.
        self.announced.store(next, Ordering::Release);
        fence(Ordering::SeqCst);
        self.begun.store(next, Ordering::Release);
    }
}

/// The generation of a turn.
fn generation(turn: u64) -> usize {
    usize::from(turn % 2 == 1)
}
