//! Initiations that effort was spent on and that were looked at: each is served once. Otherwise who has
//! solved one puzzle would send that one again and again, and come before all others with it.

use std::collections::HashSet;

/// Of one generation. At the rate at which public-key work is done for strangers this is eleven minutes, so
/// that an initiation that was forgotten is too old, or says that it is from the future.
pub const GENERATION: usize = 1 << 18;

/// The names of those initiations; bounded, the oldest are forgotten.
#[derive(Default)]
pub struct Seen {
    now: HashSet<[u8; 8]>,
    before: HashSet<[u8; 8]>,
}

impl Seen {
    /// Whether it was looked at.
    #[must_use]
    pub fn contains(&self, name: &[u8; 8]) -> bool {
        self.now.contains(name) || self.before.contains(name)
    }

    /// It is looked at now.
    pub fn insert(&mut self, name: [u8; 8]) {
        if self.now.len() >= GENERATION {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut seen = Seen::default();
        let name = |number: usize| (number as u64).to_be_bytes();
        for number in 0..=2 * GENERATION {
            seen.insert(name(number));
        }
        assert!(!seen.contains(&name(0)));
        assert!(seen.contains(&name(GENERATION)));
        assert!(seen.contains(&name(2 * GENERATION)));
    }
}
