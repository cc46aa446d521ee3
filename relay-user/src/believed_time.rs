//! The time by which onion keys are made and erased.
//!
//! An erased key does not come back. A wall clock that is set days ahead by mistake, and right again
//! a minute later, would take all keys with it, and all paths through this relay. So a step is
//! believed only if the directory's snapshot, which is signed and has been verified while the clock
//! was right, is valid at the new time; otherwise time goes on from before as the monotonic clock
//! says. A snapshot that is fetched under the new time has to be valid under it as well.

use std::ops::Range;
use std::time::{Duration, Instant};

use mixline_protocol::time::UnixTime;

/// Clocks that differ by less are one, seconds: NTP steps over a little, and slews the rest.
const TOLERANCE: u64 = 60;

/// What is believed of the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct BelievedTime {
    /// What it was, and when.
    last: Option<(UnixTime, Instant)>,
}

impl BelievedTime {
    /// The time to go by. `valid`: from when to when the last verified snapshot is.
    pub fn believed(
        &mut self,
        wall: UnixTime,
        now: Instant,
        valid: Option<&Range<UnixTime>>,
    ) -> UnixTime {
        let expected = self.last.map_or(wall, |(time, at)| {
            // To the nearest second, so that it does not fall behind by fractions.
            let passed = now.saturating_duration_since(at) + Duration::from_millis(500);
            time.plus(passed.as_secs())
        });
        let steady = wall.0.abs_diff(expected.0) <= TOLERANCE;
        if steady || valid.is_none_or(|valid| valid.contains(&wall)) {
            self.last = Some((wall, now));
            return wall;
        }
        // The last time that was believed stays the basis.
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86400;

    #[test]
    fn a_step_that_the_directory_does_not_confirm_is_not_believed() {
        let (start, mut time) = (Instant::now(), BelievedTime::default());
        let mut at = |wall: u64, seconds: u64, valid: Option<(u64, u64)>| {
            let valid = valid.map(|(from, to)| UnixTime(from)..UnixTime(to));
            let now = start + Duration::from_secs(seconds);
            time.believed(UnixTime(wall), now, valid.as_ref()).0
        };
        let first = 20 * DAY;
        let snapshot = Some((first - 300, first + 600));
        // Before there is a snapshot nothing else is known.
        assert_eq!(at(5, 0, None), 5);
        assert_eq!(at(first, 1, None), first);
        assert_eq!(at(first + 9, 10, snapshot), first + 9);
        // Days ahead, and back.
        assert_eq!(at(first + 3 * DAY, 20, snapshot), first + 19);
        assert_eq!(at(first + 3 * DAY + 80, 100, snapshot), first + 99);
        assert_eq!(at(first + 110, 111, snapshot), first + 110);
        // Back by an hour, and right again.
        assert_eq!(at(first - 3600, 120, snapshot), first + 119);
        assert_eq!(at(first + 200, 201, snapshot), first + 200);
        // The directory is away for a day: the clock goes on, and is believed.
        let mut seconds = 201;
        while seconds < DAY {
            seconds += 30;
            assert_eq!(
                at(first + seconds - 1, seconds, snapshot),
                first + seconds - 1
            );
        }
        // A correction that the directory confirms.
        let later = first + 2 * DAY;
        let confirmed = Some((later - 300, later + 600));
        assert_eq!(at(later, seconds + 1, confirmed), later);
    }
}
