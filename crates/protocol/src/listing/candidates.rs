//! Which of the relays that directories know are listed: none that names what is another's.
//!
//! A relay is found by its keys and addresses, so each of them is one relay's. Of two that name the same the one that
//! came later is left out: it may have read it in a snapshot, while the other one cannot have known of it. *Later* is
//! asked of the thing first. What a relay is listed with in the snapshot before stays its own for as long as it names
//! it, whoever else does: otherwise the older of two relays could take a key that the younger one has published,
//! and with it the younger one's place. Of two that name something new to both, the relay that is listed for longer
//! has it, and of two that are listed for equally long the one with the smaller ID, which is arbitrary and the same
//! everywhere.
//!
//! For sites, the relay that is listed for longer comes first: whoever names an address has answered there, so those
//! who share a site share a host or a line.
//!
//! Only relays that have been proven at their addresses ought to be candidates. Naming an address must not be
//! enough to keep another relay from it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::identity::{RelayId, ShortId, X25519Public};
use crate::rate_limit::site;
use crate::records::RelayDescriptor;
use crate::time::UnixTime;

/// So many relays are listed at one public IPv4 address or IPv6 /64.
pub const MOST_AT_A_SITE: usize = 2;

/// What no two relays may have in common.
#[derive(Debug, Clone, Copy)]
pub struct Identified<'a> {
    /// The link key.
    pub link: X25519Public,
    /// Onion keys by epoch.
    pub onion: &'a [(u32, X25519Public)],
    /// Where it is.
    pub addresses: &'a [SocketAddr],
}

impl<'a> From<(&'a RelayDescriptor, &'a [(u32, X25519Public)])> for Identified<'a> {
    /// What a descriptor says, and the onion keys beside it.
    fn from((descriptor, onion): (&'a RelayDescriptor, &'a [(u32, X25519Public)])) -> Self {
        Self {
            link: descriptor.link,
            onion,
            addresses: &descriptor.addresses,
        }
    }
}

impl Identified<'_> {
    fn things(&self) -> impl Iterator<Item = Thing> {
        let onion = self.onion.iter().map(|(_, key)| Thing::OnionKey(*key));
        let addresses = self.addresses.iter().map(|address| {
            let ip = address.ip().to_canonical();
            Thing::Address(SocketAddr::new(ip, address.port()))
        });
        [Thing::LinkKey(self.link)]
            .into_iter()
            .chain(onion)
            .chain(addresses)
    }
}

/// A relay that could be listed.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whose descriptor it is; no two candidates have one ID.
    pub id: RelayId,
    /// Since when snapshots have listed it without a break; the time of this one for a new relay. It has to be the
    /// same at all directories, so it comes from the chain of snapshots and from no registration.
    pub since: UnixTime,
    /// What it says now.
    pub now: Identified<'a>,
    /// What the snapshot before lists it with.
    pub before: Option<Identified<'a>>,
}

/// Something that is one relay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    /// The short ID, by which other relays find it.
    ShortId(ShortId),
    /// A link key.
    LinkKey(X25519Public),
    /// An onion key, of whichever epoch.
    OnionKey(X25519Public),
    /// An address and a port.
    Address(SocketAddr),
    /// A place at a public address (IPv6: a /64), of which there are [`MOST_AT_A_SITE`].
    Site(IpAddr),
}

/// Why a relay is not listed: another one has what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What that is.
    pub thing: Thing,
    /// Whose it is: of a site, the relay that has been there for longest.
    pub by: RelayId,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.by.short();
        match self.thing {
            Thing::ShortId(id) => write!(f, "relay {by} has the short ID {id} already"),
            Thing::LinkKey(_) => write!(f, "relay {by} has this link key already"),
            Thing::OnionKey(_) => write!(f, "relay {by} has one of these onion keys already"),
            Thing::Address(address) => write!(f, "relay {by} is at {address} already"),
            Thing::Site(ip) => write!(
                f,
                "there are {MOST_AT_A_SITE} relays at {ip} already, among them {by}"
            ),
        }
    }
}

/// Which of the candidates are listed: for each of them, in their order, nothing or why not. `is_public` says where
/// relays at one site are counted; within one house or one machine they are not.
#[must_use]
pub fn choose(
    candidates: &[Candidate<'_>],
    is_public: impl Fn(IpAddr) -> bool,
) -> Vec<Option<Refused>> {
    let kept = kept(candidates);
    let mut by_age: Vec<usize> = (0..candidates.len()).collect();
    by_age.sort_unstable_by_key(|at| age(&candidates[*at]));
    let mut taken: HashMap<Thing, RelayId> = HashMap::new();
    let mut sites: HashMap<IpAddr, Vec<RelayId>> = HashMap::new();
    let mut refused = vec![None; candidates.len()];
    for at in by_age {
        let candidate = &candidates[at];
        let of = places(candidate, &is_public);
        let conflict = things(candidate)
            .find_map(|thing| {
                let holder = kept.get(&thing).or_else(|| taken.get(&thing))?;
                (*holder != candidate.id).then_some((thing, *holder))
            })
            .or_else(|| {
                let full = |ip: &&IpAddr| {
                    let there = sites.get(*ip);
                    there.is_some_and(|there| there.len() >= MOST_AT_A_SITE)
                };
                let site = of.iter().filter(full).min()?;
                Some((Thing::Site(*site), *sites.get(site)?.first()?))
            });
        if let Some((thing, by)) = conflict {
            refused[at] = Some(Refused { thing, by });
            continue;
        }
        taken.extend(things(candidate).map(|thing| (thing, candidate.id)));
        for site in of {
            sites.entry(site).or_default().push(candidate.id);
        }
    }
    refused
}

/// What is a candidate's since the last snapshot, and named by it now.
fn kept(candidates: &[Candidate<'_>]) -> HashMap<Thing, RelayId> {
    let mut kept: HashMap<Thing, &Candidate<'_>> = HashMap::new();
    for candidate in candidates {
        let before: HashSet<Thing> = candidate
            .before
            .iter()
            .flat_map(|before| before.things())
            .collect();
        for thing in candidate.now.things().filter(|it| before.contains(it)) {
            // No snapshot lists two with one thing; whatever else is given has one outcome all the same.
            kept.entry(thing)
                .and_modify(|other| {
                    if age(candidate) < age(other) {
                        *other = candidate;
                    }
                })
                .or_insert(candidate);
        }
    }
    let of = |(thing, candidate): (Thing, &Candidate<'_>)| (thing, candidate.id);
    kept.into_iter().map(of).collect()
}

fn things(candidate: &Candidate<'_>) -> impl Iterator<Item = Thing> {
    [Thing::ShortId(candidate.id.short())]
        .into_iter()
        .chain(candidate.now.things())
}

/// The sites at which a candidate counts.
fn places(candidate: &Candidate<'_>, is_public: impl Fn(IpAddr) -> bool) -> HashSet<IpAddr> {
    let ips = candidate.now.addresses.iter().map(SocketAddr::ip);
    ips.filter(|ip| is_public(*ip)).map(site).collect()
}

/// Who comes first.
fn age<'a>(candidate: &'a Candidate<'_>) -> (UnixTime, &'a [u8; 32]) {
    (candidate.since, &candidate.id.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Relay {
        id: RelayId,
        since: u64,
        link: X25519Public,
        onion: Vec<(u32, X25519Public)>,
        addresses: Vec<SocketAddr>,
        /// With the same link key, onion keys and addresses.
        before: [bool; 3],
    }

    const NOTHING: (X25519Public, &[(u32, X25519Public)], &[SocketAddr]) =
        (X25519Public([0; 32]), &[], &[]);

    /// A relay with everything of its own, by its number.
    fn relay(n: u8, since: u64) -> Relay {
        Relay {
            id: RelayId([n; 32]),
            since,
            link: X25519Public([n; 32]),
            onion: vec![(1, X25519Public([100 + n; 32]))],
            addresses: vec![([192, 0, n, 1], 7000).into()],
            before: [false; 3],
        }
    }

    fn candidate(relay: &Relay) -> Candidate<'_> {
        let now = Identified {
            link: relay.link,
            onion: &relay.onion,
            addresses: &relay.addresses,
        };
        let (link, onion, addresses) = NOTHING;
        let [had_link, had_onion, had_addresses] = relay.before;
        let before = Identified {
            link: if had_link { relay.link } else { link },
            onion: if had_onion { &relay.onion } else { onion },
            addresses: if had_addresses {
                &relay.addresses
            } else {
                addresses
            },
        };
        Candidate {
            id: relay.id,
            since: UnixTime(relay.since),
            now,
            before: relay.before.contains(&true).then_some(before),
        }
    }

    fn chosen(relays: &[Relay]) -> Vec<Option<Refused>> {
        let candidates: Vec<_> = relays.iter().map(candidate).collect();
        choose(&candidates, |ip| ip != IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn who_came_later_is_left_out_and_by_id_if_both_came_at_once() {
        for (since, loser) in [((5, 9), 1), ((9, 5), 0), ((5, 5), 1)] {
            let mut relays = [relay(1, since.0), relay(2, since.1)];
            relays[1].link = relays[0].link;
            let found = chosen(&relays);
            let by = relays[1 - loser].id;
            let thing = Thing::LinkKey(relays[0].link);
            assert_eq!(found[loser], Some(Refused { thing, by }), "{since:?}");
            assert_eq!(found[1 - loser], None);
        }
    }

    #[test]
    fn what_a_relay_is_listed_with_no_older_relay_takes_from_it() {
        let takes: [fn(&mut Relay, &Relay); 3] = [
            |thief, owner| thief.link = owner.link,
            |thief, owner| thief.onion.push((2, owner.onion[0].1)),
            |thief, owner| thief.addresses.push(owner.addresses[0]),
        ];
        for (what, take) in takes.iter().enumerate() {
            let (mut thief, mut owner) = (relay(1, 1), relay(2, 1000));
            thief.before = [true; 3];
            take(&mut thief, &owner);
            // Unless it is new to the younger one as well.
            let found = chosen(&[thief.clone(), owner.clone()]);
            assert!(found[0].is_none() && found[1].is_some(), "{what}");
            thief.before = [what != 0, what != 1, what != 2];
            owner.before[what] = true;
            let found = chosen(&[thief, owner]);
            assert!(found[0].is_some() && found[1].is_none(), "{what}");
        }
    }

    #[test]
    fn who_is_left_out_takes_nothing_with_it() {
        let (first, mut second, mut third) = (relay(1, 1), relay(2, 2), relay(3, 3));
        second.link = first.link;
        third.onion = second.onion.clone();
        let found = chosen(&[first, second, third]);
        assert!(found[0].is_none() && found[1].is_some() && found[2].is_none());
    }

    #[test]
    fn two_relays_share_a_site_and_no_more() {
        let at = |n: u8, ip: &str| {
            let address = SocketAddr::new(ip.parse().unwrap(), 7000 + u16::from(n));
            Relay {
                addresses: vec![address],
                ..relay(n, n.into())
            }
        };
        for (ips, third_is_left_out) in [
            (["192.0.2.1"; 3], true),
            (["192.0.2.1", "192.0.2.2", "192.0.2.3"], false),
            (["2001:db8::1", "2001:db8::2", "2001:db8::3"], true),
            (["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"], false),
            (["127.0.0.1"; 3], false),
        ] {
            // The newest first.
            let relays = [at(3, ips[2]), at(2, ips[1]), at(1, ips[0])];
            let found = chosen(&relays);
            assert_eq!(found[0].is_some(), third_is_left_out, "{ips:?}");
            assert_eq!(found[1..], [None, None], "{ips:?}");
        }
        // Several addresses at one site are one place.
        let mut relays = [at(1, "192.0.2.1"), at(2, "192.0.2.1")];
        relays[0].addresses.push(([192, 0, 2, 1], 8000).into());
        assert_eq!(chosen(&relays), [None, None]);
    }

    /// Relays that take things of few, so that there are conflicts.
    fn relays() -> impl Strategy<Value = Vec<Relay>> {
        let one = (
            0_u64..4,
            0_u8..12,
            proptest::collection::vec(0_u8..24, 1..3),
            proptest::collection::vec((0_u8..4, 0_u16..3), 1..4),
            any::<[bool; 3]>(),
        );
        proptest::collection::vec(one, 0..24).prop_map(|all| {
            let relays = all.into_iter().enumerate();
            relays
                .map(|(n, (since, link, onion, addresses, before))| Relay {
                    id: RelayId([u8::try_from(n).unwrap(); 32]),
                    since,
                    link: X25519Public([link + 1; 32]),
                    onion: (0..)
                        .zip(onion.iter().map(|k| X25519Public([100 + k; 32])))
                        .collect(),
                    addresses: addresses
                        .iter()
                        .map(|(ip, port)| ([192, 0, 2, *ip], 7000 + port).into())
                        .collect(),
                    before,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn all_is_one_relays_and_the_order_does_not_matter(relays in relays()) {
            let found = chosen(&relays);
            let listed: Vec<_> = relays.iter().zip(&found).filter(|(_, it)| it.is_none()).collect();
            let mut all = HashMap::new();
            let mut sites: HashMap<IpAddr, HashSet<RelayId>> = HashMap::new();
            for (relay, _) in &listed {
                for thing in things(&candidate(relay)) {
                    let other = all.insert(thing, relay.id);
                    prop_assert!(other.is_none_or(|other| other == relay.id));
                }
                for address in &relay.addresses {
                    sites.entry(address.ip()).or_default().insert(relay.id);
                }
            }
            prop_assert!(sites.values().all(|there| there.len() <= MOST_AT_A_SITE));
            // Nobody is left out for what only it has, and whoever came first is in unless others keep what they had.
            for (relay, refused) in relays.iter().zip(&found) {
                let Some(Refused { by, .. }) = refused else { continue };
                prop_assert!(relays.iter().any(|other| other.id == *by) && *by != relay.id);
            }
            let turned: Vec<_> = relays.iter().rev().cloned().collect();
            let again: Vec<_> = chosen(&turned).into_iter().rev().collect();
            prop_assert_eq!(again, found);
        }

        /// The relays of a snapshot, as they are, are those of the next one, whoever else comes, old or new.
        #[test]
        fn who_is_listed_stays_listed(mut relays in relays(), strangers in relays()) {
            let first = chosen(&relays);
            let mut at = 0..;
            relays.retain(|_| at.next().is_some_and(|at: usize| first[at].is_none()));
            for relay in &mut relays {
                relay.before = [true; 3];
                relay.since = 1;
            }
            let count = relays.len();
            let newcomers = strangers.into_iter().map(|relay| Relay {
                id: RelayId([relay.id.0[0] + 100; 32]),
                since: 2 + relay.since,
                before: [false; 3],
                ..relay
            });
            relays.extend(newcomers);
            prop_assert!(chosen(&relays)[..count].iter().all(Option::is_none));
        }
    }
}
