//! Initiations that came through public tails and wait: for the public-key work of reading them, and, when
//! they were read, for being answered. Both have a budget a second, which goes to the most effort.

use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::session::{Initiation, effort};
use mixline_protocol::size::Payload;

use super::queue::EffortQueue;
use super::seeds::Seeds;
use super::seen::Seen;
use super::suggestion::Suggestion;
use crate::limits::{MAX_READ, MAX_SEALED};

/// Who waits for less is served soon enough: whoever comes at random does so at a service that has time for all.
pub const LONG: Duration = Duration::from_millis(500);

/// One that was read: who made it may have a session.
pub struct Read {
    /// What it says.
    pub initiation: Initiation,
    /// Which client of the own list has made it.
    pub client: Option<X25519Public>,
}

/// Strangers who want a session, what they have spent, and what they are to spend.
pub struct Strangers {
    /// The seeds that are good.
    pub seeds: Seeds,
    /// What is suggested to them.
    pub suggestion: Suggestion,
    /// Nothing is known of these but their effort.
    pub sealed: EffortQueue<Box<Payload>>,
    /// These are of somebody who is let in.
    pub read: EffortQueue<Read>,
    seen: Seen,
}

impl Strangers {
    /// Nobody yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            seeds: Seeds::default(),
            suggestion: Suggestion::new(now),
            sealed: EffortQueue::new(MAX_SEALED),
            read: EffortQueue::new(MAX_READ),
            seen: Seen::default(),
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sealed.len() + self.read.len()
    }

    /// The most effort of those that have waited for [`LONG`].
    #[must_use]
    pub fn most_effort_that_waits(&self, now: Instant) -> Option<Effort> {
        let sealed = self.sealed.most_of_those_since(LONG, now);
        sealed.max(self.read.most_of_those_since(LONG, now))
    }

    /// Whether one that effort was spent on has been looked at, or waits to be. Without effort nothing is
    /// gained by sending it again.
    #[must_use]
    pub fn knows(&self, spent: Effort, initiation: &Payload) -> bool {
        spent > 0
            && (self.seen.contains(&effort::name(initiation))
                || self.sealed.iter().any(|it| **it == *initiation))
    }

    /// Takes the next one to be read.
    pub fn next_sealed(&mut self) -> Option<(Effort, Box<Payload>)> {
        let (spent, payload) = self.sealed.pop()?;
        if spent > 0 {
            self.seen.insert(effort::name(&payload));
        }
        Some((spent, payload))
    }

    /// Drops those who have waited too long. How many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let late = [self.sealed.expire(now), self.read.expire(now)].concat();
        for spent in &late {
            self.suggestion.turned_away(*spent, now);
        }
        late.len()
    }

    /// Nobody is let in any more, or others than before.
    pub fn forget(&mut self) {
        self.sealed.clear();
        self.read.clear();
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::size::PAYLOAD;

    use super::*;

    #[test]
    fn a_solution_is_served_once() {
        let (mut strangers, now) = (Strangers::new(Instant::now()), Instant::now());
        let (solved, other) = ([1; PAYLOAD], [2; PAYLOAD]);
        assert!(!strangers.knows(4096, &solved));
        strangers.sealed.push(4096, Box::new(solved), now);
        assert!(strangers.knows(4096, &solved), "it waits");
        assert!(!strangers.knows(4096, &other));
        assert_eq!(strangers.next_sealed(), Some((4096, Box::new(solved))));
        assert!(strangers.knows(4096, &solved), "it was looked at");
        // Who has seen it early, and makes another one of the same keys, does not keep it out.
        let mut seen_early = other;
        seen_early[effort::FRONT..effort::FRONT + 80].fill(7);
        let mut original = seen_early;
        original[PAYLOAD - 1] ^= 1;
        strangers.sealed.push(1, Box::new(seen_early), now);
        assert!(!strangers.knows(4096, &original));
        assert!(strangers.next_sealed().is_some());
        assert!(strangers.knows(1, &seen_early));
        assert!(!strangers.knows(4096, &original));
        // What cost nothing takes no room in the memory.
        strangers.sealed.push(0, Box::new(other), now);
        assert!(strangers.next_sealed().is_some());
        assert!(!strangers.knows(0, &other));
        assert!(!strangers.knows(4096, &other));
    }
}
