//! What went over the session in use, as far as it decides when to ping, to show a sign of
//! life, or to begin anew.

use super::timers::{KEEPALIVE, SILENCE_LIMIT, UPKEEP_PING};
use super::transport::{CellKind, SealKey};
use std::time::{Duration, Instant};

/// The traffic of one session. What is sent shows in the key, which workers seal with; what
/// is received has to be told.
pub(super) struct Traffic {
    /// Datagrams sealed, when last looked at.
    sent: u64,
    /// Of these, those that were not cover.
    sent_data: u64,
    last_sent: Instant,
    last_heard: Instant,
    /// The last data in either direction.
    last_used: Instant,
    /// When data was first sent since anything was received.
    unanswered: Option<Instant>,
    /// When data was first received since anything was sent.
    unacknowledged: Option<Instant>,
}

impl Traffic {
    /// The traffic of a session that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sent: 0,
            sent_data: 0,
            last_sent: now,
            last_heard: now,
            last_used: now,
            unanswered: None,
            unacknowledged: None,
        }
    }

    /// Looks at what has been sealed. It is called before [`Traffic::heard`] too, since what is
    /// received answers what was sent before it.
    pub(super) fn observe(&mut self, seal: &SealKey, now: Instant) {
        let (sent, data) = (seal.sent(), seal.sent_data());
        if sent > self.sent {
            self.last_sent = now;
            self.unacknowledged = None;
        }
        if data > self.sent_data {
            self.last_used = now;
            self.unanswered.get_or_insert(now);
        }
        (self.sent, self.sent_data) = (sent, data);
    }

    /// Something was received.
    pub(super) fn heard(&mut self, kind: CellKind, now: Instant) {
        self.last_heard = now;
        self.unanswered = None;
        if kind != CellKind::Cover {
            self.last_used = now;
            self.unacknowledged.get_or_insert(now);
        }
    }

    /// Whether data went in either direction at this time or later.
    pub(super) fn is_used_since(&self, time: Instant) -> bool {
        self.last_used >= time
    }

    /// Whether a link that is kept up is to be pinged. If so, it counts as done.
    pub(super) fn take_ping(&mut self, now: Instant) -> bool {
        let due = since(self.last_sent.min(self.last_heard), now) >= UPKEEP_PING;
        if due {
            (self.last_sent, self.last_heard) = (now, now);
            self.unacknowledged = None;
        }
        due
    }

    /// Whether the neighbour has to be shown that we live. If so, it counts as done.
    pub(super) fn take_keepalive(&mut self, now: Instant) -> bool {
        self.unacknowledged
            .take_if(|at| since(*at, now) >= KEEPALIVE)
            .is_some()
    }

    /// Whether the neighbour does not answer.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.unanswered
            .is_some_and(|at| since(at, now) >= SILENCE_LIMIT)
    }

    /// Waits anew for an answer.
    pub(super) fn forgive_silence(&mut self) {
        self.unanswered = None;
    }
}

fn since(time: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(time)
}
