//! How often one source may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket: so many requests at once, and one more each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests at once.
    pub burst: u32,
    /// How long until there is one more.
    pub interval: Duration,
}

/// Token buckets by source, of which there are at most a given number. When all are in use a
/// source that has none is refused: a crowd of sources costs no memory.
pub struct RateLimiter<K> {
    rate: Rate,
    sources: usize,
    /// When each source's bucket is full again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// A limiter for at most `sources` sources at a time.
    #[must_use]
    pub fn new(rate: Rate, sources: usize) -> Self {
        Self {
            rate,
            sources,
            full_at: Mutex::default(),
        }
    }

    /// Whether the source may ask now; counts the request if so.
    pub fn admit(&self, source: K, now: Instant) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= self.sources && !full_at.contains_key(&source) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= self.sources {
                return false;
            }
        }
        let full = full_at.entry(source).or_insert(now);
        let after = (*full).max(now) + self.rate.interval;
        if after.saturating_duration_since(now) > self.rate.interval * self.rate.burst {
            return false;
        }
        *full = after;
        true
    }
}

/// Whom an address stands for: an IPv4 address, or the /64 of an IPv6 one, which is what one
/// site has.
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
        let limiter = RateLimiter::new(RATE, 10);
        let start = Instant::now();
        let admitted = |at: u64| limiter.admit("a", start + Duration::from_secs(at));
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
        let limiter = RateLimiter::new(RATE, 2);
        let start = Instant::now();
        assert!(limiter.admit(1, start) && limiter.admit(2, start));
        assert!(!limiter.admit(3, start));
        assert!(limiter.admit(1, start));
        // Those whose buckets are full again make room.
        assert!(limiter.admit(3, start + Duration::from_secs(2)));
        assert!(limiter.full_at.lock().unwrap().len() <= 2);
    }

    #[test]
    fn sites() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(ip("2001:db8::1:2:3:4")), ip("2001:db8::"));
        assert_eq!(site(ip("192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
