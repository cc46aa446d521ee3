//! Searches for solutions of puzzles, which somebody else goes on with: the engine has no time for them.
//!
//! The one that has had the fewest hashes is next, and has as many again. So a short one is soon over, however
//! many long ones there are: a service that asks for much effort delays the handshakes with itself, and
//! hardly those with others.

use mixline_protocol::effort::{Search, Solution};

use crate::keys::SessionKey;

/// Nonces that are tried before others have their turn: a millisecond at first ...
const LEAST_SLICE: u64 = 1 << 13;
/// ... and some 50 ms at most.
const MOST_SLICE: u64 = 1 << 18;
/// Those that are counted together.
const STEP: u32 = 1 << 11;

/// Names a search of this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SearchNumber(u64);

/// A search that is under way, or to be begun.
#[derive(Debug)]
pub struct SearchTask {
    /// Which one.
    pub(crate) number: SearchNumber,
    /// For whose opening.
    pub(crate) session: SessionKey,
    search: Search,
    /// Hashes that it has had.
    done: u64,
    /// What was found.
    pub(crate) solution: Option<Solution>,
}

impl SearchTask {
    /// Goes on for some 50 ms at most. How many hashes that took, about.
    pub fn go_on(&mut self) -> u32 {
        let slice = self.done.clamp(LEAST_SLICE, MOST_SLICE);
        let mut hashes = 0;
        while self.solution.is_none() && u64::from(hashes) < slice {
            self.solution = self.search.go_on(STEP);
            hashes += STEP;
        }
        self.done += u64::from(hashes);
        hashes
    }
}

/// Searches that wait for their next turn.
#[derive(Default)]
pub struct Searches {
    waiting: Vec<SearchTask>,
    begun: u64,
}

impl Searches {
    /// One more.
    pub fn begin(&mut self, session: SessionKey, search: Search) -> SearchNumber {
        self.begun += 1;
        let number = SearchNumber(self.begun);
        self.waiting.push(SearchTask {
            number,
            session,
            search,
            done: 0,
            solution: None,
        });
        number
    }

    /// One that has found nothing yet waits for its next turn.
    pub fn again(&mut self, task: SearchTask) {
        self.waiting.push(task);
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

    /// The one whose turn it is: the one that has had the fewest hashes, and of these the oldest.
    pub fn next(&mut self) -> Option<SearchTask> {
        let waiting = self.waiting.iter().enumerate();
        let (at, _) = waiting.min_by_key(|(_, task)| (task.done, task.number))?;
        Some(self.waiting.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::effort::{Effort, NONCE, Puzzle};

    use super::*;

    fn search(label: u8, effort: Effort) -> Search {
        Puzzle::new(b"label", &[&[label]]).search(effort, [0; NONCE])
    }

    #[test]
    fn many_long_ones_do_not_delay_a_short_one() {
        let mut searches = Searches::default();
        for label in 0..50 {
            searches.begin(SessionKey::default(), search(label, Effort::MAX));
        }
        for _ in 0..200 {
            let mut task = searches.next().unwrap();
            task.go_on();
            searches.again(task);
        }
        let short = searches.begin(SessionKey::default(), search(99, 1 << 10));
        let mut task = searches.next().unwrap();
        assert_eq!(task.number, short);
        while task.solution.is_none() {
            assert!(task.done < 1 << 14, "it is as good as found");
            task.go_on();
        }
    }

    #[test]
    fn long_ones_go_on_by_turns_with_ever_larger_slices() {
        let mut searches = Searches::default();
        let numbers: Vec<_> = (0..3)
            .map(|label| searches.begin(SessionKey::default(), search(label, Effort::MAX)))
            .collect();
        for slice in [1 << 13, 1 << 13, 1 << 14, 1 << 15] {
            for number in &numbers {
                let mut task = searches.next().unwrap();
                assert_eq!((task.number, task.go_on()), (*number, slice));
                searches.again(task);
            }
        }
        assert_eq!(searches.len(), 3);
    }
}
