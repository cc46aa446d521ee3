//! The seeds of the puzzles that this endpoint has published. Each is good as long as a descriptor that has
//! it, so whoever knows a descriptor that has not ended can solve one; and nobody can compute further ahead.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::effort::{SEED, Seed};
use rand_core::CryptoRng;

/// So long a seed is written into new descriptors.
pub const SEED_LIFE: Duration = Duration::from_secs(3600);
/// So much longer it is good than its last descriptor: clocks differ, and what was sent is on its way.
const GRACE: Duration = Duration::from_secs(600);
/// Those that can be good at a time, with descriptors of two hours.
const MOST: usize = 4;

/// The seeds that are good, the newest last.
#[derive(Default)]
pub struct Seeds {
    good: ArrayVec<(Seed, Instant), MOST>,
    made: Option<Instant>,
}

impl Seeds {
    /// The seed of a descriptor that is signed now, and ends after `life`.
    pub fn for_descriptor(
        &mut self,
        life: Duration,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Seed {
        self.good.retain(|(_, until)| now < *until);
        let until = now + life + GRACE;
        if let Some((seed, last)) = self.good.last_mut()
            && !is_old(self.made, now)
        {
            *last = until.max(*last);
            return *seed;
        }
        let mut seed = [0; SEED];
        rng.fill_bytes(&mut seed);
        if self.good.is_full() {
            self.good.remove(0);
        }
        self.good.push((seed, until));
        self.made = Some(now);
        seed
    }

    /// Whether the next descriptor will have another seed than the last.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        is_old(self.made, now)
    }

    /// Those that are good, the newest first.
    pub fn good(&self, now: Instant) -> impl Iterator<Item = &Seed> {
        let good = self.good.iter().rev();
        good.filter(move |(_, until)| now < *until)
            .map(|(seed, _)| seed)
    }
}

fn is_old(made: Option<Instant>, now: Instant) -> bool {
    made.is_none_or(|made| now.saturating_duration_since(made) >= SEED_LIFE)
}

#[cfg(test)]
mod tests {
    use mixline_protocol::random::OsRandom;

    use super::*;

    #[test]
    fn a_seed_is_good_as_long_as_its_descriptors() {
        let (mut seeds, start, rng) = (Seeds::default(), Instant::now(), &mut OsRandom::new());
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let first = seeds.for_descriptor(minutes(120), start, rng);
        assert_eq!(
            seeds.for_descriptor(minutes(120), start + minutes(30), rng),
            first
        );
        let second = seeds.for_descriptor(minutes(120), start + minutes(60), rng);
        assert_ne!(second, first);
        let good = |at| seeds.good(start + minutes(at)).copied().collect::<Vec<_>>();
        assert_eq!(good(159), [second, first]);
        assert_eq!(good(160), [second]);
        assert!(good(190).is_empty());
    }

    #[test]
    fn there_are_few() {
        let (mut seeds, start, rng) = (Seeds::default(), Instant::now(), &mut OsRandom::new());
        for hour in 0..100 {
            let now = start + SEED_LIFE * hour;
            seeds.for_descriptor(Duration::from_secs(7200), now, rng);
            assert!(seeds.good(now).count() <= 3);
        }
    }
}
