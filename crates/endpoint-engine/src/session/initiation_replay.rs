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
    last: HashMap<AnonymousId, u64>,
    swept: Option<Instant>,
}

impl InitiationReplayCache {
    /// Remembers a timestamp; false if it is not newer than the last, or there is no room.
    pub fn admit(&mut self, id: AnonymousId, timestamp_ms: u64, now: Now) -> bool {
        let due = |at: Instant| now.instant.saturating_duration_since(at) > Duration::from_secs(60);
        if self.swept.is_none_or(due) {
            self.swept = Some(now.instant);
            self.last
                .retain(|_, at| at.saturating_add(TIMESTAMP_TOLERANCE_MS) >= now.unix_ms);
        }
        let room = self.last.len() < MAX_REPLAY_ENTRIES;
        match self.last.get_mut(&id) {
            Some(last) if timestamp_ms > *last => *last = timestamp_ms,
            Some(_) => return false,
            None if room => {
                self.last.insert(id, timestamp_ms);
            }
            None => return false,
        }
        true
    }
}
