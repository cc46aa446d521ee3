//! Initiations that wait for a responder under load: a bounded queue, in the order of effort.
//!
//! Of those with the same effort the first to come is the first to be served, and the last to come gives way. Those
//! that come from where a relay is have a queue of their own, and every other turn. Networks share the places of
//! each queue ([`Shares`]): who has many addresses in one of them leaves some to all others, and whoever comes from a
//! network that has its share is in the place of the least of that network, or not there.

use crate::effort::Effort;
use crate::shares::{Claimant, Shares, share_a_network};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

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
type Order = (Effort, Reverse<u64>);

/// One of the two queues.
#[derive(Debug)]
struct Queue<T> {
    waiting: BTreeMap<Order, (IpAddr, T)>,
    places: Shares,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            strangers: Queue::default(),
            relays: Queue::default(),
            relays_turn: true,
            count: 0,
        }
    }
}

impl<T> Waiting<T> {
    /// Adds one from this address; that which gives way, and its effort, if there is no room for all.
    pub fn push(
        &mut self,
        from: IpAddr,
        is_relay: bool,
        effort: Effort,
        item: T,
    ) -> Option<(Effort, T)> {
        self.count += 1;
        let queue = if is_relay {
            &mut self.relays
        } else {
            &mut self.strangers
        };
        queue.push((effort, Reverse(self.count)), from, item)
    }

    /// The next to be served, and its effort.
    pub fn pop(&mut self) -> Option<(Effort, T)> {
        let (mut first, mut second) = (&mut self.relays, &mut self.strangers);
        if !self.relays_turn {
            std::mem::swap(&mut first, &mut second);
        }
        self.relays_turn = !self.relays_turn;
        first.pop().or_else(|| second.pop())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relays.waiting.is_empty() && self.strangers.waiting.is_empty()
    }

    /// Whether few strangers wait who have made so much effort.
    #[must_use]
    pub fn is_short(&self, effort: Effort) -> bool {
        let from = (effort, Reverse(u64::MAX));
        self.strangers.waiting.range(from..).count() <= MAX_WAITING / 8
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            places: Shares::new(MAX_WAITING, 0),
        }
    }
}

impl<T> Queue<T> {
    fn push(&mut self, order: Order, from: IpAddr, item: T) -> Option<(Effort, T)> {
        let mut gives_way = None;
        if !self.places.take(Claimant::Stranger(from)) {
            // Of its own network; of all, if so many networks wait that each has next to nothing.
            let near = |(_, (ip, _)): &(&Order, &(IpAddr, T))| share_a_network(*ip, from);
            let least = self.waiting.iter().find(near);
            let least = least.or_else(|| self.waiting.first_key_value());
            let least = least.map(|(order, _)| *order).filter(|it| *it < order);
            gives_way = least.and_then(|least| self.remove(least));
            if gives_way.is_none() || !self.places.restore(Claimant::Stranger(from)) {
                return Some((order.0, item));
            }
        }
        self.waiting.insert(order, (from, item));
        gives_way
    }

    fn pop(&mut self) -> Option<(Effort, T)> {
        let last = *self.waiting.last_key_value()?.0;
        self.remove(last)
    }

    fn remove(&mut self, order: Order) -> Option<(Effort, T)> {
        let (from, item) = self.waiting.remove(&order)?;
        self.places.give_back(Claimant::Stranger(from));
        Some((order.0, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address in a network of its own.
    fn network(n: u32) -> IpAddr {
        IpAddr::V4((n << 16).into())
    }

    #[test]
    fn the_best_are_served_and_the_least_give_way() {
        let mut waiting = Waiting::default();
        for n in 0..MAX_WAITING {
            assert_eq!(waiting.push(network(n as u32), false, 5, n), None);
        }
        let elsewhere = network(5000);
        // As good as the others, and later.
        assert_eq!(waiting.push(elsewhere, false, 5, 1000), Some((5, 1000)));
        assert_eq!(waiting.push(elsewhere, false, 4, 1001), Some((4, 1001)));
        assert_eq!(
            waiting.push(elsewhere, false, 6, 1002),
            Some((5, MAX_WAITING - 1))
        );
        assert_eq!(waiting.pop(), Some((6, 1002)));
        assert_eq!(waiting.pop(), Some((5, 0)));
        assert_eq!(waiting.pop(), Some((5, 1)));
        assert!(!waiting.is_short(5) && waiting.is_short(6) && !waiting.is_empty());
    }

    #[test]
    fn a_network_leaves_room_for_others_in_both_queues() {
        for is_relay in [false, true] {
            let mut waiting = Waiting::default();
            // From all of a /16: more than there is room for, again and again.
            let crowd = |n: u32| IpAddr::V4((0xc000_0000 + n.wrapping_mul(257) % 65_536).into());
            let held = (0..2000)
                .filter(|n| waiting.push(crowd(*n), is_relay, 7, *n).is_none())
                .count();
            assert!((64..=MAX_WAITING / 2).contains(&held), "{held}");
            // Who comes from elsewhere is let in, and is there until it is served.
            assert_eq!(waiting.push(network(1), is_relay, 7, 5000), None);
            assert_eq!(waiting.push(network(2), is_relay, 0, 5001), None);
            for n in 2000..4000 {
                let gives_way = waiting.push(crowd(n), is_relay, 7, n);
                assert_eq!(gives_way, Some((7, n)));
            }
            // More effort gets it a place in its own network, and takes none from others.
            let gives_way = waiting.push(crowd(0), is_relay, 9, 4000);
            assert!(gives_way.is_some_and(|(effort, n)| effort == 7 && n < 2000));
            let served: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
            assert_eq!(served[0], (9, 4000));
            assert!(served.contains(&(7, 5000)) && served.contains(&(0, 5001)));
            assert_eq!(served.len(), held + 2);
            let queue = if is_relay {
                waiting.relays
            } else {
                waiting.strangers
            };
            assert_eq!(queue.places.taken(), 0);
        }
    }

    #[test]
    fn relays_have_every_other_turn() {
        let mut waiting = Waiting::default();
        for n in 0..4 {
            waiting.push(network(1), false, 1 << 20, n);
        }
        for n in 10..13 {
            waiting.push(network(2), true, 0, n);
        }
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop())
            .map(|(_, n)| n)
            .collect();
        assert_eq!(order, [10, 0, 11, 1, 12, 2, 3]);
        assert!(waiting.is_short(0) && waiting.is_empty());
    }
}
