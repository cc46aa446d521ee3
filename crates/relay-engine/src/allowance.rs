//! How much the workers of a relay may send together.
//!
//! A token bucket in one number, after the virtual scheduling of the generic cell rate algorithm
//! (ITU-T I.371, annex A): until when all that was taken is paid for. Workers take datagrams
//! several at a time, so that a datagram costs neither a lock nor, without a limit, a write that
//! other workers see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes that a datagram is counted with: its own 1408, and the longest headers, those of UDP and
/// IPv6.
pub const SENT_BYTES: u64 = 1456;
/// Datagrams that a worker takes at a time.
pub(crate) const LEASE: u32 = 16;
/// What may be sent at once after a pause, in nanoseconds of the rate...
const BURST_NS: u64 = 50_000_000;
/// ...and in datagrams, whichever is more.
const BURST_DATAGRAMS: u64 = 4 * LEASE as u64;
/// Stands for no limit.
const UNLIMITED: u64 = 0;
/// Stands for nothing at all.
const NOTHING: u64 = u64::MAX;

/// How much may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As much as comes.
    Unlimited,
    /// At most so many bytes a second, on average.
    Bytes(u64),
    /// Nothing.
    Nothing,
}

/// What is left of a rate; all workers take from it.
#[derive(Debug)]
pub struct Allowance {
    /// Nanoseconds that a datagram takes at the rate.
    per_datagram: AtomicU64,
    /// Until when what was taken is paid for, in nanoseconds since the beginning.
    paid_until: AtomicU64,
    began: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            per_datagram: AtomicU64::new(UNLIMITED),
            paid_until: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl Allowance {
    /// Changes the rate. What workers have taken, some dozens of datagrams, is still sent.
    pub fn set(&self, rate: Rate) {
        let per_datagram = match rate {
            Rate::Unlimited => UNLIMITED,
            Rate::Bytes(0) | Rate::Nothing => NOTHING,
            // At least one: below that there is no limit to speak of.
            Rate::Bytes(bytes) => (SENT_BYTES * 1_000_000_000 / bytes).max(1),
        };
        self.per_datagram.store(per_datagram, Ordering::Relaxed);
    }

    /// Datagrams that a worker may send: [`LEASE`], or none.
    pub(crate) fn take(&self, now: Instant) -> u32 {
        let per_datagram = match self.per_datagram.load(Ordering::Relaxed) {
            UNLIMITED => return LEASE,
            NOTHING => return 0,
            per_datagram => per_datagram,
        };
        let now = now.saturating_duration_since(self.began).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let cost = per_datagram.saturating_mul(LEASE.into());
        let burst = per_datagram.saturating_mul(BURST_DATAGRAMS).max(BURST_NS);
        let taken =
            self.paid_until
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_until| {
                    let end = paid_until.max(now).saturating_add(cost);
                    (end <= now.saturating_add(burst)).then_some(end)
                });
        if taken.is_ok() { LEASE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Datagrams taken in so many milliseconds by somebody who asks all the time.
    fn taken(allowance: &Allowance, from: u64, milliseconds: u64) -> u64 {
        let at = |time| allowance.began + Duration::from_micros(time);
        (from * 1000..(from + milliseconds) * 1000)
            .step_by(50)
            .map(|time| u64::from(allowance.take(at(time))))
            .sum()
    }

    #[test]
    fn the_rate_is_kept_and_a_pause_saves_up_no_more_than_a_burst() {
        let allowance = Allowance::default();
        allowance.set(Rate::Bytes(10_000 * SENT_BYTES));
        // 10,000 a second: 500 in 50 ms at once, and then as many as the time allows.
        let first = taken(&allowance, 0, 1000);
        assert!((10_000..=10_500 + 16).contains(&first), "{first}");
        let second = taken(&allowance, 1000, 1000);
        assert!((9_980..=10_020).contains(&second), "{second}");
        // After a minute's pause, one burst.
        let later = taken(&allowance, 62_000, 100);
        assert!((1_480..=1_520).contains(&later), "{later}");
    }

    #[test]
    fn no_limit_and_nothing() {
        let allowance = Allowance::default();
        assert_eq!(allowance.take(Instant::now()), LEASE);
        allowance.set(Rate::Nothing);
        assert_eq!(taken(&allowance, 0, 1000), 0);
        // The slowest rate lets a lease pass, or nothing ever would.
        allowance.set(Rate::Bytes(SENT_BYTES));
        assert!(taken(&allowance, 10_000, 1000) > 0);
        allowance.set(Rate::Unlimited);
        assert_eq!(allowance.take(Instant::now()), LEASE);
    }
}
