//! How much each relay counts when relays are drawn.
//!
//! A capacity is what a relay says of itself, and one machine can say that it is many relays. Networks (IPv4
//! /16, IPv6 /32) cost more than both. So neither a relay nor all those of one network together count for more
//! than [`MOST_MEDIANS`] times the median, and that is the median of networks, not of relays: however many
//! there are in one, they move it as little as one does.

use std::collections::HashMap;

use crate::relays::network::Neighbourhood;

/// No relay and no network counts for more than this many times the median: a capacity must not buy all
/// the paths.
const MOST_MEDIANS: u64 = 10;
/// A capacity is multiplied by so much before it is divided up, so that small ones are not rounded away.
const UNIT: u64 = 1 << 16;

/// What a weight is made of.
pub struct Claim<'a> {
    /// What the relay says of itself.
    pub capacity: u32,
    /// Where it says that it is.
    pub neighbourhoods: &'a [Neighbourhood],
}

/// The weights of the relays of one network, at least 1 each.
#[must_use]
pub fn weights(claims: &[Claim<'_>]) -> Vec<u64> {
    let capacity = |claim: &Claim<'_>| u64::from(claim.capacity.max(1));
    let mut of_networks: HashMap<Option<&Neighbourhood>, Vec<u64>> = HashMap::new();
    for claim in claims {
        let of = of_networks.entry(claim.neighbourhoods.first()).or_default();
        of.push(capacity(claim));
    }
    let typical = of_networks.into_values().filter_map(median).collect();
    let most = median(typical).unwrap_or(1).saturating_mul(MOST_MEDIANS);
    let capped = |claim: &Claim<'_>| capacity(claim).min(most);
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

fn median(mut of: Vec<u64>) -> Option<u64> {
    of.sort_unstable();
    of.get(of.len() / 2).copied()
}

#[cfg(test)]
mod tests {
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
}
