//! When a link rekeys, refuses, keeps alive, retries and gives up.
//!
//! The figures are WireGuard's (whitepaper, section 6.1) but for the upkeep ping.
//! They are not configurable: both ends and the argument for forward secrecy rest on them.

use std::time::Duration;

/// The side that initiated a session replaces it at this age, if it is used.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The other side does it at this age, if neither has by then.
pub const REKEY_AFTER_AS_RESPONDER: Duration = Duration::from_secs(165);

/// Nothing is sealed or opened under a session of this age; its keys are erased.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);

/// An initiation that is not answered is made anew after this long and some jitter.
pub const HANDSHAKE_RETRY: Duration = Duration::from_secs(5);

/// The jitter: uniform below this.
pub const HANDSHAKE_JITTER: Duration = Duration::from_millis(334);

/// Initiations without an answer for this long: the neighbour is unreachable.
pub const HANDSHAKE_GIVE_UP: Duration = Duration::from_secs(90);

/// A side that has received data and sent nothing for this long sends a cover datagram.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// A side that has sent data and received nothing for this long begins a handshake:
/// [`KEEPALIVE`] and [`HANDSHAKE_RETRY`].
pub const SILENCE_LIMIT: Duration = Duration::from_secs(15);

/// A link that is always kept up is pinged when nothing was sent, or nothing received, for
/// this long. It keeps the mapping in NATs alive (RFC 4787 asks them for two minutes, many
/// keep 30 seconds) and finds a dead neighbour although nothing else is sent.
pub const UPKEEP_PING: Duration = Duration::from_secs(20);

/// A neighbour's initiations closer together than this are refused.
pub const ACCEPT_INTERVAL: Duration = Duration::from_millis(50);

/// Two sessions that began within this of one another, one from each side, were initiated
/// at the same time; both sides settle on the same one of them.
pub const CROSSING: Duration = Duration::from_secs(5);

/// [`super::peer::Peer::poll`] is called at least this often; no decision is later than this.
pub const POLL_EVERY: Duration = Duration::from_secs(1);

const _: () = {
    assert!(SILENCE_LIMIT.as_secs() == KEEPALIVE.as_secs() + HANDSHAKE_RETRY.as_secs());
    assert!(REKEY_AFTER_AS_RESPONDER.as_secs() == REJECT_AFTER.as_secs() - SILENCE_LIMIT.as_secs());
};
