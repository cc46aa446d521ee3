//! When something is due that others count by the calendar: a lease, a name.
//!
//! A timer of the kernel's monotonic clock does not count while the machine sleeps, and knows nothing
//! of a wall clock that is set. So both clocks are looked at, and the one that is ahead counts: after
//! a suspend, and after a step forward, that is the wall clock; after a step back, the monotonic one.

use std::time::{Duration, Instant, SystemTime};

/// How often the wall clock is looked at while somebody waits: so late is noticed that it was set.
pub const LOOK: Duration = Duration::from_secs(2);

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    monotonic: Instant,
    wall: SystemTime,
}

/// What both clocks show.
type Clocks = (Instant, SystemTime);

impl Due {
    /// At once.
    #[must_use]
    pub fn now() -> Self {
        Self::after(Duration::ZERO)
    }

    /// After this time.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self::after_at(time, clocks())
    }

    /// Whether it is past.
    #[must_use]
    pub fn is_past(&self) -> bool {
        self.left_at(clocks()).is_zero()
    }

    /// Waits for it. A wall clock that is set past it is noticed within [`LOOK`].
    pub async fn wait(&self) {
        self.wait_by(clocks).await;
    }

    async fn wait_by(&self, clocks: impl Fn() -> Clocks) {
        loop {
            let left = self.left_at(clocks());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    fn after_at(time: Duration, (monotonic, wall): Clocks) -> Self {
        Self {
            monotonic: monotonic.checked_add(time).unwrap_or(monotonic),
            wall: wall.checked_add(time).unwrap_or(wall),
        }
    }

    fn left_at(&self, (monotonic, wall): Clocks) -> Duration {
        let by_monotonic = self.monotonic.saturating_duration_since(monotonic);
        let by_wall = self.wall.duration_since(wall).unwrap_or_default();
        by_monotonic.min(by_wall)
    }
}

fn clocks() -> Clocks {
    (Instant::now(), SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_clock_that_is_ahead_counts() {
        let (monotonic, wall) = clocks();
        let due = Due::after_at(HOUR, (monotonic, wall));
        let past = |monotonic, wall| due.left_at((monotonic, wall)).is_zero();
        assert!(!past(monotonic, wall));
        assert!(!past(monotonic + HOUR / 2, wall + HOUR / 2));
        assert!(past(monotonic + HOUR, wall + HOUR));
        // Asleep, or set forward.
        assert!(past(monotonic, wall + 3 * DAY));
        // Set back.
        assert!(past(monotonic + HOUR, wall - DAY));
        assert!(Due::now().is_past());
        assert!(!Due::after(HOUR).is_past());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_ends_the_wait_within_seconds() {
        let (start, wall) = clocks();
        let began = tokio::time::Instant::now();
        let due = Due::after_at(HOUR, (start, wall));
        let set = Mutex::new(Duration::ZERO);
        let clocks = || {
            let passed = began.elapsed();
            (start + passed, wall + passed + *set.lock().unwrap())
        };
        let setting = async {
            tokio::time::sleep(HOUR / 2).await;
            *set.lock().unwrap() = 5 * DAY;
        };
        tokio::join!(due.wait_by(clocks), setting);
        let waited = began.elapsed();
        assert!(
            waited >= HOUR / 2 && waited <= HOUR / 2 + LOOK,
            "{waited:?}"
        );

        *set.lock().unwrap() = Duration::ZERO;
        let due = Due::after_at(HOUR, clocks());
        let began = tokio::time::Instant::now();
        due.wait_by(clocks).await;
        assert!(
            began.elapsed().abs_diff(HOUR) <= LOOK,
            "undisturbed, as long as planned"
        );
    }
}
