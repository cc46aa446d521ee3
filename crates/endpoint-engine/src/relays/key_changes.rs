//! How often relays start anew with other onion keys.
//!
//! A relay that has, is why paths over it have failed, and nobody else is blamed for these. One that swallows
//! cells could buy that excuse by registering other keys again and again: so a few changes an hour explain,
//! and no more.

use std::collections::HashMap;
use std::time::Instant;

use mixline_protocol::identity::ShortId;

use crate::relays::network::{Network, Relay};
use crate::token_bucket::TokenBucket;

/// Changes of a relay's keys that explain failures: at once ...
pub const CHANGES_BURST: u32 = 6;
/// ... and in an hour.
pub const CHANGES_PER_HOUR: u32 = 6;

struct Changes {
    bucket: TokenBucket,
    /// Whether the last one explains what has failed.
    explains: bool,
    last: Instant,
}

/// Relays that have changed their keys lately: at most those of a snapshot.
#[derive(Default)]
pub struct KeyChanges {
    relays: HashMap<ShortId, Changes>,
}

impl KeyChanges {
    /// A snapshot follows another one. The relays that have other keys now.
    pub fn follow(&mut self, before: &Network, after: &Network, now: Instant) -> Vec<ShortId> {
        let mut changed = Vec::new();
        let forgotten = |changes: &Changes| {
            let full = 3600 * u64::from(CHANGES_BURST) / u64::from(CHANGES_PER_HOUR);
            now.saturating_duration_since(changes.last).as_secs() >= full
        };
        self.relays
            .retain(|relay, changes| after.relay(relay).is_some() && !forgotten(changes));
        for relay in after.relays() {
            if before
                .relay(&relay.short)
                .is_some_and(|old| has_changed(old, relay))
            {
                let fresh = || Changes {
                    bucket: TokenBucket::per_hour(CHANGES_PER_HOUR, CHANGES_BURST, now),
                    explains: true,
                    last: now,
                };
                let changes = self.relays.entry(relay.short).or_insert_with(fresh);
                changes.explains = changes.bucket.take(now);
                changes.last = now;
                changed.push(relay.short);
            }
        }
        changed
    }

    /// Relays that have changed their keys since then, within the last hour.
    #[must_use]
    pub fn since(&self, at: Instant) -> usize {
        let changes = self.relays.values();
        changes.filter(|changes| changes.last > at).count()
    }

    /// Whether it explains failures that a relay has other keys now.
    #[must_use]
    pub fn explain(&self, relay: &ShortId) -> bool {
        self.relays
            .get(relay)
            .is_none_or(|changes| changes.explains)
    }
}

/// Whether a relay has another key for an epoch than it had.
fn has_changed(old: &Relay, new: &Relay) -> bool {
    let other = |(epoch, key)| {
        let mut keys = new.onion_keys();
        keys.any(|(of, now)| of == epoch && now != key)
    };
    old.onion_keys().any(other)
}
