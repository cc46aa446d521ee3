//! What waits for its turn: the most effort first, and of equal effort the newest, since who waits for long
//! has tried again meanwhile. It is bounded, and the least effort gives way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;

/// What has waited for so long is of no use to anybody any more.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A bounded queue.
pub struct EffortQueue<T> {
    /// By effort, and by when they came: the last is the next.
    waiting: BTreeMap<(Effort, u64), (Instant, T)>,
    came: u64,
    most: usize,
}

impl<T> EffortQueue<T> {
    /// An empty one, of at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            came: 0,
            most,
        }
    }

    /// Whether something of this effort would be taken.
    #[must_use]
    pub fn takes(&self, effort: Effort) -> bool {
        self.waiting.len() < self.most
            || self
                .waiting
                .first_key_value()
                .is_some_and(|((least, _), _)| *least <= effort)
    }

    /// Adds one. The effort of the one that had to give way, which may be the new one.
    pub fn push(&mut self, effort: Effort, what: T, now: Instant) -> Option<Effort> {
        self.came += 1;
        self.waiting.insert((effort, self.came), (now, what));
        if self.waiting.len() <= self.most {
            return None;
        }
        self.waiting.pop_first().map(|((effort, _), _)| effort)
    }

    /// The effort of the next one.
    #[must_use]
    pub fn next_effort(&self) -> Option<Effort> {
        self.waiting
            .last_key_value()
            .map(|((effort, _), _)| *effort)
    }

    /// The most effort of those that have waited for so long.
    #[must_use]
    pub fn most_of_those_since(&self, waited: Duration, now: Instant) -> Option<Effort> {
        let mut all = self.waiting.iter().rev();
        let late = all.find(|(_, (at, _))| now.saturating_duration_since(*at) >= waited);
        late.map(|((effort, _), _)| *effort)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<(Effort, T)> {
        let ((effort, _), (_, what)) = self.waiting.pop_last()?;
        Some((effort, what))
    }

    /// Drops what has waited for [`PATIENCE`]; the efforts of these.
    pub fn expire(&mut self, now: Instant) -> Vec<Effort> {
        let late = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        let waiting = self.waiting.iter();
        let late: Vec<_> = waiting
            .filter(|(_, (since, _))| late(since))
            .map(|(key, _)| *key)
            .collect();
        late.into_iter()
            .map(|key| {
                self.waiting.remove(&key);
                key.0
            })
            .collect()
    }

    /// All that waits.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.values().map(|(_, what)| what)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_effort_comes_first_and_the_least_gives_way() {
        let (mut queue, now) = (EffortQueue::new(3), Instant::now());
        for (effort, what) in [(4, 'a'), (0, 'b'), (9, 'c')] {
            assert!(queue.takes(effort));
            assert_eq!(queue.push(effort, what, now), None);
        }
        assert_eq!(queue.push(4, 'd', now), Some(0));
        assert!(!queue.takes(3));
        assert_eq!(queue.push(3, 'e', now), Some(3));
        assert!(queue.takes(4), "the older one gives way");
        assert_eq!(queue.push(4, 'f', now), Some(4));
        let mut order = String::new();
        while let Some((_, what)) = queue.pop() {
            order.push(what);
        }
        assert_eq!(order, "cfd");
    }

    #[test]
    fn nobody_waits_for_long() {
        let (mut queue, now) = (EffortQueue::new(3), Instant::now());
        queue.push(7, (), now);
        queue.push(5, (), now + PATIENCE / 2);
        assert_eq!(queue.expire(now + PATIENCE), [7]);
        assert_eq!((queue.len(), queue.next_effort()), (1, Some(5)));
    }
}
