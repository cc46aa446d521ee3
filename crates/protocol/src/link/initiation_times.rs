//! The times in the initiations of one static key.
//!
//! A responder drops an initiation that is not newer than the last of the same key, and looks at no
//! clock of its own for that. So whoever holds the key sees to it that its times grow: they are the
//! wall clock's, or later where that was set back. A client's key lives as long as its program. A
//! relay's outlives it, and so a time that is ahead of all that were used is written down: after a
//! restart it goes on from there, wherever the clock has gone meanwhile.

use super::handshake::Timestamp;

/// How far ahead times are set aside, seconds: as often something is to be stored at most.
pub const SET_ASIDE: u64 = 600;

/// The times of one static key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InitiationTimes {
    last: Timestamp,
    /// All times that were used are before this second.
    set_aside: u64,
    unstored: bool,
}

impl InitiationTimes {
    /// Of a key for which this was stored: unix seconds before which all its times were. None for a
    /// key that is new.
    #[must_use]
    pub fn new(stored: Option<u64>) -> Self {
        let seconds = stored.unwrap_or(0);
        Self {
            last: Timestamp { seconds, nanos: 0 },
            set_aside: seconds,
            unstored: false,
        }
    }

    /// The time of the next initiation.
    pub fn next(&mut self, wall: Timestamp) -> Timestamp {
        let at = wall.max(self.last.next());
        self.last = at;
        if at.seconds >= self.set_aside {
            self.set_aside = at.seconds.saturating_add(SET_ASIDE);
            self.unstored = true;
        }
        at
    }

    /// What is to be stored before the initiation is sent, if that has changed.
    pub fn to_store(&mut self) -> Option<u64> {
        std::mem::take(&mut self.unstored).then_some(self.set_aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp { seconds, nanos: 5 }
    }

    #[test]
    fn something_is_stored_now_and_then() {
        let mut times = InitiationTimes::new(None);
        let mut stored = 0;
        for second in 0..6000 {
            times.next(at(1_000_000 + second));
            stored += usize::from(times.to_store().is_some());
        }
        assert_eq!(stored, 10);
    }

    proptest! {
        #[test]
        fn times_grow_over_steps_of_the_clock_and_restarts(
            steps in proptest::collection::vec((0u64..10_000, any::<bool>()), 1..60)
        ) {
            let (mut times, mut stored, mut last) = (InitiationTimes::new(None), None, None);
            for (wall, restart) in steps {
                if restart {
                    times = InitiationTimes::new(stored);
                }
                let time = times.next(at(wall));
                stored = times.to_store().or(stored);
                prop_assert!(time.nanos < 1_000_000_000);
                prop_assert!(time >= at(wall));
                prop_assert!(last.is_none_or(|last| time > last), "{time:?} after {last:?}");
                last = Some(time);
            }
        }
    }
}
