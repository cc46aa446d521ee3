//! Initiations that wait for a responder under load: a bounded queue, in the order of effort.
//!
//! Of those with the same effort the first to come is the first to be served, and the last to come gives way. Those
//! that come from where a relay is have a queue of their own, and every other turn.

use crate::effort::Effort;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How many wait in each of the two queues.
pub const MAX_WAITING: usize = 256;

/// What waits.
#[derive(Debug)]
pub struct Waiting<T> {
    strangers: Queue<T>,
    relays: Queue<T>,
    relays_turn: bool,
    count: u64,
}

/// By effort, and then by order of arrival.
type Queue<T> = BTreeMap<(Effort, Reverse<u64>), T>;

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            strangers: BTreeMap::new(),
            relays: BTreeMap::new(),
            relays_turn: true,
            count: 0,
        }
    }
}

impl<T> Waiting<T> {
    /// Adds one; that which gives way, and its effort, if there is no room for all.
    pub fn push(&mut self, from_relay: bool, effort: Effort, item: T) -> Option<(Effort, T)> {
        self.count += 1;
        let queue = if from_relay {
            &mut self.relays
        } else {
            &mut self.strangers
        };
        queue.insert((effort, Reverse(self.count)), item);
        if queue.len() <= MAX_WAITING {
            return None;
        }
        let least = queue.pop_first();
        least.map(|((effort, _), item)| (effort, item))
    }

    /// The next to be served, and its effort.
    pub fn pop(&mut self) -> Option<(Effort, T)> {
        let (mut first, mut second) = (&mut self.relays, &mut self.strangers);
        if !self.relays_turn {
            std::mem::swap(&mut first, &mut second);
        }
        self.relays_turn = !self.relays_turn;
        let next = first.pop_last().or_else(|| second.pop_last());
        next.map(|((effort, _), item)| (effort, item))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty() && self.strangers.is_empty()
    }

    /// Whether few strangers wait who have made so much effort.
    #[must_use]
    pub fn is_short(&self, effort: Effort) -> bool {
        let from = (effort, Reverse(u64::MAX));
        self.strangers.range(from..).count() <= MAX_WAITING / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_served_and_the_least_give_way() {
        let mut waiting = Waiting::default();
        for n in 0..MAX_WAITING {
            assert_eq!(waiting.push(false, 5, n), None);
        }
        // As good as the others, and later.
        assert_eq!(waiting.push(false, 5, 1000), Some((5, 1000)));
        assert_eq!(waiting.push(false, 4, 1001), Some((4, 1001)));
        assert_eq!(waiting.push(false, 6, 1002), Some((5, MAX_WAITING - 1)));
        assert_eq!(waiting.pop(), Some((6, 1002)));
        assert_eq!(waiting.pop(), Some((5, 0)));
        assert_eq!(waiting.pop(), Some((5, 1)));
        assert!(!waiting.is_short(5) && waiting.is_short(6) && !waiting.is_empty());
    }

    #[test]
    fn relays_have_every_other_turn() {
        let mut waiting = Waiting::default();
        for n in 0..4 {
            waiting.push(false, 1 << 20, n);
        }
        for n in 10..13 {
            waiting.push(true, 0, n);
        }
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop())
            .map(|(_, n)| n)
            .collect();
        assert_eq!(order, [10, 0, 11, 1, 12, 2, 3]);
        assert!(waiting.is_short(0) && waiting.is_empty());
    }
}
