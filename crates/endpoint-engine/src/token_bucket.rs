//! Bounds on how often something is done.

use std::time::{Duration, Instant};

use mixline_protocol::rate_limit::Rate;

/// A bucket of tokens: one for each time.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: Rate,
    full_at: Instant,
}

impl TokenBucket {
    /// A full one. `per_second` is at least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self::full(Duration::from_secs(1) / per_second, burst, now)
    }

    /// A full one for what happens rarely. `per_hour` is at least 1.
    #[must_use]
    pub fn per_hour(per_hour: u32, burst: u32, now: Instant) -> Self {
        Self::full(Duration::from_secs(3600) / per_hour, burst, now)
    }

    fn full(interval: Duration, burst: u32, now: Instant) -> Self {
        Self {
            rate: Rate { burst, interval },
            full_at: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.rate.take(&mut self.full_at, now)
    }
}
