//! Bounds on how often something is done.

use std::time::Instant;

/// A bucket of tokens: one for each time.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full one.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self::full(per_second.into(), burst.into(), now)
    }

    /// A full one for what happens rarely.
    #[must_use]
    pub fn per_hour(per_hour: u32, burst: u32, now: Instant) -> Self {
        Self::full(f64::from(per_hour) / 3600.0, burst.into(), now)
    }

    fn full(per_second: f64, burst: f64, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.filled = self.filled.max(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}
