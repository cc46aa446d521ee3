//! How often one source may ask.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mixline_protocol::rate_limit::{Rate, RateLimiter};

/// A [`RateLimiter`] that the tasks of all requests have in common.
pub struct SharedLimiter<K>(Mutex<RateLimiter<K>>);

impl<K: Eq + Hash> SharedLimiter<K> {
    /// A limiter for at most `sources` sources at a time.
    #[must_use]
    pub fn new(rate: Rate, sources: usize) -> Self {
        // A source that is new is refused only if all buckets are in use at that moment.
        Self(Mutex::new(RateLimiter::new(rate, sources, Duration::ZERO)))
    }

    /// Whether the source may ask now; counts the request if so.
    pub fn admit(&self, source: K, now: Instant) -> bool {
        let mut limiter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.admit(source, now)
    }
}
