//! Guards: the few relays that see this client's address.
//!
//! They are chosen once and kept for months, so that a client does not try one relay after the
//! other until it meets a malicious one. Each first hop of a head and each last hop of a tail is
//! one of them. A guard is replaced when its time is over, or when it has been gone from the
//! snapshot for [`GONE`]. While too few are up, fallback guards help out; they are remembered
//! too, so that who blocks guards one after the other makes a client try only
//! [`MAX_FALLBACKS`] more.

use std::time::{Duration, Instant};

use mixline_protocol::identity::{RelayId, ShortId};
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::random::below;
use crate::relays::layers::{self, Layer, Member, Needs};
use crate::relays::network::Network;
use crate::relays::relay_text::{self, Remembered};
use crate::relays::selection::{OWN_GUARD, Place, choose_guard};

/// How long a guard may be missing from the snapshots before another takes its place, seconds.
pub const GONE: u64 = 3 * 24 * 3600;
/// A guard is kept at least so long, seconds ...
pub const SHORTEST_LIFE: u64 = 90 * 24 * 3600;
/// ... and at most so much longer, drawn at random.
pub const EXTRA_LIFE: u64 = 60 * 24 * 3600;
/// At most so many guards are used.
pub const MAX_GUARDS: usize = 5;
/// At most so many guards beside the regular ones.
pub const MAX_FALLBACKS: usize = 3;
/// How long too few guards may be up before fallback guards are used.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long enough regular guards must have been up before fallback guards are let go.
pub const RECOVERED: Duration = Duration::from_secs(60);
/// Regular guards that should be up, if as many are configured: with two of them, one that
/// fails takes no session with it.
const ENOUGH: usize = 2;
const FORMAT: u32 = 1;

/// One remembered guard. Times are unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guard {
    #[serde(with = "relay_text")]
    relay: Remembered,
    until: u64,
    missing_since: Option<u64>,
    fallback: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    guards: Vec<Guard>,
    #[serde(default)]
    second_layer: Vec<Member>,
    #[serde(default)]
    third_layer: Vec<Member>,
}

/// Why a text does not hold guards.
#[derive(Debug, thiserror::Error)]
pub enum GuardsError {
    /// It is not JSON, or not of this shape.
    #[error(transparent)]
    Text(serde_json::Error),
    /// It is of another version.
    #[error("version {0} is not known")]
    Version(u32),
}

/// The guards of one client, and the relays that are kept for the places next to them.
pub struct Guards {
    wanted: usize,
    guards: Vec<Guard>,
    second: Layer,
    third: Layer,
    fallbacks_used: bool,
    /// Since when too few (or, with fallbacks in use, enough) regular guards have been up.
    since: Option<Instant>,
    changed: bool,
}

impl Guards {
    /// `wanted` guards, none of them chosen yet.
    #[must_use]
    pub fn new(wanted: usize) -> Self {
        Self {
            wanted,
            guards: Vec::new(),
            second: Layer::new(&layers::SECOND),
            third: Layer::new(&layers::THIRD),
            fallbacks_used: false,
            since: None,
            changed: false,
        }
    }

    /// The guards that [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`GuardsError`] if the text is not of this format.
    pub fn load(wanted: usize, text: &str) -> Result<Self, GuardsError> {
        let file: File = serde_json::from_str(text).map_err(GuardsError::Text)?;
        if file.version != FORMAT {
            return Err(GuardsError::Version(file.version));
        }
        let mut guards = Self::new(wanted);
        guards.second = Layer::load(&layers::SECOND, file.second_layer);
        guards.third = Layer::load(&layers::THIRD, file.third_layer);
        for guard in file.guards {
            let most = if guard.fallback {
                MAX_FALLBACKS
            } else {
                MAX_GUARDS
            };
            let have = guards
                .guards
                .iter()
                .filter(|other| other.fallback == guard.fallback);
            let known = guards.guards.iter().any(|other| other.relay == guard.relay);
            if have.count() < most && !known {
                guards.guards.push(guard);
            }
        }
        Ok(guards)
    }

    /// The text to store.
    #[must_use]
    pub fn save(&self) -> String {
        let file = File {
            version: FORMAT,
            guards: self.guards.clone(),
            second_layer: self.second.members().to_vec(),
            third_layer: self.third.members().to_vec(),
        };
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// Another number of guards is used from now on. Those beyond it stay remembered: who needs more
    /// again later gets the same ones.
    pub fn want(&mut self, wanted: usize) {
        self.wanted = wanted;
        self.since = None;
    }

    /// The regular guards, as many as are used.
    fn regular(&self) -> impl Iterator<Item = &Guard> {
        self.guards
            .iter()
            .filter(|guard| !guard.fallback)
            .take(self.wanted)
    }

    /// Whether something is to be stored.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// What [`Self::save`] returned last is stored.
    pub fn set_unchanged(&mut self) {
        self.changed = false;
    }

    /// The guards to hold links to, fallbacks last: ID, and whether it is a fallback.
    pub fn in_use(&self) -> impl Iterator<Item = (RelayId, bool)> {
        self.used().map(|guard| (guard.relay.id, guard.fallback))
    }

    fn used(&self) -> impl Iterator<Item = &Guard> {
        let regular = self.regular();
        let fallback = self
            .guards
            .iter()
            .filter(|guard| guard.fallback && self.fallbacks_used);
        regular.chain(fallback)
    }

    /// Whether a relay is one of the guards in use.
    #[must_use]
    pub fn is_guard(&self, relay: &ShortId) -> bool {
        self.used().any(|guard| guard.relay.short == *relay)
    }

    /// Drops guards that are gone or too old, chooses missing ones, and takes fallbacks into use
    /// or out of it. `up` says which relays have a working link, `reachable` which have an address
    /// that a socket here can send to. To be called with every snapshot and about once a second.
    pub fn update(
        &mut self,
        network: &Network,
        now: Now,
        up: impl Fn(&ShortId) -> bool,
        reachable: impl Fn(&crate::relays::network::Relay) -> bool,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let unix = now.unix().0;
        for guard in &mut self.guards {
            // Who has the file, or a clock that was wrong, keeps no guard for ever.
            let latest = unix.saturating_add(SHORTEST_LIFE + EXTRA_LIFE);
            guard.until = guard.until.min(latest);
            let missing = network.relay_of(&guard.relay.id).is_none();
            if missing != guard.missing_since.is_some() {
                guard.missing_since = missing.then_some(unix);
                self.changed = true;
            }
        }
        self.retire(unix);
        while self.regular().count() < self.wanted {
            if !self.add(false, network, now, &reachable, rng) {
                break;
            }
        }
        self.fall_back(network, now, up, &reachable, rng);
    }

    /// Keeps the layers behind the guards filled, for heads and tails of at most `length` relays. To be
    /// called after [`Self::update`]. The third layer is chosen only where it is used (`deep`).
    pub fn update_layers(
        &mut self,
        network: &Network,
        length: usize,
        deep: bool,
        now: UnixTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let needs = Needs {
            guards: self
                .in_use()
                .filter_map(|(id, _)| network.relay_of(&id))
                .collect(),
            length,
            now,
        };
        self.changed |= self.second.update(network, &needs, rng);
        if deep {
            self.changed |= self.third.update(network, &needs, rng);
        }
    }

    /// The relays for the second place of a head or tail of `length` relays behind a guard and, with
    /// `deep`, for the third.
    #[must_use]
    pub fn layers(
        &self,
        network: &Network,
        guard: &ShortId,
        length: usize,
        deep: bool,
        now: UnixTime,
    ) -> Vec<Vec<ShortId>> {
        // One that is not listed cannot be built with at all.
        let Some(guard) = network.relay(guard) else {
            return Vec::new();
        };
        let usable = network.usable(now);
        let beside = |layer: &Layer| layer.serving(&usable, guard, length);
        let mut layers = vec![beside(&self.second)];
        if deep {
            layers.push(beside(&self.third));
        }
        layers
    }

    /// The second layer, and the third.
    #[must_use]
    pub fn kept(&self) -> [&Layer; 2] {
        [&self.second, &self.third]
    }

    /// Whether a relay is kept for a place next to a guard.
    #[must_use]
    pub fn is_kept(&self, relay: &ShortId) -> bool {
        self.second.contains(relay) || self.third.contains(relay)
    }

    /// What speaks against a relay in a place because it has another one with this client already.
    #[must_use]
    pub fn speaks_against(&self, place: Place, relay: &ShortId) -> u8 {
        if self.is_guard(relay) || (place == Place::Free && self.is_kept(relay)) {
            OWN_GUARD
        } else {
            0
        }
    }

    /// One at a time goes for its age: with all of them at once, all paths would change.
    fn retire(&mut self, unix: u64) {
        let before = self.guards.len();
        self.guards.retain(|guard| {
            guard
                .missing_since
                .is_none_or(|since| unix < since.saturating_add(GONE))
        });
        if let Some(at) = self.guards.iter().position(|guard| guard.until <= unix) {
            self.guards.remove(at);
        }
        self.changed |= self.guards.len() != before;
    }

    fn fall_back(
        &mut self,
        network: &Network,
        now: Now,
        up: impl Fn(&ShortId) -> bool,
        reachable: &impl Fn(&crate::relays::network::Relay) -> bool,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let is_up = |guard: &&Guard| up(&guard.relay.short);
        let regular = self.regular().filter(is_up).count();
        let enough = regular >= ENOUGH.min(self.wanted);
        if enough != self.fallbacks_used {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now.instant);
        let patience = if enough { RECOVERED } else { PATIENCE };
        if now.instant.saturating_duration_since(since) < patience {
            return;
        }
        self.since = None;
        self.fallbacks_used = !enough;
        if self.fallbacks_used {
            let have = self.guards.iter().filter(|guard| guard.fallback).count();
            for _ in have..MAX_FALLBACKS {
                if !self.add(true, network, now, reachable, rng) {
                    break;
                }
            }
        }
    }

    /// Chooses one more guard, in no network and no family of another; false if there is none.
    fn add(
        &mut self,
        fallback: bool,
        network: &Network,
        now: Now,
        reachable: &impl Fn(&crate::relays::network::Relay) -> bool,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> bool {
        let known: Vec<_> = self
            .guards
            .iter()
            .filter_map(|guard| network.relay_of(&guard.relay.id))
            .collect();
        let allowed = |relay: &crate::relays::network::Relay| {
            reachable(relay)
                && !known.iter().any(|other| other.conflicts(relay))
                && !self.guards.iter().any(|guard| guard.relay.id == relay.id)
        };
        let Some(relay) = choose_guard(network, now.unix(), allowed, rng) else {
            return false;
        };
        let life = SHORTEST_LIFE + below(EXTRA_LIFE, rng);
        self.guards.push(Guard {
            relay: relay.id.into(),
            until: now.unix().plus(life).0,
            missing_since: None,
            fallback,
        });
        self.changed = true;
        true
    }
}
