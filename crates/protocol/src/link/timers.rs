//! Timers of a link.
use std::time::Duration;

/// The side that initiated a session replaces it when it is this old.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// No datagram is sealed or accepted under a session of this age.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Time between two initiations of one handshake, before jitter.
pub const HANDSHAKE_RETRY: Duration = Duration::from_secs(5);
/// At most this much is added to `HANDSHAKE_RETRY`, at random.
pub const HANDSHAKE_JITTER: Duration = Duration::from_millis(334);
/// A handshake that is not answered for this long is given up.
pub const HANDSHAKE_GIVE_UP: Duration = Duration::from_secs(90);
/// Something was received and nothing sent for this long: say that we live.
pub const KEEPALIVE: Duration = Duration::from_secs(10);
/// A link that is kept up sends at least this often, so that NATs keep their mapping.
pub const PERSISTENT_KEEPALIVE: Duration = Duration::from_secs(20);
/// Life of a cookie and of the secret it is made with.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);
/// Call `Peer::poll` at least this often.
pub const POLL_EVERY: Duration = Duration::from_secs(1);
