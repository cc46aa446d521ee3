//! How much work a responder does for those who ask for handshakes: when it is under load, and
//! how much of it one source may cost.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

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

/// At most this many sources are counted; others are refused until some have recovered, which
/// takes [`SOURCE_BURST`] times [`SOURCE_REFILL`].
pub const MAX_SOURCES: usize = 16_384;

/// Bounds the public-key work that one source costs, for initiations that have passed
/// [`super::Responder::check_macs`] under load (so the source is where it says it is). A source
/// is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Default)]
pub struct SourceLimiter {
    /// When the source's tokens would be full again.
    full_at: HashMap<u64, Instant>,
    swept: Option<Instant>,
}

impl SourceLimiter {
    /// A limiter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an initiation from `source` is processed now; counts it if so.
    pub fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        let source = prefix(source.ip());
        let full_at = self.full_at.get(&source).copied().filter(|at| *at > now);
        if full_at.is_none() && self.full_at.len() >= MAX_SOURCES {
            self.sweep(now);
            if self.full_at.len() >= MAX_SOURCES {
                return false;
            }
        }
        let next = full_at.unwrap_or(now) + SOURCE_REFILL;
        if next.saturating_duration_since(now) > SOURCE_REFILL * SOURCE_BURST {
            return false;
        }
        self.full_at.insert(source, next);
        true
    }

    /// Forgets the sources that have recovered; it looks at all of them, so it is not done often.
    fn sweep(&mut self, now: Instant) {
        let swept = self.swept.map(|swept| now.saturating_duration_since(swept));
        if swept.is_none_or(|age| age >= SOURCE_REFILL) {
            self.full_at.retain(|_, at| *at > now);
            self.swept = Some(now);
        }
    }
}

/// IPv4: the address, in a part of IPv6 that is never routed. IPv6: the first 64 bits.
fn prefix(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => u64::from(u32::from(ip)),
            None => {
                let mut network = [0; 8];
                network.copy_from_slice(&ip.octets()[..8]);
                u64::from_be_bytes(network)
            }
        },
    }
}
