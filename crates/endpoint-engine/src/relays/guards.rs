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
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::random::below;
use crate::relays::network::Network;
use crate::relays::selection::choose_guard;

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
    relay: RelayId,
    until: u64,
    missing_since: Option<u64>,
    fallback: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    guards: Vec<Guard>,
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

/// The guards of one client.
pub struct Guards {
    wanted: usize,
    guards: Vec<Guard>,
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

    /// Whether something is to be stored; asking resets it.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The guards to hold links to, fallbacks last: ID, and whether it is a fallback.
    pub fn in_use(&self) -> impl Iterator<Item = (RelayId, bool)> {
        let regular = self.regular();
        let fallback = self
            .guards
            .iter()
            .filter(|guard| guard.fallback && self.fallbacks_used);
        regular
            .chain(fallback)
            .map(|guard| (guard.relay, guard.fallback))
    }

    /// Whether a relay is one of the guards in use.
    #[must_use]
    pub fn is_guard(&self, relay: &ShortId) -> bool {
        self.in_use().any(|(id, _)| id.short() == *relay)
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
            let missing = network.relay_of(&guard.relay).is_none();
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
        let is_up = |guard: &&Guard| up(&guard.relay.short());
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
            .filter_map(|guard| network.relay_of(&guard.relay))
            .collect();
        let allowed = |relay: &crate::relays::network::Relay| {
            reachable(relay)
                && !known.iter().any(|other| other.conflicts(relay))
                && !self.guards.iter().any(|guard| guard.relay == relay.id)
        };
        let Some(relay) = choose_guard(network, now.unix(), allowed, rng) else {
            return false;
        };
        let life = SHORTEST_LIFE + below(EXTRA_LIFE, rng);
        self.guards.push(Guard {
            relay: relay.id,
            until: now.unix().plus(life).0,
            missing_since: None,
            fallback,
        });
        self.changed = true;
        true
    }
}

/// Relay IDs as hexadecimal text.
mod relay_text {
    use mixline_protocol::identity::RelayId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &RelayId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RelayId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut id = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(D::Error::custom("a relay ID has 64 hexadecimal digits"));
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(D::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(D::Error::custom)?;
        }
        Ok(RelayId(id))
    }
}
