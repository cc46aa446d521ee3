//! Periods: how long a place on the ring is a service's.
//!
//! In period `n` of a network whose periods last `P` seconds (a day by default) are the times from `n P` to
//! `(n + 1) P`. Those who ask may have a snapshot that is hours old, and another clock. So around the end of
//! a period a service publishes for both, and relays keep both.

use arrayvec::ArrayVec;

use super::record::LIFE;
use crate::time::UnixTime;

/// The periods of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    length: u64,
}

impl Default for Periods {
    fn default() -> Self {
        Self::new(24 * 3600)
    }
}

impl Periods {
    /// Periods of so many seconds, at least one.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self {
            length: length.max(1),
        }
    }

    /// The period of a time.
    #[must_use]
    pub fn at(&self, now: UnixTime) -> u64 {
        now.0 / self.length
    }

    /// For how long before and after its own time a period is published and kept: as long as a record lives, at
    /// most a quarter of a period. The shared random value of a period has to be known by then.
    #[must_use]
    pub fn overlap(&self) -> u64 {
        LIFE.min(self.length / 4)
    }

    /// The periods for which services publish, and that relays keep: the present one first, and the one before or
    /// after it for a while.
    #[must_use]
    pub fn kept(&self, now: UnixTime) -> ArrayVec<u64, 2> {
        let present = self.at(now);
        let inside = now.0 % self.length;
        let mut kept = ArrayVec::from_iter([present]);
        if inside < self.overlap() {
            kept.extend(present.checked_sub(1));
        } else if self.length - inside <= self.overlap() {
            kept.extend(present.checked_add(1));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_periods_are_kept_around_an_end() {
        let periods = Periods::default();
        let begin = 20_000 * 86_400;
        for (inside, expected) in [
            (0, &[20_000, 19_999][..]),
            (10_799, &[20_000, 19_999]),
            (10_800, &[20_000]),
            (75_599, &[20_000]),
            (75_600, &[20_000, 20_001]),
            (86_399, &[20_000, 20_001]),
        ] {
            let now = UnixTime(begin + inside);
            assert_eq!(&periods.kept(now)[..], expected, "{inside}");
            assert_eq!(periods.at(now), 20_000);
        }
    }

    #[test]
    fn any_length_and_time_will_do() {
        for length in [0, 1, 3, 4, 60, u64::MAX] {
            let periods = Periods::new(length);
            for now in [0, 1, 59, 60, u64::MAX - 1, u64::MAX] {
                let kept = periods.kept(UnixTime(now));
                assert_eq!(kept.first(), Some(&periods.at(UnixTime(now))));
            }
        }
        assert_eq!(&Periods::new(20).kept(UnixTime(4))[..], [0]);
        assert_eq!(&Periods::new(20).kept(UnixTime(15))[..], [0, 1]);
        assert_eq!(&Periods::new(20).kept(UnixTime(21))[..], [1, 0]);
    }
}
