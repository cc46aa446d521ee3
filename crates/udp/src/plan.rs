//! Which datagrams go into one message, and in which order messages go.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use crate::send::SEND_BATCH;

/// Chains of destinations, by a hash that nobody outside knows: who chooses addresses cannot make one of them long.
const CHAINS: usize = 256;
/// The end of a chain.
const NONE: u16 = u16::MAX;

const _: () = assert!(SEND_BATCH < NONE as usize);

thread_local! {
    /// Odd, for a multiplicative hash (Dietzfelbinger and others 1997).
    static FACTOR: u64 = RandomState::new().hash_one(0) | 1;
}

/// Datagrams in the order of their messages.
pub(crate) struct Plan {
    /// Numbers of datagrams, message by message.
    order: ArrayVec<usize, SEND_BATCH>,
    /// Where in `order` each message ends.
    ends: ArrayVec<u16, SEND_BATCH>,
}

/// The datagrams to one destination.
struct Group {
    to: SocketAddr,
    first: u16,
    last: u16,
    /// The next group of its chain.
    next: u16,
}

impl Plan {
    /// Groups at most [`SEND_BATCH`] datagrams, by number, by their destinations, at most `longest` to a message. Those to
    /// one destination keep their order.
    pub(crate) fn of(datagrams: impl Iterator<Item = (usize, SocketAddr)>, longest: usize) -> Self {
        let mut chains = [NONE; CHAINS];
        let mut groups: ArrayVec<Group, SEND_BATCH> = ArrayVec::new();
        // Each with the next one to the same destination, by its place in this list.
        let mut all: ArrayVec<(usize, u16), SEND_BATCH> = ArrayVec::new();
        let factor = FACTOR.with(|factor| *factor);
        for (at, to) in datagrams.take(SEND_BATCH) {
            let here = short(all.len());
            all.push((at, NONE));
            let chain = &mut chains[hash(&to, factor)];
            let mut group = *chain;
            while group != NONE && groups[usize::from(group)].to != to {
                group = groups[usize::from(group)].next;
            }
            if let Some(group) = groups.get_mut(usize::from(group)) {
                all[usize::from(group.last)].1 = here;
                group.last = here;
            } else {
                let next = *chain;
                *chain = short(groups.len());
                groups.push(Group {
                    to,
                    first: here,
                    last: here,
                    next,
                });
            }
        }
        let mut plan = Self {
            order: ArrayVec::new(),
            ends: ArrayVec::new(),
        };
        for group in &groups {
            let mut length = 0;
            let mut next = group.first;
            while let Some((at, then)) = all.get(usize::from(next)) {
                plan.order.push(*at);
                length += 1;
                next = *then;
                if length == longest || next == NONE {
                    plan.ends.push(short(plan.order.len()));
                    length = 0;
                }
            }
        }
        plan
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        self.ends.len()
    }

    /// The datagrams of the messages from `first` to before `last`.
    pub(crate) fn range(&self, first: usize, last: usize) -> &[usize] {
        let end = |message: usize| {
            let before = message.checked_sub(1)?;
            self.ends.get(before).map(|end| usize::from(*end))
        };
        let from = end(first).unwrap_or(0);
        self.order
            .get(from..end(last).unwrap_or(from))
            .unwrap_or_default()
    }
}

/// A number of at most [`SEND_BATCH`].
#[expect(clippy::cast_possible_truncation, reason = "asserted above")]
fn short(number: usize) -> u16 {
    number as u16
}

#[expect(clippy::cast_possible_truncation, reason = "the highest eight bits")]
fn hash(to: &SocketAddr, factor: u64) -> usize {
    let ip = match to.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            ((bits >> 64) as u64)
                .wrapping_mul(factor)
                .rotate_left(32)
                .wrapping_add(bits as u64)
        }
    };
    let key = ip.rotate_left(16) ^ u64::from(to.port());
    (key.wrapping_mul(factor) >> 56) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u16) -> SocketAddr {
        if number.is_multiple_of(3) {
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, number], 7000))
        } else {
            SocketAddr::from(([192, 0, 2, 1], number))
        }
    }

    proptest! {
        #[test]
        fn each_goes_once_with_others_to_the_same_destination_and_in_their_order(
            to in prop::collection::vec(0u16..40, 0..=SEND_BATCH),
            longest in 1usize..50,
        ) {
            // Some numbers are left out.
            let datagrams: Vec<_> = to.iter().enumerate().map(|(at, to)| (3 * at + 7, address(*to))).collect();
            let plan = Plan::of(datagrams.iter().copied(), longest);
            prop_assert_eq!(plan.is_empty(), to.is_empty());
            let find = |at: &usize| datagrams.iter().find(|(number, _)| number == at).unwrap().1;
            let mut seen: Vec<usize> = Vec::new();
            let mut messages_to = std::collections::HashMap::new();
            for message in 0..plan.messages() {
                let of = plan.range(message, message + 1);
                prop_assert!((1..=longest).contains(&of.len()));
                prop_assert!(of.iter().all(|at| find(at) == find(&of[0])));
                prop_assert!(of.is_sorted());
                // As few messages as there can be, and in order, too.
                let before: &mut Vec<usize> = messages_to.entry(find(&of[0])).or_default();
                prop_assert!(before.len().is_multiple_of(longest));
                prop_assert!(before.last().is_none_or(|last| *last < of[0]));
                before.extend(of);
                seen.extend(of);
            }
            prop_assert_eq!(plan.range(0, plan.messages()), &seen[..]);
            seen.sort_unstable();
            let all: Vec<_> = datagrams.iter().map(|(at, _)| *at).collect();
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn destinations_are_spread_over_the_chains() {
        let factor = FACTOR.with(|factor| *factor);
        let mut chains = [0; CHAINS];
        for number in 0..1024 {
            chains[hash(&address(number), factor)] += 1;
        }
        assert!(chains.iter().all(|count| *count < 64), "{chains:?}");
    }
}
