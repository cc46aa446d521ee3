//! The relays of a snapshot, as path selection looks at them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use mixline_protocol::epoch;
use mixline_protocol::identity::{AnonymousId, RelayId, ShortId, X25519Public};
use mixline_protocol::listing::{Claim, Neighbourhood, weights};
use mixline_protocol::path::Hop;
use mixline_protocol::records::{
    CLOCK_SKEW, ListedRelay, MAX_ADDRESSES, OnionKeys, Parameters, ServiceDescriptor, Snapshot,
    with_keys_of_their_own,
};
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;

use crate::random::below;

/// A round counts for at most so long, seconds: where more has passed, the directories did not agree meanwhile.
const LONGEST_ROUND: u64 = 600;

/// One relay.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Its identity.
    pub id: RelayId,
    /// Its short ID.
    pub short: ShortId,
    /// What people call it.
    pub name: String,
    /// Its link key.
    pub link: X25519Public,
    /// Where it is reached.
    pub addresses: Vec<SocketAddr>,
    /// How much it counts when relays are drawn, at least 1: see [`weights`].
    pub weight: u64,
    onion: OnionKeys,
    family: Option<String>,
    neighbourhoods: ArrayVec<Neighbourhood, MAX_ADDRESSES>,
    expires: UnixTime,
}

impl Relay {
    fn new(listed: &ListedRelay) -> Self {
        let descriptor = &listed.descriptor;
        let mut neighbourhoods: ArrayVec<Neighbourhood, MAX_ADDRESSES> = ArrayVec::new();
        for address in &descriptor.addresses {
            let neighbourhood = Neighbourhood::of(address.ip());
            if !neighbourhoods.contains(&neighbourhood) {
                // As many neighbourhoods as addresses, and the record has at most that many of them.
                let _ = neighbourhoods.try_push(neighbourhood);
            }
        }
        Self {
            id: descriptor.id,
            short: descriptor.short_id(),
            name: descriptor.name.clone(),
            link: descriptor.link,
            addresses: descriptor.addresses.clone(),
            weight: 1,
            onion: listed.onion.clone(),
            family: descriptor.family.clone(),
            neighbourhoods,
            expires: descriptor.expires,
        }
    }

    /// Its onion keys, and the epochs that they are for.
    pub fn onion_keys(&self) -> impl Iterator<Item = (u32, X25519Public)> {
        self.onion.iter().copied()
    }

    /// Whether two relays must not be in one head or tail: the same one, one network, or
    /// one family.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.short == other.short
            || self
                .neighbourhoods
                .iter()
                .any(|one| other.neighbourhoods.contains(one))
            || (self.family.is_some() && self.family == other.family)
    }
}

/// The relays of one snapshot, and what everybody agrees on.
pub struct Network {
    snapshot: Arc<Snapshot>,
    relays: Vec<Relay>,
    by_short: HashMap<ShortId, usize>,
}

impl Network {
    /// From a verified snapshot.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let listed = with_keys_of_their_own(&snapshot.relays);
        let mut relays: Vec<Relay> = listed.clone().map(Relay::new).collect();
        let claims: Vec<Claim<'_>> = listed
            .zip(&relays)
            .map(|(listed, relay)| Claim {
                capacity: listed.capacity,
                neighbourhoods: &relay.neighbourhoods,
            })
            .collect();
        let weights = weights(&claims);
        for (relay, weight) in relays.iter_mut().zip(weights) {
            relay.weight = weight;
        }
        let by_short = relays
            .iter()
            .enumerate()
            .map(|(at, relay)| (relay.short, at))
            .collect();
        Self {
            snapshot,
            relays,
            by_short,
        }
    }

    /// The snapshot that it is made of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether the time may be right, as far as the snapshot tells.
    #[must_use]
    pub fn is_plausible(&self, now: UnixTime) -> bool {
        let from = self.snapshot.issued.minus(CLOCK_SKEW);
        (from..self.snapshot.valid_until).contains(&now)
    }

    /// How long it takes at most until something new is in a snapshot that others have. Nothing where a directory is
    /// alone: it makes one every few seconds.
    #[must_use]
    pub fn news_take(&self) -> Duration {
        let (before, _) = self.snapshot.previous;
        if self.snapshot.roster == 0 || before == UnixTime(0) {
            return Duration::ZERO;
        }
        // What comes after a round's votes is in the next one, and that has to be fetched.
        let round = self.snapshot.issued.since(before).min(LONGEST_ROUND);
        Duration::from_secs(round * 3 / 2)
    }

    /// What everybody agrees on.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.snapshot.parameters
    }

    /// The directory that is asked at `now`: the first that can be reached, or else the first that says how it
    /// would be. `None` if none does.
    #[must_use]
    pub fn directory(&self, now: UnixTime) -> Option<&ServiceDescriptor> {
        let alive = |service: &&ServiceDescriptor| now < service.expires;
        let mut services = self.snapshot.services().filter(alive);
        let with_tails = services.find(|service| !service.tails.is_empty());
        with_tails.or_else(|| self.snapshot.services().find(alive))
    }

    /// Whose leases are believed: those of the directory that the snapshot names first. As long as there is
    /// none, those of the network, which a directory that is alone is.
    #[must_use]
    pub fn grants_leases(&self) -> AnonymousId {
        let named = self.snapshot.service().map(|service| service.id);
        named.unwrap_or(AnonymousId(self.snapshot.network.0))
    }

    /// All relays.
    #[must_use]
    pub fn relays(&self) -> &[Relay] {
        &self.relays
    }

    /// The relays that have an onion key which builders can use now.
    #[must_use]
    pub fn usable(&self, now: UnixTime) -> Vec<&Relay> {
        let relays = self.relays.iter();
        relays
            .filter(|relay| self.hop(relay, now).is_some())
            .collect()
    }

    /// The relay with a short ID.
    #[must_use]
    pub fn relay(&self, short: &ShortId) -> Option<&Relay> {
        self.by_short.get(short).and_then(|at| self.relays.get(*at))
    }

    /// The relay with an identity.
    #[must_use]
    pub fn relay_of(&self, id: &RelayId) -> Option<&Relay> {
        self.relay(&id.short()).filter(|relay| relay.id == *id)
    }

    /// The name of a relay, or its short ID if it is gone.
    #[must_use]
    pub fn name(&self, short: &ShortId) -> String {
        self.relay(short)
            .map_or_else(|| short.to_string(), |relay| relay.name.clone())
    }

    /// Whether a relay is listed, but not with this onion key any more: it has started anew, and what
    /// was built with the key leads nowhere.
    #[must_use]
    pub fn has_forgotten(&self, hop: &Hop) -> bool {
        self.relay(&hop.relay)
            .is_some_and(|relay| relay.onion.iter().all(|(_, key)| *key != hop.onion))
    }

    /// The relay as a hop of something that is built now, and the epoch of its key: the one that
    /// builders should use, or the current one if the relay has not published the next yet.
    #[must_use]
    pub fn hop(&self, relay: &Relay, now: UnixTime) -> Option<(Hop, u32)> {
        let seconds = self.parameters().epoch_seconds;
        if now >= relay.expires {
            return None;
        }
        [
            epoch::for_building(now, seconds),
            epoch::current(now, seconds),
        ]
        .into_iter()
        .find_map(|wanted| {
            let (of, key) = relay.onion.iter().find(|(of, _)| *of == wanted)?;
            Some((
                Hop {
                    relay: relay.short,
                    onion: *key,
                },
                *of,
            ))
        })
    }

    /// When something that uses the keys of these epochs ends.
    #[must_use]
    pub fn expiry(&self, epochs: impl IntoIterator<Item = u32>) -> UnixTime {
        epoch::expiry(epochs, self.parameters().epoch_seconds).unwrap_or_default()
    }

    /// When something that ends at `expires` should be replaced: when between a fifth and a
    /// twentieth of an epoch is left, or as long as it takes until others hear of it, if that is more. Builders use
    /// the next epoch's key from the last quarter on,
    /// so what is built then lives a whole epoch longer; chance keeps all clients from
    /// building in the same second.
    #[must_use]
    pub fn renewal(&self, expires: UnixTime, rng: &mut (impl CryptoRng + ?Sized)) -> UnixTime {
        let epoch = u64::from(self.parameters().epoch_seconds);
        let least = self.news_take().as_secs().clamp(epoch / 20, epoch / 5);
        expires.minus(least + below(epoch / 5 - least + 1, rng))
    }
}

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use mixline_protocol::identity::IdentityKey;
    use mixline_protocol::random::OsRandom;
    use mixline_protocol::records::DirectoryEntry;

    use super::*;
    use crate::testing::snapshots::{VALID, snapshot};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn what_is_replaced_is_known_to_others_before_it_ends() {
        let ends = NOW.plus(3600);
        for (several, least) in [(false, 180), (true, 450)] {
            let network = Network::new(Arc::new(snapshot(NOW, VALID, several)));
            for _ in 0..1000 {
                let left = ends.since(network.renewal(ends, &mut OsRandom::new()));
                assert!((least..=720).contains(&left), "{left}");
            }
        }
    }

    #[test]
    fn after_a_pause_of_the_directories_a_round_is_no_longer_than_usual() {
        let mut made = snapshot(NOW, VALID, true);
        made.previous.0 = NOW.minus(VALID);
        let network = Network::new(Arc::new(made));
        assert_eq!(network.news_take(), Duration::from_secs(900));
    }

    fn entry(number: u8, tails: usize, expires: UnixTime) -> DirectoryEntry {
        let tail = mixline_protocol::path::PublishedTail::decode(&[1; 172]).unwrap();
        let offer = mixline_protocol::records::TailOffer { tail, expires };
        DirectoryEntry {
            service: Some(ServiceDescriptor {
                id: IdentityKey::from_seed([number; 32]).anonymous_id(),
                version: 1,
                issued: NOW,
                expires,
                session: X25519Public([number; 32]),
                effort: mixline_protocol::effort::EffortTerms::default(),
                lease: None,
                tails: vec![offer; tails],
                clients: None,
                signature: [0; 64],
            }),
            ..DirectoryEntry::default()
        }
    }

    #[test]
    fn the_directory_that_is_asked_is_one_whose_descriptor_lives() {
        let mut made = snapshot(NOW, VALID, true);
        let (soon, late) = (NOW.plus(60), NOW.plus(3600));
        let asked = |made: &Snapshot, now| {
            let network = Network::new(Arc::new(made.clone()));
            network.directory(now).map(|service| service.session.0[0])
        };
        assert_eq!(asked(&made, NOW), None);
        made.directories = vec![
            DirectoryEntry::default(),
            entry(1, 0, late),
            entry(2, 1, soon),
            entry(3, 1, late),
        ];
        assert_eq!(asked(&made, NOW), Some(2));
        assert_eq!(asked(&made, soon), Some(3));
        assert_eq!(asked(&made, late), None);
        made.directories.truncate(3);
        assert_eq!(asked(&made, soon), Some(1));
    }

    #[test]
    fn leases_are_those_of_the_directory_that_is_named_first() {
        let mut made = snapshot(NOW, VALID, true);
        let granting = |made: &Snapshot| Network::new(Arc::new(made.clone())).grants_leases();
        assert_eq!(granting(&made).0, made.network.0);
        made.directories = vec![entry(1, 0, NOW.plus(60)), entry(2, 1, NOW.plus(60))];
        let second = IdentityKey::from_seed([2; 32]).anonymous_id();
        assert_eq!(granting(&made), second);
    }
}
