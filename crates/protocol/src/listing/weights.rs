//! How much each relay counts when relays are drawn.
//!
//! A capacity is what a relay says of itself, and one machine can say that it is many relays. Networks (IPv4
//! /16, IPv6 /32) cost more than both. So neither a relay nor all those of one network together count for more
//! than [`MOST_MEDIANS`] times the median, and that is the median of networks, not of relays: however many
//! there are in one, they move it as little as one does.

use std::collections::HashMap;

use super::{Neighbourhood, median_of_networks};

/// No relay and no network counts for more than this many times the median: a capacity must not buy all
/// the paths.
pub const MOST_MEDIANS: u64 = 10;
/// What a capacity of 1 weighs where nothing is cut, so that what is divided up is not rounded away.
pub const UNIT: u64 = 1 << 16;

/// What a weight is made of.
pub struct Claim<'a> {
    /// Datagrams a second.
    pub capacity: u32,
    /// Where the relay's addresses are, each once; that of the first address first.
    pub neighbourhoods: &'a [Neighbourhood],
}

impl Claim<'_> {
    fn capacity(&self) -> u64 {
        u64::from(self.capacity.max(1))
    }
}

/// The weights of all relays of a snapshot, in its order, in units of 1 / [`UNIT`] of a capacity, at least 1 each.
#[must_use]
pub fn weights(claims: &[Claim<'_>]) -> Vec<u64> {
    let of_networks = claims
        .iter()
        .map(|claim| (claim.neighbourhoods.first(), claim.capacity()));
    let typical = median_of_networks(of_networks).unwrap_or(1);
    let most = typical.saturating_mul(MOST_MEDIANS);
    let capped = |claim: &Claim<'_>| claim.capacity().min(most);
    let mut totals: HashMap<&Neighbourhood, u64> = HashMap::new();
    for claim in claims {
        for neighbourhood in claim.neighbourhoods {
            let total = totals.entry(neighbourhood).or_default();
            *total = total.saturating_add(capped(claim));
        }
    }
    claims
        .iter()
        .map(|claim| {
            let weight = u128::from(capped(claim) * UNIT);
            let totals = claim.neighbourhoods.iter().filter_map(|at| totals.get(at));
            // One that says that it is in several has the least of what it would have in each.
            let crowd = totals.max().copied().unwrap_or(0).max(most);
            let share = weight * u128::from(most) / u128::from(crowd);
            u64::try_from(share).unwrap_or(u64::MAX).max(1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(network: u16) -> [Neighbourhood; 1] {
        [Neighbourhood::V4(network.to_be_bytes())]
    }

    /// The share of the first `count` of all claims, in thousandths.
    fn share(claims: &[Claim<'_>], count: usize) -> u64 {
        let weights = weights(claims);
        let sum = |of: &[u64]| of.iter().sum::<u64>();
        1000 * sum(&weights[..count]) / sum(&weights)
    }

    #[test]
    fn many_relays_of_one_network_count_as_one() {
        let honest: Vec<_> = (0..200).map(v4).collect();
        let one = v4(999);
        for count in [1, 60, 1000] {
            for capacity in [1000, u32::MAX] {
                let evil = (0..count).map(|_| Claim {
                    capacity,
                    neighbourhoods: &one,
                });
                let good = honest.iter().map(|at| Claim {
                    capacity: 100,
                    neighbourhoods: at,
                });
                let claims: Vec<_> = evil.chain(good).collect();
                // Ten medians of 210.
                assert!(share(&claims, count) <= 48, "{count} of {capacity}");
            }
        }
    }

    #[test]
    fn who_says_to_be_in_many_networks_gains_nothing() {
        let honest: Vec<_> = (0..200).map(v4).collect();
        let many: Vec<_> = (0..60_u8)
            .map(|n| [v4(999)[0], Neighbourhood::V6([0x2a, 0, n, 0])])
            .collect();
        let evil = many.iter().map(|at| Claim {
            capacity: u32::MAX,
            neighbourhoods: at,
        });
        let good = honest.iter().map(|at| Claim {
            capacity: 100,
            neighbourhoods: at,
        });
        let claims: Vec<_> = evil.chain(good).collect();
        assert!(share(&claims, 60) <= 48);
    }

    #[test]
    fn where_nobody_exaggerates_capacities_are_what_counts() {
        let at: Vec<_> = (0..4).map(v4).collect();
        let claims = [100, 200, 50, 400].into_iter().zip(&at);
        let claims: Vec<_> = claims
            .map(|(capacity, at)| Claim {
                capacity,
                neighbourhoods: at,
            })
            .collect();
        let weights = weights(&claims);
        assert_eq!(weights, [100, 200, 50, 400].map(|it| it * UNIT));
    }

    proptest! {
        /// Whatever is claimed, no relay and no network has more than ten medians, nobody nothing, and the order
        /// in which relays are given does not matter.
        #[test]
        fn weights_are_bounded(
            relays in proptest::collection::vec((any::<u32>(), 0_u16..6, 0_u8..4), 1..40),
        ) {
            let at: Vec<Vec<Neighbourhood>> = relays
                .iter()
                .map(|(_, first, second)| match second {
                    0 => v4(*first).to_vec(),
                    n => vec![v4(*first)[0], Neighbourhood::V6([0x2a, 0, 0, *n])],
                })
                .collect();
            let claim = |n: usize| Claim {
                capacity: relays[n].0,
                neighbourhoods: &at[n],
            };
            let claims: Vec<_> = (0..relays.len()).map(claim).collect();
            let found = weights(&claims);
            let firsts = claims.iter().map(|it| (it.neighbourhoods.first(), it.capacity()));
            let most = median_of_networks(firsts).unwrap() * MOST_MEDIANS * UNIT;
            prop_assert!(found.iter().all(|weight| (1..=most).contains(weight)));
            for neighbourhood in at.iter().flatten() {
                let inside = found.iter().zip(&at).filter(|(_, at)| at.contains(neighbourhood));
                let total: u64 = inside.clone().map(|(weight, _)| *weight).sum();
                prop_assert!(total <= most + inside.count() as u64);
            }
            let turned: Vec<_> = (0..relays.len()).rev().map(claim).collect();
            let again: Vec<_> = weights(&turned).into_iter().rev().collect();
            prop_assert_eq!(again, found);
        }
    }
}
