//! How often one source may ask.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mixline_protocol::rate_limit::{Crowd, FirstCome, Rate, RateLimiter};
use mixline_protocol::shares::Shares;

/// A [`RateLimiter`] that the tasks of all requests have in common.
pub struct SharedLimiter<K, C = FirstCome>(Mutex<RateLimiter<K, C>>);

impl<K: Eq + Hash> SharedLimiter<K> {
    /// A limiter for at most `sources` sources at a time.
    #[must_use]
    pub fn new(rate: Rate, sources: usize) -> Self {
        Self(Mutex::new(RateLimiter::new(rate, sources)))
    }
}

impl SharedLimiter<IpAddr, Shares> {
    /// A limiter for at most `sources` addresses at a time, which networks share.
    #[must_use]
    pub fn by_network(rate: Rate, sources: usize) -> Self {
        Self(Mutex::new(RateLimiter::by_network(rate, sources)))
    }
}

impl<K: Eq + Hash, C: Crowd<K>> SharedLimiter<K, C> {
    /// Whether the source may ask now; counts the request if so.
    pub fn admit(&self, source: K, now: Instant) -> bool {
        let mut limiter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.admit(source, now)
    }
}
