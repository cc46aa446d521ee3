//! What others may make this endpoint do, and how often.

use std::time::{Duration, Instant};

use mixline_protocol::session::TIMESTAMP_TOLERANCE_MS;

use crate::config::MAX_SESSIONS;
use crate::engine::liveness::PATHS;
use crate::session::initiation_replay::MAX_REPLAY_ENTRIES;
use crate::token_bucket::TokenBucket;

/// Handshake messages in a second that public-key work is done for, and at once, of each level of trust.
/// What is not an initiation for us costs one X25519.
pub const TRIES_PER_SECOND: u32 = 400;
/// See [`TRIES_PER_SECOND`].
pub const TRIES_BURST: u32 = 100;
/// Initiations that are answered in a second, and at once, of each level of trust.
pub const ANSWERS_PER_SECOND: u32 = 50;
/// See [`ANSWERS_PER_SECOND`].
pub const ANSWERS_BURST: u32 = 50;
/// The share of one peer, or of who sits on the way to its tails, of what comes through private tails: in a
/// second, and at once.
pub const PEER_TRIES_PER_SECOND: u32 = 20;
/// See [`PEER_TRIES_PER_SECOND`].
pub const PEER_TRIES_BURST: u32 = 40;
/// New keys that one peer gets in a second, and at once.
pub const PEER_ANSWERS_PER_SECOND: u32 = 2;
/// See [`PEER_ANSWERS_PER_SECOND`].
pub const PEER_ANSWERS_BURST: u32 = 12;
const _: () = {
    // The cache has room for all initiations that are answered while a timestamp is good: those of
    // strangers, and one of each peer that has a session.
    let window_s = 2 * TIMESTAMP_TOLERANCE_MS / 1000;
    let strangers = window_s * ANSWERS_PER_SECOND as u64 + ANSWERS_BURST as u64;
    assert!(MAX_REPLAY_ENTRIES as u64 > strangers + MAX_SESSIONS as u64);
};

/// Sessions in doubt whose peers are asked in a second although nobody waits for them, and at once:
/// each costs a datagram over each of its paths.
pub const DOUBTS_PER_SECOND: u32 = 100;
/// See [`DOUBTS_PER_SECOND`].
pub const DOUBTS_BURST: u32 = 20;

/// Initiations through public tails that wait to be read; of which nothing is known but the effort that was
/// spent on them. The least gives way.
pub const MAX_SEALED: usize = 128;
/// Those that were read and wait to be answered. The least effort gives way.
pub const MAX_READ: usize = 64;
/// Spare tails that are left to strangers who have spent what is suggested to them.
pub const SPARES_FOR_EFFORT: usize = 4;

/// At most so many sessions have an initiator that has not been heard since we answered. The one with the
/// least effort makes room, and of these the oldest.
pub const MAX_UNCONFIRMED: usize = 64;
/// Whoever has not been heard for so long after our answer has no better right to a place by its effort.
pub const CONFIRMS_WITHIN: Duration = Duration::from_secs(3);
/// How long a session may be so.
pub const UNCONFIRMED: Duration = Duration::from_secs(10);

/// Heads with relays that a peer's other heads have not used, at once: its first paths, and eight that
/// replace what has failed.
pub const NEW_HEADS_BURST: u32 = PATHS as u32 + 8;
/// The same in an hour.
pub const NEW_HEADS_PER_HOUR: u32 = 30;
/// Heads and tails with relays that no other head or tail has used, for all peers: at once, and in an
/// hour.
pub const NEW_RELAYS_BURST: u32 = 120;
/// See [`NEW_RELAYS_BURST`].
pub const NEW_RELAYS_PER_HOUR: u32 = 240;
/// Own tails that a peer may declare broken: at once, and in an hour.
pub const BROKEN_BURST: u32 = 8;
/// One in three minutes: a peer must not choose for us, by rejecting, which relays our tails use.
pub const BROKEN_PER_HOUR: u32 = 20;
/// Own tails in sessions that a peer began which are replaced because nothing comes through them: at once,
/// and in an hour.
pub const TROUBLE_BURST: u32 = 16;
/// See [`BROKEN_PER_HOUR`]: a peer can bring this about by saying little.
pub const TROUBLE_PER_HOUR: u32 = 60;
/// Peers whose budgets are remembered, those without a session among them.
pub const MAX_BUDGETS: usize = 2048;

/// Whose handshake messages these are: what one level uses up, the others have still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's, through a public tail.
    Public,
    /// A peer's, who makes new keys for a session.
    Peer,
    /// Answers to handshakes that were begun here.
    Own,
}

/// Bounds on the work for handshakes, apart for each level of trust.
pub struct HandshakeLimits {
    tries: [TokenBucket; 3],
    answers: [TokenBucket; 3],
}

impl HandshakeLimits {
    /// Full ones.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let full =
            |per_second, burst| std::array::from_fn(|_| TokenBucket::new(per_second, burst, now));
        Self {
            tries: full(TRIES_PER_SECOND, TRIES_BURST),
            answers: full(ANSWERS_PER_SECOND, ANSWERS_BURST),
        }
    }

    /// Whether one more message may be looked at.
    pub fn try_one(&mut self, trust: Trust, now: Instant) -> bool {
        self.tries[trust as usize].take(now)
    }

    /// Whether one more initiation could be answered.
    pub fn could_answer(&self, trust: Trust, now: Instant) -> bool {
        self.answers[trust as usize].left(now) > 0
    }

    /// Whether one more initiation may be answered.
    pub fn answer(&mut self, trust: Trust, now: Instant) -> bool {
        self.answers[trust as usize].take(now)
    }
}
