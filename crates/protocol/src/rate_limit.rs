//! Bounds on how often something may be done: token buckets that are told the time.
//!
//! A bucket's state is one moment, the one at which it is full again. A full bucket needs no
//! memory, and a token is one addition: no fractions are kept, and nothing has to be filled.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The shape of a token bucket: so many at once, and one more each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub burst: u32,
    /// How long until there is one more.
    pub interval: Duration,
}

impl Rate {
    /// Takes a token from the bucket that is full again at `full_at`. False, and nothing is
    /// changed, if it has none.
    #[must_use]
    pub fn take(&self, full_at: &mut Instant, now: Instant) -> bool {
        let after = (*full_at).max(now) + self.interval;
        if after.saturating_duration_since(now) > self.interval * self.burst {
            return false;
        }
        *full_at = after;
        true
    }
}

/// Buckets of one rate by source, of which there are at most a given number. When all are in
/// use, a source that has none is refused: a crowd of sources costs no memory.
#[derive(Debug, Clone)]
pub struct RateLimiter<K> {
    rate: Rate,
    sources: usize,
    sweep_pause: Duration,
    /// When each source's bucket is full again.
    full_at: HashMap<K, Instant>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// A limiter for at most `sources` sources at a time. When all buckets are in use it looks
    /// at each of them for one that is full again, and not more often than once in
    /// `sweep_pause`.
    #[must_use]
    pub fn new(rate: Rate, sources: usize, sweep_pause: Duration) -> Self {
        Self {
            rate,
            sources,
            sweep_pause,
            full_at: HashMap::new(),
            swept: None,
        }
    }

    /// Whether `source` may do it now; takes a token of its bucket if so.
    #[must_use]
    pub fn admit(&mut self, source: K, now: Instant) -> bool {
        let known = self.full_at.get(&source).copied().filter(|at| *at > now);
        if known.is_none() && self.full_at.len() >= self.sources {
            self.sweep(now);
            if self.full_at.len() >= self.sources {
                return false;
            }
        }
        let mut full_at = known.unwrap_or(now);
        let admitted = self.rate.take(&mut full_at, now);
        if admitted {
            self.full_at.insert(source, full_at);
        }
        admitted
    }

    /// Forgets the buckets that are full again.
    fn sweep(&mut self, now: Instant) {
        let swept = self.swept.map(|swept| now.saturating_duration_since(swept));
        if swept.is_none_or(|age| age >= self.sweep_pause) {
            self.full_at.retain(|_, at| *at > now);
            self.swept = Some(now);
        }
    }
}

/// The source that an address stands for: an IPv4 address, or the /64 of an IPv6 one, which is
/// what one site has.
#[must_use]
pub fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        interval: Duration::from_secs(1),
    };

    #[test]
    fn bursts_and_refills() {
        let mut limiter = RateLimiter::new(RATE, 10, Duration::ZERO);
        let start = Instant::now();
        let mut admitted = |at: u64| limiter.admit("a", start + Duration::from_secs(at));
        assert_eq!(
            [admitted(0), admitted(0), admitted(0), admitted(0)],
            [true, true, true, false]
        );
        assert_eq!([admitted(1), admitted(1)], [true, false]);
        assert_eq!([admitted(100), admitted(100), admitted(100)], [true; 3]);
        assert!(!admitted(100));
        assert!(limiter.admit("b", start));
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut limiter = RateLimiter::new(RATE, 2, Duration::ZERO);
        let start = Instant::now();
        assert!(limiter.admit(1, start) && limiter.admit(2, start));
        assert!(!limiter.admit(3, start));
        assert!(limiter.admit(1, start));
        // Those whose buckets are full again make room.
        assert!(limiter.admit(3, start + Duration::from_secs(2)));
        assert!(limiter.full_at.len() <= 2);
    }

    #[test]
    fn buckets_are_looked_through_no_more_often_than_was_asked() {
        let mut limiter = RateLimiter::new(RATE, 1, Duration::from_secs(5));
        let start = Instant::now();
        let mut admitted = |source, at: u64| limiter.admit(source, start + Duration::from_secs(at));
        assert_eq!([admitted(1, 0), admitted(2, 0)], [true, false]);
        assert_eq!([admitted(2, 4), admitted(2, 5)], [false, true]);
    }

    #[test]
    fn sites() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(ip("2001:db8::1:2:3:4")), ip("2001:db8::"));
        assert_eq!(site(ip("192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
