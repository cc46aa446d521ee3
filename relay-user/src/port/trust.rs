//! Whether an XDP port is to be trusted: that what arrives does so whole, that every queue is heard,
//! and that the kernel still gets its part.
//!
//! A driver may grant everything and be deaf all the same: a card that receives into buffers of 1024
//! bytes cuts every datagram of ours, and the host's own traffic with it. Nothing says so but what
//! is counted. So the counts are looked at from the moment when the program is attached
//! and for as long as it is; [`Trust::look`] compares them with what they were before.

use std::fmt;
use std::time::{Duration, Instant};

/// How often the counts are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Counts are compared over windows of this length.
const WINDOW: Duration = Duration::from_secs(10);
/// So many frames that are cut are no accident when none is whole ...
const CUT_ALONE: u64 = 3;
/// ... and so many when they are more than those that are whole.
const CUT_AMONG_WHOLE: u64 = 16;
/// So many frames that a queue was given, and none of which came out, are a deaf queue ...
const GIVEN: u64 = 32;
/// ... if it stays so for this long after that.
const DEAF_FOR: Duration = Duration::from_secs(1);
/// So many packets to this host that were passed, and none of which its kernel has seen, are a driver
/// that loses what is passed.
const PASSED: u64 = 32;
/// After so many whole frames, a port is known to work.
const ENOUGH: u64 = 16;

/// The counts of one moment, all since the program was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that ended before their IP packet did.
    pub cut: u64,
    /// Frames with a whole IP packet of full size.
    pub whole: u64,
    /// Frames that the program gave to each queue's socket.
    pub given: Vec<u64>,
    /// Frames that came out of each queue's socket.
    pub taken: Vec<u64>,
    /// Packets to this host that the program passed to the kernel.
    pub passed: u64,
    /// Packets that the kernel has seen from any card.
    pub seen: u64,
}

/// Why a port is not trusted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Frames arrive cut.
    Cut {
        /// So many.
        cut: u64,
        /// And so many whole ones of full size.
        whole: u64,
    },
    /// What goes to a queue's socket does not come out of it.
    Deaf {
        /// The queue.
        queue: usize,
        /// So many frames.
        given: u64,
    },
    /// What is passed to the kernel does not reach it.
    Lost {
        /// So many packets.
        passed: u64,
    },
    /// The interface is not there any more, or is another.
    Gone,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { cut, whole } => write!(
                f,
                "{cut} frames arrived cut and {whole} whole: the driver's receive buffers are too \
                 small under XDP (`xdp_frame_bytes: 4096` gives it the largest), or the MTU is too \
                 large"
            ),
            Self::Deaf { queue, given } => write!(
                f,
                "{given} frames went to the socket of queue {queue} and none came out: the queue \
                 belongs to another interface (of a bond, a bridge or a VLAN, XDP is for the card \
                 below), or the driver does not serve it"
            ),
            Self::Lost { passed } => write!(
                f,
                "{passed} packets were passed to the kernel and none reached it: the driver loses \
                 what XDP passes"
            ),
            Self::Gone => f.write_str("the interface is gone"),
        }
    }
}

/// What is known of a port so far.
#[derive(Debug)]
pub struct Trust {
    /// The beginning of the window.
    since: Instant,
    /// The counts then.
    before: Counts,
    /// Since when each queue has been given enough without a frame coming out.
    silent: Vec<Option<Instant>>,
    /// Whole frames since the program was attached.
    whole: u64,
}

impl Trust {
    /// Of a port that was opened just now.
    #[must_use]
    pub fn new(counts: Counts, now: Instant) -> Self {
        Self {
            since: now,
            silent: vec![None; counts.given.len()],
            before: counts,
            whole: 0,
        }
    }

    /// Whether full-sized frames have been seen to arrive.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.whole >= ENOUGH
    }

    /// Compares the counts of this moment with those of the window's beginning.
    ///
    /// # Errors
    /// [`Doubt`], which is for good: the port is to be given up.
    pub fn look(&mut self, counts: Counts, now: Instant) -> Result<(), Doubt> {
        let cut = counts.cut.saturating_sub(self.before.cut);
        let whole = counts.whole.saturating_sub(self.before.whole);
        if (cut >= CUT_ALONE && whole == 0) || (cut >= CUT_AMONG_WHOLE && cut > whole) {
            return Err(Doubt::Cut { cut, whole });
        }
        let passed = counts.passed.saturating_sub(self.before.passed);
        if passed >= PASSED && counts.seen <= self.before.seen {
            return Err(Doubt::Lost { passed });
        }
        for (queue, silent) in self.silent.iter_mut().enumerate() {
            let of = |counts: &[u64]| counts.get(queue).copied().unwrap_or_default();
            let given = of(&counts.given).saturating_sub(of(&self.before.given));
            if given < GIVEN || of(&counts.taken) != of(&self.before.taken) {
                *silent = None;
                continue;
            }
            let since = *silent.get_or_insert(now);
            if now.saturating_duration_since(since) >= DEAF_FOR {
                return Err(Doubt::Deaf { queue, given });
            }
        }
        self.whole = self.whole.max(whole);
        let quiet = self.silent.iter().all(Option::is_none);
        if quiet && now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.before = counts;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn counts(cut: u64, whole: u64) -> Counts {
        Counts {
            cut,
            whole,
            given: vec![0, 0],
            taken: vec![0, 0],
            ..Counts::default()
        }
    }

    #[test]
    fn a_card_that_cuts_everything_is_found_out_at_the_third_frame() {
        let start = Instant::now();
        let mut trust = Trust::new(counts(0, 0), start);
        assert_eq!(trust.look(counts(2, 0), at(start, 250)), Ok(()));
        assert_eq!(
            trust.look(counts(3, 0), at(start, 500)),
            Err(Doubt::Cut { cut: 3, whole: 0 })
        );
        assert!(!trust.is_proven());
    }

    #[test]
    fn some_cut_frames_among_many_whole_ones_are_no_reason() {
        let start = Instant::now();
        let mut trust = Trust::new(counts(0, 0), start);
        for step in 1..100 {
            let seen = counts(step, 2 * step);
            assert_eq!(trust.look(seen, at(start, 250 * step)), Ok(()), "{step}");
        }
        assert!(trust.is_proven());
        // One that begins to cut later, as after a change of its rings, is found out too.
        let before = counts(99, 198);
        let mut trust = Trust::new(before, start);
        assert!(
            trust
                .look(counts(99 + 30, 198 + 5), at(start, 250))
                .is_err()
        );
    }

    #[test]
    fn a_queue_of_which_nothing_comes_is_deaf_and_an_idle_or_slow_one_is_not() {
        let start = Instant::now();
        let with = |given: [u64; 2], taken: [u64; 2]| Counts {
            given: given.into(),
            taken: taken.into(),
            ..Counts::default()
        };
        let mut trust = Trust::new(with([0, 0], [0, 0]), start);
        assert_eq!(
            trust.look(with([500, 31], [400, 0]), at(start, 5000)),
            Ok(())
        );
        assert_eq!(
            trust.look(with([500, 40], [400, 0]), at(start, 5250)),
            Ok(())
        );
        // It was only late.
        assert_eq!(
            trust.look(with([500, 60], [400, 60]), at(start, 6500)),
            Ok(())
        );
        let mut trust = Trust::new(with([0, 0], [0, 0]), start);
        assert_eq!(
            trust.look(with([500, 40], [400, 0]), at(start, 250)),
            Ok(())
        );
        assert_eq!(
            trust.look(with([900, 50], [800, 0]), at(start, 1300)),
            Err(Doubt::Deaf {
                queue: 1,
                given: 50
            })
        );
    }

    #[test]
    fn a_driver_that_loses_what_is_passed_is_found_out() {
        let start = Instant::now();
        let with = |passed, seen| Counts {
            passed,
            seen,
            ..Counts::default()
        };
        let mut trust = Trust::new(with(0, 10), start);
        assert_eq!(trust.look(with(31, 10), at(start, 250)), Ok(()));
        assert_eq!(trust.look(with(40, 11), at(start, 500)), Ok(()));
        let mut trust = Trust::new(with(0, 10), start);
        assert_eq!(
            trust.look(with(32, 10), at(start, 250)),
            Err(Doubt::Lost { passed: 32 })
        );
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let start = Instant::now();
        let mut trust = Trust::new(counts(0, 0), start);
        for minute in 1..100 {
            // Two a minute, from somebody on the same cable.
            assert_eq!(
                trust.look(counts(2 * minute, 0), at(start, 60_000 * minute)),
                Ok(())
            );
        }
    }
}
