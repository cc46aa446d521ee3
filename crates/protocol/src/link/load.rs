//! How much work a responder does for those who ask for handshakes: when it is under load, and
//! how much of it one source may cost.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rate_limit::{Rate, RateLimiter, site};
use crate::shares::Shares;

/// A responder that is given more initiations than this in a second is under load. One costs
/// about 0.3 ms, so this is some six percent of a core.
pub const LOAD_INITIATIONS_PER_SECOND: u32 = 200;

/// It stays under load for this long afterwards.
pub const LOAD_HOLD: Duration = Duration::from_secs(2);

/// Decides when a responder is under load.
#[derive(Debug, Clone, Default)]
pub struct LoadMeter {
    second: Option<Instant>,
    count: u32,
    until: Option<Instant>,
}

impl LoadMeter {
    /// A meter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one initiation that has arrived; true if the responder is under load.
    pub fn observe(&mut self, now: Instant) -> bool {
        let age = self
            .second
            .map(|second| now.saturating_duration_since(second));
        if age.is_none_or(|age| age >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD_INITIATIONS_PER_SECOND {
            self.until = now.checked_add(LOAD_HOLD);
        }
        self.until.is_some_and(|until| now < until)
    }
}

/// How many initiations of one source are processed at once.
pub const SOURCE_BURST: u32 = 20;

/// One more is processed each time this has passed.
pub const SOURCE_REFILL: Duration = Duration::from_millis(100);

/// At most this many sources are counted, which networks share ([`Shares`]); others are refused until some have
/// recovered, which takes [`SOURCE_BURST`] times [`SOURCE_REFILL`].
pub const MAX_SOURCES: usize = 16_384;

/// Bounds the public-key work that one source costs, for initiations that have passed
/// [`super::Responder::check_macs`] under load (so the source is where it says it is). A source
/// is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone)]
pub struct SourceLimiter(RateLimiter<IpAddr, Shares>);

impl Default for SourceLimiter {
    fn default() -> Self {
        let rate = Rate {
            burst: SOURCE_BURST,
            interval: SOURCE_REFILL,
        };
        Self(RateLimiter::by_network(rate, MAX_SOURCES))
    }
}

impl SourceLimiter {
    /// A limiter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an initiation from `source` is processed now; counts it if so.
    pub fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        self.0.admit(site(source.ip()), now)
    }
}
