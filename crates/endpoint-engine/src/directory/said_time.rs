//! The time that is told to others: in initiations, certificates and own records.
//!
//! A host's clock is its own: one that is three minutes late would be known by that under whatever ID it
//! speaks. So what is said is not the host's time. It is that of the newest snapshot, which all hosts have,
//! with what has passed since; snapshots say when they were signed, so the latest that anyone can know by them
//! counts. Each ID is behind that by a time of its own, which follows from its secret and stays the same over
//! restarts: what is said by one ID tells nothing of another's. And it is coarse, since how fast a clock runs
//! is seen in milliseconds, too (Murdoch, "Hot or not", 2006).
//!
//! Times of one ID never go back, but for snapshots of a directory whose own clock was wrong.

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use mixline_protocol::identity::IdentityKey;
use mixline_protocol::time::UnixTime;
use rand_core::SeedableRng;

use crate::clock::Now;
use crate::random::below;

/// An ID is behind by less than so much, milliseconds: by far more than hosts differ in when they get a
/// snapshot, and a tenth of what responders put up with.
pub const MOST_BEHIND: u64 = 60_000;
/// What is said is a multiple of this, milliseconds.
pub const UNIT: u64 = 2_000;

/// The time, as far as snapshots tell.
#[derive(Debug, Default)]
pub struct NetworkTime {
    /// The moment at which it was so late, milliseconds.
    known: Option<(Instant, u64)>,
}

impl NetworkTime {
    /// There is a new snapshot, signed at `issued`, which is valid until `until`.
    pub fn learn(&mut self, issued: UnixTime, until: UnixTime, now: Now) {
        let issued = issued.0.saturating_mul(1000);
        let until = until.0.saturating_mul(1000);
        // Where it would be over already, those before were signed under a clock that was ahead.
        if self.known.is_none() || !(issued..until).contains(&self.at(now)) {
            self.known = Some((now.instant, issued));
        }
    }

    /// Milliseconds since 1970; the host's clock as long as there was no snapshot.
    fn at(&self, now: Now) -> u64 {
        self.known.map_or(now.unix_ms, |(at, time)| {
            let passed = now.instant.saturating_duration_since(at).as_millis();
            time.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
        })
    }

    /// What an ID says that the time is.
    #[must_use]
    pub fn said(&self, behind: Duration, now: Now) -> Now {
        let behind = u64::try_from(behind.as_millis()).unwrap_or(u64::MAX);
        let time = self.at(now).saturating_sub(behind);
        Now {
            instant: now.instant,
            unix_ms: time / UNIT * UNIT,
        }
    }
}

/// By how much an ID is behind: for ever the same, and known to nobody else.
#[must_use]
pub fn behind(key: &IdentityKey) -> Duration {
    let mut rng = ChaCha20Rng::from_seed(*key.seed());
    Duration::from_millis(below(MOST_BEHIND, &mut rng))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now(start: Instant, passed: u64, wall: u64) -> Now {
        Now {
            instant: start + Duration::from_millis(passed),
            unix_ms: wall,
        }
    }

    #[test]
    fn ids_are_behind_by_any_time_and_always_by_the_same() {
        let mut thirds = [0; 3];
        for number in 0..=255 {
            let of = |number| behind(&IdentityKey::from_seed([number; 32]));
            assert_eq!(of(number), of(number));
            let at = of(number).as_millis() * 3 / u128::from(MOST_BEHIND);
            thirds[usize::try_from(at).unwrap()] += 1;
        }
        assert!(
            thirds.iter().all(|count| (60..=110).contains(count)),
            "{thirds:?}"
        );
    }

    #[test]
    fn a_directory_that_was_ahead_is_followed_back() {
        let (mut time, start) = (NetworkTime::default(), Instant::now());
        let second = |at: u64| UnixTime(1_000_000 + at);
        time.learn(second(5000), second(5600), now(start, 0, 0));
        time.learn(second(10), second(610), now(start, 10_000, 0));
        assert_eq!(time.at(now(start, 11_000, 0)), 1_000_011_000);
    }

    proptest! {
        /// Whatever the host's clock shows, and however late snapshots come.
        #[test]
        fn what_is_said_is_late_by_little_and_never_goes_back(
            steps in prop::collection::vec((0u64..90_000, 0u64..20_000, any::<u64>()), 1..50),
            seed: [u8; 32],
        ) {
            let start = Instant::now();
            let behind = behind(&IdentityKey::from_seed(seed));
            let (mut time, mut passed, mut last) = (NetworkTime::default(), 0, 0);
            let mut latest = u64::MAX;
            for (step, late, wall) in steps {
                passed += step;
                let right = 1_800_000_000_000 + passed;
                let issued = UnixTime((right - late) / 1000);
                time.learn(issued, issued.plus(600), now(start, passed, wall));
                latest = latest.min(late + 999);
                let said = time.said(behind, now(start, passed, wall)).unix_ms;
                prop_assert!(said >= last && said % UNIT == 0);
                prop_assert!(said <= right);
                prop_assert!(right - said <= latest + MOST_BEHIND + UNIT);
                last = said;
            }
        }
    }
}
