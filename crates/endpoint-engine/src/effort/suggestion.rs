//! How much effort is suggested: a control loop after that of Tor's proposal 327, section 5.3.
//!
//! It rises when somebody was turned away who has spent what is suggested: because too many wait, or because
//! a table is full. It falls when nobody had to wait for a while. In between it stays: those who spend less wait
//! for what is left over, and would be the next to be served if it fell.

use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;

use super::MOST_EFFORT;

/// What is suggested at least, if anything: half a millisecond of one core.
pub const LEAST: Effort = 1 << 12;
/// It rises once in so long at most.
pub const RISES_EVERY: Duration = Duration::from_secs(1);
/// It falls to the half when nobody had to wait for so long.
pub const FALLS_AFTER: Duration = Duration::from_secs(15);

/// The suggested effort: 0, or a power of two.
pub struct Suggestion {
    current: Effort,
    /// The most effort of those that were turned away since it rose last.
    turned_away: Option<Effort>,
    /// When it rose last, and so rises next at the earliest a little later.
    rose: Option<Instant>,
    /// Since when nobody has waited, or it has fallen last.
    calm: Instant,
}

impl Suggestion {
    /// Nothing is suggested.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            current: 0,
            turned_away: None,
            rose: None,
            calm: now,
        }
    }

    /// What is suggested.
    #[must_use]
    pub fn current(&self) -> Effort {
        self.current
    }

    /// Somebody has to wait.
    pub fn waits(&mut self, now: Instant) {
        self.calm = now;
    }

    /// Somebody with so much effort was not served, or has lost a place to somebody else.
    pub fn turned_away(&mut self, effort: Effort, now: Instant) {
        self.calm = now;
        if effort >= self.current {
            self.turned_away = self.turned_away.max(Some(effort));
        }
    }

    /// Time has passed, or something has happened.
    pub fn update(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.rose.is_none_or(|at| since(at) >= RISES_EVERY)
            && let Some(effort) = self.turned_away.take()
        {
            // Above what was not enough.
            let above = effort.min(MOST_EFFORT - 1) + 1;
            let next = above.next_power_of_two().max(2 * self.current);
            self.current = next.clamp(LEAST, MOST_EFFORT);
            self.rose = Some(now);
        }
        if since(self.calm) >= FALLS_AFTER {
            self.calm = now;
            self.current = match self.current / 2 {
                half if half < LEAST => 0,
                half => half,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_rises_above_what_was_turned_away_and_falls_when_nobody_waits() {
        let mut now = Instant::now();
        let mut suggestion = Suggestion::new(now);
        let mut step = |efforts: &[Effort], seconds: u32| {
            for effort in efforts {
                suggestion.turned_away(*effort, now);
            }
            now += SECOND * seconds;
            suggestion.update(now);
            suggestion.current()
        };
        assert_eq!(step(&[], 1), 0);
        assert_eq!(step(&[0, 0], 1), LEAST);
        // Who spends less than is suggested does not make it rise, and does not let it fall.
        for _ in 0..100 {
            assert_eq!(step(&[0, LEAST - 1], 1), LEAST);
        }
        assert_eq!(step(&[LEAST], 1), 2 * LEAST);
        assert_eq!(step(&[1 << 15, LEAST], 1), 1 << 16);
        assert_eq!(step(&[u32::MAX], 1), MOST_EFFORT);
        assert_eq!(step(&[u32::MAX], 1), MOST_EFFORT);
        let mut before = MOST_EFFORT;
        for _ in 0..11 {
            let falls = step(&[], 15);
            assert!(falls == before / 2 || falls == 0);
            before = falls;
        }
        assert_eq!(before, 0);
    }

    #[test]
    fn it_does_not_rise_all_at_once() {
        let now = Instant::now();
        let mut suggestion = Suggestion::new(now);
        for _ in 0..100 {
            suggestion.turned_away(suggestion.current(), now);
            suggestion.update(now);
        }
        assert_eq!(suggestion.current(), LEAST);
    }
}
