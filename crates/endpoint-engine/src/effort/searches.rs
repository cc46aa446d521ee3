//! Searches for solutions of puzzles, which somebody else goes on with: the engine has no time for them.

use std::collections::VecDeque;

use mixline_protocol::effort::{Search, Solution};

use crate::keys::SessionKey;

/// Nonces that are tried before others have their turn: some 50 ms.
const SLICE: u32 = 1 << 18;
/// Those that are counted together.
const STEP: u32 = 1 << 11;

/// Names a search of this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchNumber(u64);

/// A search that is under way, or to be begun.
#[derive(Debug)]
pub struct SearchTask {
    /// Which one.
    pub(crate) number: SearchNumber,
    /// For whose opening.
    pub(crate) session: SessionKey,
    search: Search,
    /// What was found.
    pub(crate) solution: Option<Solution>,
}

impl SearchTask {
    /// Goes on for some 50 ms at most. How many hashes that took, about.
    pub fn go_on(&mut self) -> u32 {
        let mut hashes = 0;
        while self.solution.is_none() && hashes < SLICE {
            self.solution = self.search.go_on(STEP);
            hashes += STEP;
        }
        hashes
    }
}

/// Searches that wait for their next turn.
#[derive(Default)]
pub struct Searches {
    waiting: VecDeque<SearchTask>,
    begun: u64,
}

impl Searches {
    /// One more.
    pub fn begin(&mut self, session: SessionKey, search: Search) -> SearchNumber {
        self.begun += 1;
        let number = SearchNumber(self.begun);
        self.waiting.push_back(SearchTask {
            number,
            session,
            search,
            solution: None,
        });
        number
    }

    /// One that has found nothing yet has its next turn after the others.
    pub fn again(&mut self, task: SearchTask) {
        self.waiting.push_back(task);
    }

    /// Drops the others.
    pub fn retain(&mut self, wanted: impl FnMut(&SearchTask) -> bool) {
        self.waiting.retain(wanted);
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The one whose turn it is.
    pub fn next(&mut self) -> Option<SearchTask> {
        self.waiting.pop_front()
    }
}
