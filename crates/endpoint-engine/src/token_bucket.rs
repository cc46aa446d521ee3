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

    /// How many tokens there are.
    #[must_use]
    pub fn left(&self, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos();
        let missing = missing.div_ceil(self.rate.interval.as_nanos().max(1));
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.rate.burst.saturating_sub(missing)
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.rate.take(&mut self.full_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_can_be_taken() {
        let now = Instant::now();
        let mut bucket = TokenBucket::per_hour(30, 12, now);
        for taken in 0..12 {
            assert_eq!(bucket.left(now), 12 - taken);
            assert!(bucket.take(now));
        }
        assert_eq!(bucket.left(now), 0);
        assert!(!bucket.take(now));
        assert_eq!(bucket.left(now + Duration::from_secs(119)), 0);
        assert_eq!(bucket.left(now + Duration::from_secs(120)), 1);
        assert_eq!(bucket.left(now + Duration::from_secs(3600)), 12);
    }
}
