//! What effort a responder suggests: as much as keeps the queue short, and none in quiet times.
//!
//! The loop is that of Tor's proposal 327 (section 3.4), with a second for its period: where initiations had to give way
//! to better ones, the suggestion is doubled, and is at least what those that were served had on average; where few
//! waited, it falls by a third.

use super::effort::{MAX_EFFORT, MIN_EFFORT};
use crate::effort::Effort;
use std::time::{Duration, Instant};

/// How often the suggestion changes.
const PERIOD: Duration = Duration::from_secs(1);

/// The suggestion, and what has happened since it last changed.
#[derive(Debug, Clone, Default)]
pub struct EffortMeter {
    suggested: Effort,
    since: Option<Instant>,
    served: u64,
    effort: u64,
    gave_way: bool,
}

impl EffortMeter {
    /// What whoever asks now had better do: 0, or between [`MIN_EFFORT`] and [`MAX_EFFORT`].
    #[must_use]
    pub fn suggested(&self) -> Effort {
        self.suggested
    }

    /// An initiation was served.
    pub fn served(&mut self, effort: Effort) {
        self.served += 1;
        self.effort += u64::from(effort.min(MAX_EFFORT));
    }

    /// One with this effort had to give way to another one. Who has made less than was suggested raises nothing:
    /// whoever heeds the suggestion is before him already.
    pub fn gave_way(&mut self, effort: Effort) {
        self.gave_way |= effort >= self.suggested;
    }

    /// Who counts when it is asked whether few wait: those that have made this effort.
    #[must_use]
    pub fn matters(&self) -> Effort {
        if self.suggested <= MIN_EFFORT {
            // To suggest none takes a queue without those who have made none, too.
            0
        } else {
            self.suggested / 2
        }
    }

    /// Lets time pass; `few`: whether few wait now who [matter](Self::matters).
    pub fn tick(&mut self, few: bool, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PERIOD {
            return;
        }
        if self.gave_way {
            let mean = self.effort.checked_div(self.served).unwrap_or(0);
            let mean = Effort::try_from(mean).unwrap_or(MAX_EFFORT);
            let more = self.suggested.saturating_mul(2).max(mean);
            self.suggested = more.clamp(MIN_EFFORT, MAX_EFFORT);
        } else if few {
            let less = self.suggested / 3 * 2;
            self.suggested = if less < MIN_EFFORT { 0 } else { less };
        }
        *self = Self {
            suggested: self.suggested,
            since: Some(now),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_follows_what_gives_way() {
        let (mut meter, mut now) = (EffortMeter::default(), Instant::now());
        let mut second = |meter: &mut EffortMeter, gave_way: bool, few: bool| {
            meter.tick(few, now);
            if gave_way {
                meter.gave_way(MAX_EFFORT);
            }
            now += PERIOD;
            meter.tick(few, now);
            meter.suggested()
        };
        assert_eq!(second(&mut meter, false, true), 0);
        assert_eq!(second(&mut meter, true, false), MIN_EFFORT);
        assert_eq!(second(&mut meter, true, false), 2 * MIN_EFFORT);
        // Neither more nor less while the queue is as it should be.
        assert_eq!(second(&mut meter, false, false), 2 * MIN_EFFORT);
        // At once as much as the others do.
        meter.served(1 << 16);
        assert_eq!(second(&mut meter, true, false), 1 << 16);
        for _ in 0..10 {
            second(&mut meter, true, false);
        }
        assert_eq!(meter.suggested(), MAX_EFFORT);
        // Those who make less raise nothing, and do not keep it up.
        let mut other = EffortMeter {
            suggested: 1 << 16,
            ..EffortMeter::default()
        };
        other.gave_way(1 << 15);
        assert!(!other.gave_way && other.matters() == 1 << 15);
        // Quiet again: nobody pays soon.
        let quiet = (0..).take_while(|_| second(&mut meter, false, true) > 0);
        assert!(quiet.count() < 20);
    }
}
