//! Neighbours that have returned a cookie and said nothing yet, and which of them gives way to another one.
//!
//! Whoever goes on does so a round trip after our answer. So where no place is left, one that has had its own for some
//! time gives way, whatever effort it has shown; else the one that has shown the least, if that is less. A relay serves
//! no more under load than have this time each in the places there are: who is served has a place, although others have
//! shown as much, and say nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;

/// How long a place is its holder's whoever else comes, unless that has shown more effort.
pub const HELD_FOR: Duration = Duration::from_secs(3);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Its number in the table of neighbours.
    pub number: u32,
    /// The most effort that its initiations have shown.
    pub effort: Effort,
    /// Since when it has its place.
    pub since: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Unconfirmed {
    by_effort: BTreeSet<(Effort, u32)>,
    by_age: BTreeSet<(Instant, u32)>,
}

impl Unconfirmed {
    /// Adds one.
    pub fn insert(&mut self, one: Waiter) {
        self.by_effort.insert((one.effort, one.number));
        self.by_age.insert((one.since, one.number));
    }

    /// Takes one out, if it is among them as it was added.
    pub fn remove(&mut self, one: Waiter) {
        self.by_effort.remove(&(one.effort, one.number));
        self.by_age.remove(&(one.since, one.number));
    }

    /// Which gives way to another one that shows this effort: of those that are `near` it, if there are any, else of all.
    pub fn who_gives_way(
        &self,
        near: impl Fn(u32) -> bool,
        effort: Effort,
        now: Instant,
    ) -> Option<u32> {
        let nobody_near = !self.by_age.iter().any(|(_, number)| near(*number));
        let eligible = |number: u32| nobody_near || near(number);
        let oldest = self.by_age.iter().find(|(_, number)| eligible(*number));
        let had_its_time = oldest.filter(|(since, _)| now >= *since + HELD_FOR);
        if let Some((_, number)) = had_its_time {
            return Some(*number);
        }
        let least = self.by_effort.iter().find(|(_, number)| eligible(*number));
        let less = least.filter(|(least, _)| *least < effort);
        less.map(|(_, number)| *number)
    }
}

#[cfg(test)]
impl Unconfirmed {
    /// Whether nothing is left of any.
    pub fn is_empty(&self) -> bool {
        self.by_effort.is_empty() && self.by_age.is_empty()
    }
}
