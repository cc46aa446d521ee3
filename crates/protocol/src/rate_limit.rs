//! Bounds on how often something may be done: token buckets that are told the time.
//!
//! A bucket's state is one moment, the one at which it is full again. A full bucket needs no
//! memory, and a token is one addition: no fractions are kept, and nothing has to be filled.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::shares::{Claimant, Shares};

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

/// Who gets a bucket, of which there are at most a given number.
pub trait Crowd<K> {
    /// Takes a bucket for a source that has none. False, and nothing is changed, if there is none for it.
    fn take(&mut self, source: &K) -> bool;

    /// Gives back the bucket of a source.
    fn give_back(&mut self, source: &K);
}

/// A crowd of sources that cannot be told apart, as IDs that cost nothing: who comes first gets a bucket.
#[derive(Debug, Clone)]
pub struct FirstCome {
    free: usize,
}

impl<K> Crowd<K> for FirstCome {
    fn take(&mut self, _: &K) -> bool {
        let left = self.free.checked_sub(1);
        self.free = left.unwrap_or(0);
        left.is_some()
    }

    fn give_back(&mut self, _: &K) {
        self.free += 1;
    }
}

impl Crowd<IpAddr> for Shares {
    fn take(&mut self, source: &IpAddr) -> bool {
        Shares::take(self, Claimant::Stranger(*source))
    }

    fn give_back(&mut self, source: &IpAddr) {
        Shares::give_back(self, Claimant::Stranger(*source));
    }
}

/// Buckets of one rate by source, of which there are at most a given number. When all are in
/// use, or those that the [`Crowd`] has for its like, a source that has none is refused: a crowd of sources
/// costs no memory.
#[derive(Debug, Clone)]
pub struct RateLimiter<K, C = FirstCome> {
    rate: Rate,
    crowd: C,
    /// When each source's bucket is full again.
    full_at: HashMap<K, Instant>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// A limiter for at most `sources` sources at a time.
    #[must_use]
    pub fn new(rate: Rate, sources: usize) -> Self {
        Self::of(rate, FirstCome { free: sources })
    }
}

impl RateLimiter<IpAddr, Shares> {
    /// A limiter for at most `sources` addresses at a time, or sites, that networks share. So a network with
    /// many addresses does not keep others out.
    #[must_use]
    pub fn by_network(rate: Rate, sources: usize) -> Self {
        Self::of(rate, Shares::new(sources, 0))
    }
}

impl<K: Eq + Hash, C: Crowd<K>> RateLimiter<K, C> {
    fn of(rate: Rate, crowd: C) -> Self {
        Self {
            rate,
            crowd,
            full_at: HashMap::new(),
            swept: None,
        }
    }

    /// Whether `source` may do it now; takes a token of its bucket if so.
    ///
    /// When there is no bucket for a source, looks at each bucket for those that are full again, once in the
    /// rate's interval at most: in less than that none gets full.
    #[must_use]
    pub fn admit(&mut self, source: K, now: Instant) -> bool {
        if let Some(full_at) = self.full_at.get_mut(&source) {
            return self.rate.take(full_at, now);
        }
        if !self.crowd.take(&source) {
            self.sweep(now);
            if !self.crowd.take(&source) {
                return false;
            }
        }
        let mut full_at = now;
        let admitted = self.rate.take(&mut full_at, now);
        if admitted {
            self.full_at.insert(source, full_at);
        } else {
            self.crowd.give_back(&source);
        }
        admitted
    }

    /// Forgets the buckets that are full again.
    fn sweep(&mut self, now: Instant) {
        let swept = self.swept.map(|swept| now.saturating_duration_since(swept));
        if swept.is_none_or(|age| age >= self.rate.interval) {
            for (source, _) in self.full_at.extract_if(|_, at| *at <= now) {
                self.crowd.give_back(&source);
            }
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
        let mut limiter = RateLimiter::new(RATE, 10);
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
        let mut limiter = RateLimiter::new(RATE, 2);
        let start = Instant::now();
        assert!(limiter.admit(1, start) && limiter.admit(2, start));
        assert!(!limiter.admit(3, start));
        assert!(limiter.admit(1, start));
        // Those whose buckets are full again make room.
        assert!(limiter.admit(3, start + Duration::from_secs(2)));
        assert!(limiter.full_at.len() <= 2);
    }

    #[test]
    fn buckets_are_looked_through_once_in_an_interval() {
        let mut limiter = RateLimiter::new(RATE, 2);
        let start = Instant::now();
        let mut admitted =
            |source, at: u64| limiter.admit(source, start + Duration::from_millis(at));
        assert_eq!([admitted(1, 0), admitted(2, 500)], [true; 2]);
        assert_eq!([admitted(3, 999), admitted(3, 1500)], [false; 2]);
        assert!(admitted(3, 1999));
    }

    #[test]
    fn a_network_of_many_addresses_leaves_room_for_others() {
        let mut limiter = RateLimiter::by_network(RATE, 64);
        let start = Instant::now();
        let mut from = |bits: u32, at: u64| {
            limiter.admit(IpAddr::V4(bits.into()), start + Duration::from_millis(at))
        };
        // All addresses of a /16, again and again.
        let crowd = |n: u32| 0xc000_0000 + n.wrapping_mul(257) % 65_536;
        let held = (0..10_000).filter(|n| from(crowd(*n), 0)).count();
        assert!((16..=96).contains(&held), "{held}");
        assert!(from(0x0808_0808, 0));
        for at in 1..10 {
            assert!((0..1000).any(|n| from(crowd(n), at * 1000)));
            let others = (0..8).filter(|n| from((at as u32 * 8 + n) << 16, at * 1000));
            assert_eq!(others.count(), 8);
        }
        assert!(limiter.full_at.len() <= 64);
        // Those whose buckets are full again have no share any more.
        let later = start + Duration::from_secs(100);
        assert!(limiter.admit([8, 8, 8, 9].into(), later));
        limiter.sweep(later + RATE.interval);
        assert_eq!((limiter.full_at.len(), limiter.crowd.taken()), (0, 0));
    }

    #[test]
    fn sites() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(ip("2001:db8::1:2:3:4")), ip("2001:db8::"));
        assert_eq!(site(ip("192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
