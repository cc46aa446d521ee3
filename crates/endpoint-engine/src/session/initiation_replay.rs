//! Who has opened a session lately, so that nobody can play an initiation again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::session::TIMESTAMP_TOLERANCE_MS;

use crate::clock::Now;

/// The cache has at most so many entries: all initiations that can be answered while a timestamp
/// is good (`limits.rs` asserts it), so that none has to be forgotten before.
pub const MAX_REPLAY_ENTRIES: usize = 65536;

/// The last timestamp of each initiator: an initiation that is not newer is a replay.
#[derive(Default)]
pub struct InitiationReplayCache {
    /// By initiator: the timestamp, and when it came.
    last: HashMap<AnonymousId, (u64, Instant)>,
    swept: Option<Instant>,
}

impl InitiationReplayCache {
    /// Whether a timestamp is newer than the last.
    #[must_use]
    pub fn is_new(&self, id: &AnonymousId, timestamp_ms: u64) -> bool {
        let last = self.last.get(id);
        last.is_none_or(|(last, _)| timestamp_ms > *last)
    }

    /// Remembers a timestamp; false if it is not newer than the last, or there is no room.
    pub fn admit(&mut self, id: AnonymousId, timestamp_ms: u64, now: Now) -> bool {
        let due = |at: Instant| now.instant.saturating_duration_since(at) > Duration::from_secs(60);
        if self.swept.is_none_or(due) {
            self.swept = Some(now.instant);
            // By the monotonic clock as well: what a wall clock that jumps ahead makes look old is
            // not, once that is set back.
            let good = Duration::from_millis(2 * TIMESTAMP_TOLERANCE_MS);
            self.last.retain(|_, (at, came)| {
                at.saturating_add(TIMESTAMP_TOLERANCE_MS) >= now.unix_ms
                    || now.instant.saturating_duration_since(*came) < good
            });
        }
        let room = self.last.len() < MAX_REPLAY_ENTRIES;
        match self.last.get_mut(&id) {
            Some((last, came)) if timestamp_ms > *last => {
                (*last, *came) = (timestamp_ms, now.instant);
            }
            Some(_) => return false,
            None if room => {
                self.last.insert(id, (timestamp_ms, now.instant));
            }
            None => return false,
        }
        true
    }
}
