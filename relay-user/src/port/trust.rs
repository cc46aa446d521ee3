//! Whether an XDP port is to be trusted: that what arrives does so whole, that every queue is heard,
//! and that the kernel still gets its part.
//!
//! A driver may grant everything and be deaf all the same: a card that receives into buffers of 1024
//! bytes cuts every datagram of ours, and the host's own traffic with it. Nothing says so but what
//! is counted. So the counts are looked at from the moment when the program is attached
//! and for as long as it is. Each fault has one shape: something goes on and on, and what should come
//! of it does not ([`Silence`]).

use std::fmt;
use std::time::{Duration, Instant};

/// How often the counts are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Cut frames, without a whole one of full size among them ...
const CUT: u64 = 3;
/// ... if it stays so for this long.
const CUT_FOR: Duration = Duration::from_secs(1);
/// Frames that a queue's socket was given, and none of which came out ...
const GIVEN: u64 = 32;
/// ... if it stays so for this long.
const DEAF_FOR: Duration = Duration::from_secs(1);
/// Packets to this host that were passed to the kernel, and none of which it has seen ...
const PASSED: u64 = 32;
/// ... if it stays so for this long, although the directory was asked meanwhile.
const LOST_FOR: Duration = Duration::from_secs(5);
/// After so many whole frames, a port is known to work.
const ENOUGH: u64 = 16;

/// The counts of one moment, all since the program was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames for us that ended before their IP packet did.
    pub cut: u64,
    /// Frames with a whole IP packet of full size.
    pub whole: u64,
    /// Frames that the program gave to each queue's socket.
    pub given: Vec<u64>,
    /// Frames that came out of each queue's socket.
    pub taken: Vec<u64>,
    /// Packets to this host that the program passed to the kernel.
    pub passed: u64,
    /// Packets that the kernel has seen from any card; none if it does not say.
    pub seen: Option<Seen>,
}

/// Packets that the kernel has seen from any card. It is a difference of two counters that cannot be
/// read at once, so it is known within bounds only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// At least so many.
    pub least: u64,
    /// At most so many.
    pub most: u64,
}

/// Why a port is not trusted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Frames arrive cut.
    Cut {
        /// So many since the last whole one.
        cut: u64,
    },
    /// What goes to a queue's socket does not come out of it.
    Deaf {
        /// The queue.
        queue: usize,
        /// So many frames since the last that did.
        given: u64,
    },
    /// What is passed to the kernel does not reach it.
    Lost {
        /// So many packets since the last that did.
        passed: u64,
    },
    /// The interface is not there any more.
    Gone,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { cut } => write!(
                f,
                "{cut} frames arrived cut and none of full size whole: the driver's receive buffers \
                 are too small under XDP (`xdp_frame_bytes: 4096` gives it the largest), or the MTU \
                 is too large"
            ),
            Self::Deaf { queue, given } => write!(
                f,
                "{given} frames went to the socket of queue {queue} and none came out: the driver \
                 does not serve it"
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

/// Something goes on, and what should come of it does not.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    /// The cause's count when the effect was last seen to move.
    cause: u64,
    /// Since when the cause has moved far enough from there.
    since: Option<Instant>,
}

impl Silence {
    /// Takes in the cause's count and whether the effect has moved since the last look. Gives how far
    /// the cause has come without it, once that is at least `enough` and has stayed so `for_long`.
    fn look(
        &mut self,
        cause: u64,
        moved: bool,
        enough: u64,
        for_long: Duration,
        now: Instant,
    ) -> Option<u64> {
        if moved {
            *self = Self { cause, since: None };
        }
        let far = cause.saturating_sub(self.cause);
        if far < enough {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        (now.saturating_duration_since(since) >= for_long).then_some(far)
    }
}

/// What is known of a port so far.
#[derive(Debug)]
pub struct Trust {
    /// The counts of the last look.
    last: Counts,
    /// Whole frames when the program was attached.
    whole: u64,
    cut: Silence,
    queues: Vec<Silence>,
    passed: Silence,
}

impl Trust {
    /// Of a port that was opened just now, with so many queues.
    #[must_use]
    pub fn new(counts: Counts, queues: usize) -> Self {
        let silence = |cause| Silence { cause, since: None };
        let given = |queue| counts.given.get(queue).copied().unwrap_or_default();
        Self {
            whole: counts.whole,
            cut: silence(counts.cut),
            queues: (0..queues).map(|queue| silence(given(queue))).collect(),
            passed: silence(counts.passed),
            last: counts,
        }
    }

    /// Whether full-sized frames have been seen to arrive.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.last.whole.saturating_sub(self.whole) >= ENOUGH
    }

    /// Whether the kernel has not been seen to receive what it was passed. Something that the kernel
    /// must receive is to be brought about then: an answer of the directory, say.
    #[must_use]
    pub fn needs_answer(&self) -> bool {
        self.passed.since.is_some()
    }

    /// Compares the counts of this moment with those of the last look.
    ///
    /// # Errors
    /// [`Doubt`], which is for good: the port is to be given up.
    pub fn look(&mut self, counts: Counts, now: Instant) -> Result<(), Doubt> {
        let whole = counts.whole > self.last.whole;
        if let Some(cut) = self.cut.look(counts.cut, whole, CUT, CUT_FOR, now) {
            return Err(Doubt::Cut { cut });
        }
        for (queue, silence) in self.queues.iter_mut().enumerate() {
            let of = |counts: &[u64]| counts.get(queue).copied().unwrap_or_default();
            let taken = of(&counts.taken) > of(&self.last.taken);
            let given = silence.look(of(&counts.given), taken, GIVEN, DEAF_FOR, now);
            if let Some(given) = given {
                return Err(Doubt::Deaf { queue, given });
            }
        }
        // What is not known is taken for good news.
        let seen = match (self.last.seen, counts.seen) {
            (Some(before), Some(seen)) => seen.most > before.least,
            _ => true,
        };
        if let Some(passed) = self.passed.look(counts.passed, seen, PASSED, LOST_FOR, now) {
            return Err(Doubt::Lost { passed });
        }
        self.last = counts;
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
            ..Counts::default()
        }
    }

    #[test]
    fn a_card_that_cuts_everything_is_found_out_within_two_seconds() {
        let start = Instant::now();
        let mut trust = Trust::new(counts(0, 0), 0);
        assert_eq!(trust.look(counts(2, 0), at(start, 250)), Ok(()));
        assert_eq!(trust.look(counts(2, 0), at(start, 5000)), Ok(()));
        assert_eq!(trust.look(counts(3, 0), at(start, 5250)), Ok(()));
        assert_eq!(trust.look(counts(4, 0), at(start, 6000)), Ok(()));
        assert_eq!(
            trust.look(counts(5, 0), at(start, 6250)),
            Err(Doubt::Cut { cut: 5 })
        );
        assert!(!trust.is_proven());
    }

    #[test]
    fn cut_frames_among_whole_ones_are_no_reason_and_a_card_that_begins_to_cut_is() {
        let start = Instant::now();
        let mut trust = Trust::new(counts(0, 0), 0);
        // Somebody on the same cable sends ten thousand cut ones a second; a whole one comes now and
        // then.
        for step in 1..100 {
            let seen = counts(2500 * step, step / 3);
            assert_eq!(trust.look(seen, at(start, 250 * step)), Ok(()), "{step}");
        }
        assert!(trust.is_proven());
        assert_eq!(trust.look(counts(250_100, 33), at(start, 25_000)), Ok(()));
        assert!(trust.look(counts(250_200, 33), at(start, 26_000)).is_err());
    }

    #[test]
    fn a_queue_of_which_nothing_comes_is_deaf_however_slowly_and_an_idle_or_late_one_is_not() {
        let start = Instant::now();
        let with = |given: [u64; 2], taken: [u64; 2]| Counts {
            given: given.into(),
            taken: taken.into(),
            ..Counts::default()
        };
        let mut trust = Trust::new(with([0, 0], [0, 0]), 2);
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
        let mut trust = Trust::new(with([0, 0], [0, 0]), 2);
        for step in 1..=31 {
            // One frame a minute to the queue of which nothing comes.
            let seen = with([1000 * step, step], [1000 * step, 0]);
            assert_eq!(trust.look(seen, at(start, 60_000 * step)), Ok(()));
        }
        let seen = |given| with([40_000, given], [40_000, 0]);
        assert_eq!(trust.look(seen(32), at(start, 60_000 * 32)), Ok(()));
        assert_eq!(
            trust.look(seen(33), at(start, 60_000 * 33)),
            Err(Doubt::Deaf {
                queue: 1,
                given: 33
            })
        );
    }

    #[test]
    fn a_driver_that_loses_what_is_passed_is_found_out_if_nothing_at_all_comes() {
        let start = Instant::now();
        let with = |passed, least, most| Counts {
            passed,
            seen: Some(Seen { least, most }),
            ..Counts::default()
        };
        let mut trust = Trust::new(with(0, 10, 10), 0);
        assert_eq!(trust.look(with(31, 10, 10), at(start, 250)), Ok(()));
        assert!(!trust.needs_answer());
        assert_eq!(trust.look(with(32, 10, 10), at(start, 500)), Ok(()));
        assert!(trust.needs_answer());
        // An answer came: it is some filter's doing.
        assert_eq!(trust.look(with(5000, 11, 11), at(start, 4000)), Ok(()));
        assert!(!trust.needs_answer());
        assert_eq!(trust.look(with(5032, 11, 11), at(start, 4250)), Ok(()));
        assert_eq!(trust.look(with(5033, 11, 11), at(start, 9000)), Ok(()));
        assert_eq!(
            trust.look(with(5040, 11, 11), at(start, 9250)),
            Err(Doubt::Lost { passed: 40 })
        );
        // Within what is known of it, it may have moved; or nothing is known.
        let mut trust = Trust::new(with(0, 10, 300), 0);
        for step in 1..50 {
            assert_eq!(
                trust.look(with(99 * step, 10, 11), at(start, 1000 * step)),
                Ok(())
            );
        }
        let unknown = |passed| Counts {
            passed,
            ..Counts::default()
        };
        let mut trust = Trust::new(unknown(0), 0);
        for step in 1..50 {
            assert_eq!(
                trust.look(unknown(99 * step), at(start, 1000 * step)),
                Ok(())
            );
        }
    }

    #[test]
    fn a_relay_that_was_stopped_for_a_while_is_not_doubted() {
        let start = Instant::now();
        let with = |given, taken| Counts {
            given: vec![given],
            taken: vec![taken],
            ..Counts::default()
        };
        let mut trust = Trust::new(with(0, 0), 1);
        assert_eq!(trust.look(with(10, 10), at(start, 250)), Ok(()));
        // The control plane runs before the worker does.
        assert_eq!(trust.look(with(5000, 10), at(start, 3_600_000)), Ok(()));
        assert_eq!(trust.look(with(5000, 2058), at(start, 3_600_250)), Ok(()));
        assert_eq!(trust.look(with(5000, 2058), at(start, 3_700_000)), Ok(()));
        assert!(trust.look(with(5001, 2059), at(start, 3_700_250)).is_ok());
    }
}
