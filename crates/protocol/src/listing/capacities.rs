//! What each relay is taken to carry: what was measured, and no more than it claims.
//!
//! A claim costs nothing, so it is an upper bound and nothing else. A relay that nobody has measured yet counts as
//! little until somebody does, which needs no traffic of others. Where few are measured, as at the start of a
//! network or without anybody who measures, claims are all that there is, and [`weights`](super::weights) bounds
//! what they buy. "Few" is counted in networks (IPv4 /16, IPv6 /32): who registers any number of relays that
//! cannot be measured does not bring claims back, unless they are in more networks than all others together.

use std::collections::HashMap;

use super::{Neighbourhood, median_of_networks};

/// A relay that was not measured counts as at most this part of the median of those that were.
pub const UNMEASURED_PART: u64 = 10;

/// What is known of a relay's capacity, in datagrams a second.
#[derive(Debug, Clone, Copy)]
pub struct Capacity<'a> {
    /// What it says itself.
    pub claimed: u32,
    /// What was measured, as the directories agree.
    pub measured: Option<u32>,
    /// Where its addresses are; that of the first address first.
    pub neighbourhoods: &'a [Neighbourhood],
}

/// What each of the relays counts as, in their order, in datagrams a second, at least 1 each. This is what
/// [`weights`](super::weights) are made of.
#[must_use]
pub fn capacities(relays: &[Capacity<'_>]) -> Vec<u32> {
    let typical = typical(relays);
    relays
        .iter()
        .map(|relay| {
            let most = relay.measured.or(typical).unwrap_or(u32::MAX);
            relay.claimed.min(most).max(1)
        })
        .collect()
}

/// What a relay that was not measured counts as at most; no bound where fewer than half of the networks have one
/// that was.
fn typical(relays: &[Capacity<'_>]) -> Option<u32> {
    let mut networks: HashMap<Option<&Neighbourhood>, bool> = HashMap::new();
    for relay in relays {
        let measured = networks.entry(relay.neighbourhoods.first()).or_default();
        *measured |= relay.measured.is_some();
    }
    let measured = networks.values().filter(|measured| **measured).count();
    if 2 * measured < networks.len() {
        return None;
    }
    let counted = relays.iter().filter_map(|relay| {
        let capacity = relay.measured?.min(relay.claimed);
        Some((relay.neighbourhoods.first(), u64::from(capacity)))
    });
    let typical = median_of_networks(counted)? / UNMEASURED_PART;
    u32::try_from(typical).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(network: u16) -> [Neighbourhood; 1] {
        [Neighbourhood::V4(network.to_be_bytes())]
    }

    #[test]
    fn what_was_measured_counts_and_no_more_than_is_claimed() {
        let networks: Vec<_> = (0..5).map(at).collect();
        let known = [
            (1000, Some(400)),
            (1000, Some(1000)),
            (300, Some(5000)),
            (u32::MAX, None),
            (20, None),
        ];
        let relays = known
            .iter()
            .zip(&networks)
            .map(|((claimed, measured), neighbourhoods)| Capacity {
                claimed: *claimed,
                measured: *measured,
                neighbourhoods,
            });
        let found = capacities(&relays.collect::<Vec<_>>());
        assert_eq!(found, [400, 1000, 300, 40, 20]);
    }

    #[test]
    fn where_few_are_measured_claims_count_and_a_crowd_does_not_bring_that_about() {
        let networks: Vec<_> = (0..10).map(at).collect();
        let relay = |n: usize, measured| Capacity {
            claimed: 1000,
            measured,
            neighbourhoods: &networks[n],
        };
        let few: Vec<_> = (0..10).map(|n| relay(n, (n < 4).then_some(500))).collect();
        assert_eq!(capacities(&few)[3..5], [500, 1000]);
        let half = (0..10).map(|n| relay(n, (n < 5).then_some(500)));
        let crowd = (0..1000).map(|_| relay(9, None));
        let many: Vec<_> = half.chain(crowd).collect();
        assert!(
            capacities(&many)[5..]
                .iter()
                .all(|capacity| *capacity == 50)
        );
    }

    proptest! {
        /// Nobody counts as more than it claims or than was measured, nor as nothing; and the order does not matter.
        #[test]
        fn claims_are_bounds(
            relays in proptest::collection::vec(
                (any::<u32>(), proptest::option::of(any::<u32>()), 0_u16..8),
                0..40,
            ),
        ) {
            let networks: Vec<_> = relays.iter().map(|(_, _, network)| at(*network)).collect();
            let known: Vec<_> = relays
                .iter()
                .zip(&networks)
                .map(|((claimed, measured, _), neighbourhoods)| Capacity {
                    claimed: *claimed,
                    measured: *measured,
                    neighbourhoods,
                })
                .collect();
            let found = capacities(&known);
            for ((claimed, measured, _), found) in relays.iter().zip(&found) {
                prop_assert!(*found >= 1 && *found <= (*claimed).max(1));
                prop_assert!(measured.is_none_or(|measured| *found <= measured.max(1)));
            }
            let turned: Vec<_> = known.iter().rev().copied().collect();
            let again: Vec<_> = capacities(&turned).into_iter().rev().collect();
            prop_assert_eq!(again, found);
        }
    }
}
