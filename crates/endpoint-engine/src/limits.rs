//! What others may make this endpoint do, and how often.

use std::time::Duration;

use mixline_protocol::session::TIMESTAMP_TOLERANCE_MS;

use crate::session::initiation_replay::MAX_REPLAY_ENTRIES;

/// Handshake messages in a second that public-key work is done for, and at once. What is not an
/// initiation for us costs one X25519.
pub const TRIES_PER_SECOND: u32 = 400;
/// See [`TRIES_PER_SECOND`].
pub const TRIES_BURST: u32 = 100;
/// Initiations that are answered in a second, and at once.
pub const ANSWERS_PER_SECOND: u32 = 50;
/// See [`ANSWERS_PER_SECOND`].
pub const ANSWERS_BURST: u32 = 50;
const _: () = {
    // The cache has room for all initiations that are answered while a timestamp is good.
    let window_s = 2 * TIMESTAMP_TOLERANCE_MS / 1000;
    assert!(
        MAX_REPLAY_ENTRIES as u64 > window_s * ANSWERS_PER_SECOND as u64 + ANSWERS_BURST as u64
    );
};

/// Sessions in doubt whose peers are asked in a second although nobody waits for them, and at once:
/// each costs a datagram over each of its paths.
pub const DOUBTS_PER_SECOND: u32 = 100;
/// See [`DOUBTS_PER_SECOND`].
pub const DOUBTS_BURST: u32 = 20;

/// At most so many sessions have an initiator that has not been heard since we answered. The
/// oldest makes room.
pub const MAX_UNCONFIRMED: usize = 64;
/// How long a session may be so.
pub const UNCONFIRMED: Duration = Duration::from_secs(10);
