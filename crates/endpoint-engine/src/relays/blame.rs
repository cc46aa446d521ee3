//! Which relays a session has reason to distrust.
//!
//! A path that fails does not say which of its relays is at fault, so all of them that work
//! nowhere else are blamed. A new path takes those against which least speaks, and a path that
//! begins to answer relieves its relays: so the innocent come back one by one, and what fails
//! again and again stays away. Were all of them simply shunned, a small network would soon be
//! left with a few relays that every path shares, and the next failure would end them all at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;

use crate::relays::selection::FAILED;

/// Failures of one relay that are counted.
const MAX_FAILURES: u8 = 5;
/// At most so many relays are blamed.
const MAX_BLAMED: usize = 64;
/// How long a failure is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The relays that a session blames.
#[derive(Default)]
pub struct Blame {
    relays: HashMap<ShortId, Failures>,
}

struct Failures {
    count: u8,
    until: Instant,
}

impl Blame {
    /// A relay was in a path that failed, and is in none that works.
    pub fn add(&mut self, relay: ShortId, now: Instant) {
        self.relays.retain(|_, failures| failures.until > now);
        let until = now + REMEMBERED;
        if let Some(failures) = self.relays.get_mut(&relay) {
            failures.count = MAX_FAILURES.min(failures.count + 1);
            failures.until = until;
            return;
        }
        if self.relays.len() >= MAX_BLAMED
            && let Some((oldest, _)) = self.relays.iter().min_by_key(|(_, f)| f.until)
        {
            let oldest = *oldest;
            self.relays.remove(&oldest);
        }
        self.relays.insert(relay, Failures { count: 1, until });
    }

    /// These relays are in a path that has begun to answer: one failure less.
    pub fn relieve(&mut self, relays: &[ShortId]) {
        self.relays.retain(|relay, failures| {
            if relays.contains(relay) {
                failures.count = failures.count.saturating_sub(1);
            }
            failures.count > 0
        });
    }

    /// Nothing has worked, and no relay is to blame for that.
    pub fn forget(&mut self) {
        self.relays.clear();
    }

    /// What speaks against a relay: [`FAILED`] for each failure that counts.
    #[must_use]
    pub fn of(&self, relay: &ShortId, now: Instant) -> u8 {
        match self.relays.get(relay) {
            Some(failures) if failures.until > now => FAILED * failures.count,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShortId = ShortId([1; 8]);
    const B: ShortId = ShortId([2; 8]);

    #[test]
    fn what_fails_again_is_blamed_more_and_what_works_is_cleared() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        blame.add(A, now);
        blame.add(B, now);
        blame.add(A, now);
        assert_eq!((blame.of(&A, now), blame.of(&B, now)), (2 * FAILED, FAILED));
        blame.relieve(&[B]);
        assert_eq!((blame.of(&A, now), blame.of(&B, now)), (2 * FAILED, 0));
        for _ in 0..100 {
            blame.add(A, now);
        }
        assert_eq!(blame.of(&A, now), MAX_FAILURES * FAILED);
    }

    #[test]
    fn failures_are_forgotten_and_bounded() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        for number in 0..=255 {
            blame.add(ShortId([number; 8]), now);
        }
        assert_eq!(blame.relays.len(), MAX_BLAMED);
        assert_eq!(blame.of(&A, now + REMEMBERED), 0);
        blame.add(B, now + REMEMBERED);
        assert_eq!(blame.relays.len(), 1);
    }
}
