//! The clocks of this machine, which the engine is told.
//!
//! The engine's clock goes on while the machine sleeps, as the clocks of guards and peers do:
//! CLOCK_BOOTTIME, which `Instant` (CLOCK_MONOTONIC) falls behind with each sleep (clock_gettime(2)).

use std::time::{Duration, Instant, SystemTime};

use mixline_endpoint_engine::clock::Now;
use nix::time::{ClockId, clock_gettime};

/// The two clocks are not read at the same moment, and drift against one another by nothing: less
/// than this is no sleep.
const LEAST: Duration = Duration::from_millis(100);

/// Reads them.
pub(crate) struct Clock {
    /// What CLOCK_BOOTTIME was ahead by when this began.
    ahead: Duration,
    /// How long the machine has slept since.
    slept: Duration,
}

impl Clock {
    /// A clock that has not slept.
    pub(crate) fn new() -> Self {
        Self {
            ahead: ahead(),
            slept: Duration::ZERO,
        }
    }

    /// What they show.
    pub(crate) fn now(&mut self) -> Now {
        self.at(ahead(), Instant::now(), SystemTime::now())
    }

    fn at(&mut self, ahead: Duration, instant: Instant, wall: SystemTime) -> Now {
        let slept = ahead.saturating_sub(self.ahead);
        if slept >= self.slept + LEAST {
            self.slept = slept;
        }
        Now::new(instant + self.slept, wall)
    }

    /// A moment of the engine's clock on that which the runtime's timers follow.
    pub(crate) fn timer(&self, at: Instant) -> Instant {
        at.checked_sub(self.slept).unwrap_or(at)
    }
}

/// By how much CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC; nothing if one of them cannot be read.
fn ahead() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from);
    match (
        read(ClockId::CLOCK_BOOTTIME),
        read(ClockId::CLOCK_MONOTONIC),
    ) {
        (Ok(boot), Ok(monotonic)) => boot.saturating_sub(monotonic),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_counts_and_the_way_the_clocks_are_read_does_not() {
        let second = Duration::from_secs(1);
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * second);
        let mut clock = Clock {
            ahead: 5 * second,
            slept: Duration::ZERO,
        };
        assert_eq!(clock.at(5 * second, start, wall), Now::new(start, wall));
        let jitter = 5 * second + Duration::from_micros(3);
        assert_eq!(clock.at(jitter, start, wall).instant, start);
        assert_eq!(clock.at(4 * second, start, wall).instant, start);
        // Asleep for a minute, in which CLOCK_MONOTONIC stands still.
        let now = clock.at(65 * second, start + second, wall);
        assert_eq!(now.instant, start + 61 * second);
        assert_eq!(clock.timer(now.instant + second), start + 2 * second);
        // It never goes back.
        let later = clock.at(5 * second, start + 2 * second, wall);
        assert_eq!(later.instant, start + 62 * second);
    }

    #[test]
    fn the_real_clocks_go_on() {
        let mut clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.instant >= first.instant);
        assert!(clock.timer(second.instant) <= Instant::now());
    }
}
