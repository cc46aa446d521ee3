//! Places on the ring, and which relays have them.
//!
//! ```text
//! place of a relay   = SHA-256("mixline/v2/ring relay" | shared random 32 | period 8 | relay's ID 32)
//! place of a service = SHA-256("mixline/v2/ring service" | blinded ID 32 | period 8 | r 1)        r = 1, 2
//! ```
//!
//! From each of a service's two places one goes up, by turns, and takes the next relay that shares no network (IPv4
//! /16, IPv6 /32) and no family with one that is taken: the first [`COPIES`] of them have its records. Where the next
//! [`WINDOW`] relays have none like that, the nearest one that is not taken will do, so that small networks have
//! copies too. A relay keeps what it is among the first [`TAKERS`] for, since its list may be newer than the
//! service's. Who chooses a relay's ID does not know the shared random value, so nobody takes a place on purpose.

use std::collections::HashMap;
use std::net::IpAddr;

use arrayvec::ArrayVec;
use ring::digest::{Context, SHA256};

use super::blinding::BlindedId;
use crate::identity::{RelayId, first_bytes};
use crate::shares::{Network, networks};

/// A value that the directories draw together for a period, and that nobody knows long before.
pub type SharedRandom = [u8; 32];

/// Places of a service.
pub const POSITIONS: usize = 2;
/// Relays that a service gives its record to.
pub const COPIES: usize = 8;
/// Relays that take a record: those of which two more have come to stand before them at each place.
pub const TAKERS: usize = 12;
/// How many relays are looked at from a place.
const WINDOW: usize = 64;

type Place = [u8; 32];

/// A relay of the ring.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its ID. No two members have one.
    pub id: RelayId,
    /// All its addresses.
    pub addresses: &'a [IpAddr],
    /// The name that it shares with others of its operator.
    pub family: Option<&'a str>,
}

/// The relays by their places for one period. Members are named by where they stand in the list that it was made of.
#[derive(Debug, Clone)]
pub struct Ring {
    period: u64,
    random: SharedRandom,
    /// Ascending by place, and the member's number.
    places: Vec<(Place, u32)>,
    /// Of each member, by its number: its networks and its family, ascending, each by a number of its own.
    groups: Vec<Box<[u32]>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Group<'a> {
    Network(Network),
    Family(&'a str),
}

impl Ring {
    /// A ring of these members. Everybody who has the same members, in whatever order, has the same ring.
    #[must_use]
    pub fn new(members: &[Member<'_>], random: SharedRandom, period: u64) -> Self {
        let mut numbers = HashMap::new();
        let mut places: Vec<_> = (0_u32..)
            .zip(members)
            .map(|(number, member)| (relay_place(&random, period, &member.id), number))
            .collect();
        places.sort_unstable();
        Self {
            period,
            random,
            places,
            groups: members
                .iter()
                .map(|member| groups(member, &mut numbers))
                .collect(),
        }
    }

    /// The period.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period
    }

    /// The value that its places were made of.
    #[must_use]
    pub fn random(&self) -> &SharedRandom {
        &self.random
    }

    /// How many relays it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of the member with this ID.
    #[must_use]
    pub fn number_of(&self, id: &RelayId) -> Option<usize> {
        let place = relay_place(&self.random, self.period, id);
        let found = self
            .places
            .binary_search_by_key(&place, |(of_relay, _)| *of_relay);
        let (_, number) = self.places.get(found.ok()?)?;
        usize::try_from(*number).ok()
    }

    /// The relays that a service gives its record to, by turns of both places, the nearest first; fewer than
    /// [`COPIES`] only if there are no more.
    #[must_use]
    pub fn holders(&self, service: &BlindedId) -> ArrayVec<usize, COPIES> {
        self.next_relays(service)
    }

    /// The relays that take a record of the service; the first of them are its holders.
    #[must_use]
    pub fn takers(&self, service: &BlindedId) -> ArrayVec<usize, TAKERS> {
        self.next_relays(service)
    }

    fn next_relays<const N: usize>(&self, service: &BlindedId) -> ArrayVec<usize, N> {
        let mut walks: [Walk<'_>; POSITIONS] = std::array::from_fn(|r| {
            let place = service_place(service, self.period, r);
            let after = |(of_relay, _): &(Place, u32)| *of_relay < place;
            Walk {
                ring: self,
                at: self.places.partition_point(after),
                seen: 0,
            }
        });
        let mut taken = ArrayVec::<u32, N>::new();
        while !taken.is_full() {
            let before = taken.len();
            for walk in &mut walks {
                if !taken.is_full()
                    && let Some(next) = walk.next(&taken)
                {
                    taken.push(next);
                }
            }
            if taken.len() == before {
                break;
            }
        }
        taken.into_iter().map(|number| number as usize).collect()
    }

    fn groups(&self, number: u32) -> &[u32] {
        self.groups
            .get(number as usize)
            .map_or(&[], |groups| groups)
    }
}

/// The relays from a place upwards.
struct Walk<'a> {
    ring: &'a Ring,
    /// Where the first of them stands.
    at: usize,
    /// How many of them can be nothing but taken or in a group of one that is.
    seen: usize,
}

impl Walk<'_> {
    /// The next relay that goes with those that are taken, or else the nearest that is not taken itself.
    fn next(&mut self, taken: &[u32]) -> Option<u32> {
        let window = WINDOW.min(self.ring.len());
        // Who did not go with the others does not go with more of them.
        while self.seen < window {
            let number = self.relay(self.seen)?;
            self.seen += 1;
            if self.goes_with(number, taken) {
                return Some(number);
            }
        }
        (0..window)
            .filter_map(|offset| self.relay(offset))
            .find(|number| !taken.contains(number))
    }

    fn relay(&self, offset: usize) -> Option<u32> {
        let at = (self.at + offset) % self.ring.len().max(1);
        self.ring.places.get(at).map(|(_, number)| *number)
    }

    fn goes_with(&self, number: u32, taken: &[u32]) -> bool {
        let own = self.ring.groups(number);
        let shares_with = |other: &u32| {
            *other == number
                || self
                    .ring
                    .groups(*other)
                    .iter()
                    .any(|group| own.contains(group))
        };
        !taken.iter().any(shares_with)
    }
}

fn groups<'a>(member: &Member<'a>, numbers: &mut HashMap<Group<'a>, u32>) -> Box<[u32]> {
    let of_networks = member
        .addresses
        .iter()
        .map(|ip| Group::Network(networks(*ip)[0]));
    let of_family = member.family.map(Group::Family);
    let mut groups: Vec<u32> = of_networks
        .chain(of_family)
        .map(|group| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(group).or_insert(next)
        })
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

fn relay_place(random: &SharedRandom, period: u64, id: &RelayId) -> Place {
    let period = period.to_be_bytes();
    hash(&[b"mixline/v2/ring relay", random, &period, &id.0])
}

/// `position`: 0 or 1, on the wire 1 or 2.
fn service_place(service: &BlindedId, period: u64, position: usize) -> Place {
    let r = [u8::try_from(position + 1).unwrap_or(u8::MAX)];
    let period = period.to_be_bytes();
    hash(&[b"mixline/v2/ring service", &service.0, &period, &r])
}

fn hash(parts: &[&[u8]]) -> Place {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    first_bytes(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u16) -> RelayId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        RelayId(id)
    }

    fn ring_of(relays: &[(u16, Vec<IpAddr>, Option<String>)], period: u64) -> Ring {
        let members: Vec<_> = relays
            .iter()
            .map(|(n, addresses, family)| Member {
                id: id(*n),
                addresses,
                family: family.as_deref(),
            })
            .collect();
        Ring::new(&members, [7; 32], period)
    }

    /// So many relays, each in a /16 of its own.
    fn apart(relays: u16) -> Ring {
        let relays: Vec<_> = (0..relays).map(|n| (n, vec![address(n)], None)).collect();
        ring_of(&relays, 1)
    }

    fn address(network: u16) -> IpAddr {
        let [a, b] = network.to_be_bytes();
        IpAddr::from([a, b, 0, 1])
    }

    fn service(n: u64) -> BlindedId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        BlindedId(id)
    }

    /// What the module says, written another way: all relays sorted by how far up they are.
    fn slowly(
        relays: &[(u16, Vec<IpAddr>, Option<String>)],
        period: u64,
        of: &BlindedId,
        count: usize,
    ) -> Vec<usize> {
        let share = |a: usize, b: usize| {
            let of_network = |ip: &IpAddr| networks(*ip)[0];
            let nets: Vec<_> = relays[a].1.iter().map(of_network).collect();
            relays[b].1.iter().any(|ip| nets.contains(&of_network(ip)))
                || (relays[a].2.is_some() && relays[a].2 == relays[b].2)
        };
        let orders: Vec<Vec<usize>> = (0..2)
            .map(|r| {
                let from = service_place(of, period, r);
                let mut order: Vec<usize> = (0..relays.len()).collect();
                order.sort_by_key(|n| {
                    let place = relay_place(&[7; 32], period, &id(relays[*n].0));
                    (place < from, place)
                });
                order.truncate(WINDOW);
                order
            })
            .collect();
        let mut taken: Vec<usize> = Vec::new();
        for turn in 0..2 * count {
            let order = &orders[turn % 2];
            let free = |n: &&usize| !taken.contains(n);
            let best = order
                .iter()
                .filter(free)
                .find(|n| !taken.iter().any(|t| share(*t, **n)))
                .or_else(|| order.iter().find(free));
            if let Some(best) = best.copied()
                && taken.len() < count
            {
                taken.push(best);
            }
        }
        taken
    }

    fn relays() -> impl Strategy<Value = Vec<(u16, Vec<IpAddr>, Option<String>)>> {
        let ip = prop_oneof![
            (0_u16..20).prop_map(address),
            (0_u16..10).prop_map(|n| IpAddr::from([0x2001, n, 0, 0, 0, 0, 0, 1])),
        ];
        let family = proptest::option::weighted(0.3, "[a-e]");
        let one = (proptest::collection::vec(ip, 1..4), family);
        proptest::collection::vec(one, 0..150).prop_map(|all| {
            (0..)
                .zip(all)
                .map(|(n, (addresses, family))| (n, addresses, family))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn relays_are_those_that_the_text_says(relays in relays(), n: u64, period: u64) {
            let ring = ring_of(&relays, period);
            let of = service(n);
            let holders = ring.holders(&of);
            prop_assert_eq!(&holders[..], &slowly(&relays, period, &of, COPIES)[..]);
            let takers = ring.takers(&of);
            prop_assert_eq!(&takers[..], &slowly(&relays, period, &of, TAKERS)[..]);
            prop_assert_eq!(&takers[..holders.len()], &holders[..]);
            prop_assert_eq!(holders.len(), COPIES.min(relays.len()));
        }

        /// In whatever order the members are listed.
        #[test]
        fn everybody_has_the_same_ring(relays in relays(), n: u64) {
            let ring = ring_of(&relays, 1);
            let mut turned = relays.clone();
            turned.reverse();
            let other = ring_of(&turned, 1);
            let of = service(n);
            let mirrored: Vec<usize> =
                other.holders(&of).iter().map(|at| relays.len() - 1 - at).collect();
            prop_assert_eq!(&ring.holders(&of)[..], &mirrored[..]);
        }
    }

    #[test]
    fn no_two_of_a_network_or_a_family() {
        let two_nets = vec![address(500), "2001:db8::1".parse().unwrap()];
        let relays: Vec<_> = (0..400)
            .map(|n| match n % 8 {
                0 => (n, two_nets.clone(), None),
                1 => (n, vec!["2001:db8:ffff::2".parse().unwrap()], None),
                2 => (n, vec![address(n)], Some("one".to_owned())),
                _ => (n, vec![address(n)], None),
            })
            .collect();
        let ring = ring_of(&relays, 3);
        let mut seen = [0; 3];
        for n in 0..500 {
            let holders = ring.holders(&service(n));
            let of_kinds = |kinds: &[usize]| {
                let kind = |at: &&usize| kinds.contains(&(**at % 8));
                holders.iter().filter(kind).count()
            };
            let counts = [of_kinds(&[0, 1]), of_kinds(&[2]), holders.len()];
            assert!(counts[0] <= 1 && counts[1] <= 1 && counts[2] == COPIES);
            seen = [seen[0] + counts[0], seen[1] + counts[1], seen[2] + 1];
        }
        assert!(seen[0] > 250 && seen[1] > 250, "{seen:?}");
    }

    #[test]
    fn a_small_or_narrow_network_has_copies_too() {
        assert!(ring_of(&[], 1).holders(&service(1)).is_empty());
        for relays in 1..=12 {
            let holders = apart(relays).holders(&service(1));
            assert_eq!(holders.len(), COPIES.min(relays.into()));
        }
        // All in one /16.
        let relays: Vec<_> = (0..300).map(|n| (n, vec![address(1)], None)).collect();
        let holders = ring_of(&relays, 1).holders(&service(1));
        assert_eq!(holders.len(), COPIES);
        assert!(
            holders
                .iter()
                .all(|n| holders.iter().filter(|m| *m == n).count() == 1)
        );
    }

    /// One that joins or leaves moves one copy of a service at most, as long as networks do not matter.
    #[test]
    fn one_relay_more_moves_one_copy_at_most() {
        let (before, after) = (apart(200), apart(201));
        let mut moved = 0;
        for n in 0..500 {
            let (old, new) = (before.takers(&service(n)), after.takers(&service(n)));
            let lost = old[..COPIES]
                .iter()
                .filter(|at| !new[..COPIES].contains(at));
            assert!(lost.clone().count() <= 1);
            moved += lost.count();
            // Who has the older list finds it with those who have the newer one.
            assert!(old[..COPIES].iter().all(|at| new.contains(at)));
        }
        assert!((5..60).contains(&moved), "{moved} of 4000");
    }

    #[test]
    fn places_change_with_period_and_shared_random() {
        let members: Vec<RelayId> = (0..1000).map(id).collect();
        let addresses: Vec<_> = (0..1000).map(|n| [address(n)]).collect();
        let members: Vec<_> = members
            .iter()
            .zip(&addresses)
            .map(|(id, addresses)| Member {
                id: *id,
                addresses,
                family: None,
            })
            .collect();
        let holders = |random, period| Ring::new(&members, random, period).holders(&service(1));
        let first = holders([1; 32], 1);
        for other in [holders([2; 32], 1), holders([1; 32], 2)] {
            let same = first.iter().filter(|at| other.contains(at)).count();
            assert!(same <= 2, "{same}");
        }
    }
}
