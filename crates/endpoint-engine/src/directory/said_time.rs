//! The time that is told to others: in initiations, certificates and own records.
//!
//! A host's clock is its own: one that is three minutes late would be known by that under whatever ID it
//! speaks. So what is said is not the host's time. It is that of the newest snapshot, which all hosts have,
//! with what has passed since; snapshots say when they were signed, so the latest that anyone can know by them
//! counts. Each ID is behind that by a time of its own, which follows from its secret and stays the same over
//! restarts: what is said by one ID tells nothing of another's. And it is coarse, since how fast a clock runs
//! is seen in milliseconds, too (Murdoch, "Hot or not", 2006).
//!
//! Snapshots of several directories are minutes apart. With what has passed since a host got one, it would say
//! when in a round that was, under all its IDs. So time goes on in whole rounds there: whoever has a
//! snapshot says the same as all others that have it.
//!
//! When the directories have not agreed for long, a host that starts gets a snapshot that is old, and nobody would
//! take what it says by that. Only then, and until there is another snapshot, its clock says how many
//! rounds have passed.
//!
//! Times of one ID never go back, but for snapshots of a directory whose own clock was wrong, and for a clock that
//! had to be asked.

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use mixline_protocol::identity::IdentityKey;
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;
use rand_core::SeedableRng;

use crate::clock::Now;
use crate::random::below;

/// An ID is behind by less than so much, milliseconds: by far more than hosts differ in when they get a
/// snapshot, and a tenth of what responders put up with.
pub const MOST_BEHIND: u64 = 60_000;
/// What is said is a multiple of this, milliseconds.
pub const UNIT: u64 = 2_000;
/// Where there are several directories, time goes on in steps of this, milliseconds: a round.
pub const ROUND: u64 = 300_000;
/// The first snapshot was signed so long ago, as far as the clock knows, milliseconds, only if the directories have not
/// agreed since. What is said by it is still early enough for responders, with all that may be added.
const NO_NEWS: u64 = 400_000;

const _: () = assert!(
    ROUND < NO_NEWS
        && NO_NEWS + MOST_BEHIND + 60_000 < mixline_protocol::session::TIMESTAMP_TOLERANCE_MS
);

/// The time, as far as snapshots tell.
#[derive(Debug, Default)]
pub struct NetworkTime {
    known: Option<Known>,
}

/// What a snapshot tells.
#[derive(Debug)]
struct Known {
    /// When it was known ...
    at: Instant,
    /// ... that it was so late, milliseconds.
    time: u64,
    /// It goes on in steps of so much, milliseconds.
    step: u64,
    /// How old it was by the clock, milliseconds, if it is the first.
    age: u64,
}

impl NetworkTime {
    /// There is a new snapshot.
    pub fn learn(&mut self, snapshot: &Snapshot, now: Now) {
        let millis = |time: UnixTime| time.0.saturating_mul(1000);
        let (issued, until) = (millis(snapshot.issued), millis(snapshot.valid_until));
        let several = snapshot.roster != 0;
        let step = if several { ROUND } else { 1 };
        let valid = (issued..until).contains(&now.unix_ms);
        let age = if several && valid && self.known.is_none() {
            now.unix_ms.saturating_sub(issued)
        } else {
            0
        };
        if let Some(known) = &mut self.known {
            // Directories agree, and the clock need not be asked.
            known.age = 0;
        }
        // Where it would be over already, those before were signed under a clock that was ahead.
        if self.known.is_none() || !(issued..until).contains(&self.at(now)) {
            self.known = Some(Known {
                at: now.instant,
                time: issued,
                step,
                age,
            });
        }
    }

    /// Milliseconds since 1970; the host's clock as long as there was no snapshot.
    fn at(&self, now: Now) -> u64 {
        self.known
            .as_ref()
            .map_or(now.unix_ms, |known| known.at(now))
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

impl Known {
    fn at(&self, now: Now) -> u64 {
        let passed = now.instant.saturating_duration_since(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let by_clock = passed.saturating_add(self.age);
        let passed = if by_clock < NO_NEWS { passed } else { by_clock };
        self.time.saturating_add(passed / self.step * self.step)
    }
}

/// By how much an ID is behind: for ever the same, and known to nobody else.
#[must_use]
pub fn behind(key: &IdentityKey) -> Duration {
    let mut rng = ChaCha20Rng::from_seed(*key.seed());
    Duration::from_millis(below(MOST_BEHIND, &mut rng))
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::snapshots::{VALID, snapshot};

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
        let made = |at: u64| snapshot(UnixTime(1_000_000 + at), 600, false);
        time.learn(&made(5000), now(start, 0, 0));
        time.learn(&made(10), now(start, 10_000, 0));
        assert_eq!(time.at(now(start, 11_000, 0)), 1_000_011_000);
    }

    /// When a round is published, milliseconds since 1970.
    const FIRST: u64 = 1_800_000_000_000;
    fn round(number: u64) -> Snapshot {
        snapshot(UnixTime((FIRST + number * ROUND) / 1000), VALID, true)
    }

    /// A host whose clock is ahead by so much and that has got each of these rounds so many milliseconds
    /// after it was published.
    struct Host {
        start: Instant,
        ahead: i64,
        time: NetworkTime,
    }

    impl Host {
        fn new(ahead: i64) -> Self {
            let (start, time) = (Instant::now(), NetworkTime::default());
            Self { start, ahead, time }
        }

        /// So many milliseconds after the first round.
        fn moment(&self, passed: u64) -> Now {
            now(
                self.start,
                passed,
                (FIRST + passed).saturating_add_signed(self.ahead),
            )
        }

        fn gets(&mut self, number: u64, after: u64) {
            let now = self.moment(number * ROUND + after);
            self.time.learn(&round(number), now);
        }

        /// What it takes the time for, in milliseconds after the first round.
        fn says(&self, passed: u64) -> u64 {
            self.time.at(self.moment(passed)) - FIRST
        }
    }

    #[test]
    fn when_in_a_round_a_host_got_its_snapshot_is_not_seen() {
        for ahead in [-240_000, -1000, 0, 55_000, 90_000] {
            for after in [0, 1000, 60_000, 200_000, 299_000] {
                let mut host = Host::new(ahead);
                host.gets(0, after);
                assert_eq!(host.says(after), 0);
                assert_eq!(host.says(ROUND - 1), 0, "{ahead} {after}");
                host.gets(1, 5_000);
                assert_eq!(host.says(2 * ROUND - 1), ROUND);
                // A round in which the directories have not agreed.
                assert_eq!(host.says(2 * ROUND + 5_000), 2 * ROUND);
                host.gets(3, 5_000);
                assert_eq!(host.says(4 * ROUND - 1), 3 * ROUND);
            }
        }
    }

    #[test]
    fn who_starts_while_the_directories_do_not_agree_is_not_late_for_others() {
        for after in (0..VALID * 1000).step_by(7_000) {
            let mut host = Host::new(0);
            host.gets(0, after);
            for passed in (after..after + 2 * ROUND).step_by(10_000) {
                let late = passed - host.says(passed);
                assert!(late < NO_NEWS, "{late} at {passed}, since {after}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_ahead_counts_until_there_is_another_snapshot_and_no_longer() {
        let mut host = Host::new(3_600_000);
        host.gets(0, 100_000);
        assert!(host.says(100_000) > 0);
        host.gets(1, 5_000);
        assert_eq!(host.says(ROUND + 5_000), ROUND);
    }

    #[test]
    fn a_clock_by_which_the_snapshot_is_over_counts_for_nothing() {
        let mut host = Host::new(3 * 3600 * 1000);
        host.gets(0, 100_000);
        assert_eq!(host.says(100_000), 0);
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
                let made = snapshot(UnixTime((right - late) / 1000), 600, false);
                time.learn(&made, now(start, passed, wall));
                latest = latest.min(late + 999);
                let said = time.said(behind, now(start, passed, wall)).unix_ms;
                prop_assert!(said >= last && said % UNIT == 0);
                prop_assert!(said <= right);
                prop_assert!(right - said <= latest + MOST_BEHIND + UNIT);
                last = said;
            }
        }

        /// With several directories, whatever the host's clock shows once there were two rounds.
        #[test]
        fn by_rounds_it_is_late_by_a_round_at_most_and_never_goes_back(
            steps in prop::collection::vec((0u64..90_000, any::<bool>(), any::<i32>()), 1..80),
            before in 0..ROUND,
        ) {
            let mut host = Host::new(0);
            host.gets(0, before);
            let (mut passed, mut last, mut newest, mut late) = (ROUND, 0, 0, 0);
            for (step, misses, ahead) in steps {
                passed += step;
                host.ahead = ahead.into();
                if newest < passed / ROUND && (!misses || newest == 0) {
                    newest = passed / ROUND;
                    late = passed % ROUND;
                    host.gets(newest, late);
                }
                let said = host.says(passed);
                prop_assert!(said >= last && said <= passed);
                prop_assert!(passed - said <= ROUND + late, "{said} at {passed}");
                last = said;
            }
        }
    }
}
