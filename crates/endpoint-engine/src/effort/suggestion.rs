//! How much effort is suggested: a control loop after that of Tor's proposal 327, section 5.3.
//!
//! It rises when somebody was turned away who has spent what is suggested: because too many wait, or because
//! a table is full. It falls when for a while hardly anybody had to wait for long who has spent as much as would be
//! suggested then: whoever spends that would come before all who wait. In between it stays. So who has driven it up has
//! to go on spending to keep it there, and more than a few visitors at a time spend: those who are served at once hold
//! it up by nothing.

use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;

use super::MOST_EFFORT;

/// What is suggested at least, if anything: half a millisecond of one core.
pub const LEAST: Effort = 1 << 12;
/// It rises once in so long at most.
pub const RISES_EVERY: Duration = Duration::from_secs(1);
/// It falls to the half when for so long nobody was turned away who has spent as much as the half ...
pub const FALLS_AFTER: Duration = Duration::from_secs(15);
/// ... and for less than this part of it somebody had to wait for long who has.
const WAITS_PART: u32 = 4;
/// It is noticed that often at least who waits.
const NOTICED: Duration = Duration::from_secs(1);

/// The suggested effort: 0, or a power of two.
pub struct Suggestion {
    current: Effort,
    /// The most effort of those that were turned away since it rose last.
    turned_away: Option<Effort>,
    /// When it rose last, and so rises next at the earliest a little later.
    rose: Option<Instant>,
    /// Since when nobody was turned away who has spent enough to keep it up, or it was decided last whether it falls.
    calm: Instant,
    /// For how long since then somebody has had to wait who has.
    waited: Duration,
    /// Whether somebody did so when it was looked at last, and when that was.
    looked: (bool, Instant),
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
            waited: Duration::ZERO,
            looked: (false, now),
        }
    }

    /// What is suggested.
    #[must_use]
    pub fn current(&self) -> Effort {
        self.current
    }

    /// What is suggested when it falls.
    fn lower(&self) -> Effort {
        match self.current / 2 {
            half if half < LEAST => 0,
            half => half,
        }
    }

    /// Of those who have had to wait for long, and wait now, the most effort is this; none if nobody has. The least
    /// suggestion is not kept up by those who have spent nothing and are served a moment later: without it they
    /// would be, too.
    pub fn waits(&mut self, effort: Option<Effort>, now: Instant) {
        let (did, at) = self.looked;
        if did {
            self.waited += now.saturating_duration_since(at).min(NOTICED);
        }
        let does = effort.is_some_and(|effort| effort >= self.current / 2);
        self.looked = (does, now);
    }

    /// Somebody with so much effort was not served, or has given way to somebody with more.
    pub fn turned_away(&mut self, effort: Effort, now: Instant) {
        if effort >= self.lower() {
            self.calm_since(now);
        }
        if effort >= self.current {
            self.turned_away = self.turned_away.max(Some(effort));
        }
    }

    /// Somebody with so much effort was drawn to lose a place in use. More than was suggested did not
    /// help, so it does not count: it would be a single peer's choice what is suggested.
    pub fn evicted(&mut self, effort: Effort, now: Instant) {
        self.turned_away(effort.min(self.current), now);
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
            if self.waited < FALLS_AFTER / WAITS_PART {
                self.current = self.lower();
            }
            self.calm_since(now);
        }
    }

    fn calm_since(&mut self, now: Instant) {
        self.calm = now;
        self.waited = Duration::ZERO;
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
    fn who_has_spent_little_does_not_keep_it_up() {
        let mut now = Instant::now();
        let mut suggestion = Suggestion::new(now);
        suggestion.turned_away(u32::MAX, now);
        suggestion.update(now);
        assert_eq!(suggestion.current(), MOST_EFFORT);
        let mut falls = |suggestion: &mut Suggestion, what: fn(&mut Suggestion, Instant)| {
            let before = suggestion.current();
            for _ in 0..60 {
                now += SECOND;
                what(suggestion, now);
                suggestion.update(now);
            }
            suggestion.current() < before
        };
        let waits = |it: &mut Suggestion, now| it.waits(Some(MOST_EFFORT / 2), now);
        assert!(!falls(&mut suggestion, waits));
        while suggestion.current() > LEAST {
            assert!(falls(&mut suggestion, |it, now| it.waits(Some(0), now)));
        }
        // Who spends nothing and is not served at all is outdone by the least effort, and not by none.
        assert!(!falls(&mut suggestion, |it, now| it.turned_away(0, now)));
        assert!(falls(&mut suggestion, |it, now| it.waits(Some(0), now)));
        assert_eq!(suggestion.current(), 0);
    }

    #[test]
    fn who_waits_now_and_then_does_not_keep_it_up_and_who_waits_often_does() {
        for (part, keeps) in [(10, false), (5, false), (3, true), (1, true)] {
            let mut now = Instant::now();
            let mut suggestion = Suggestion::new(now);
            suggestion.turned_away(1 << 16, now);
            suggestion.update(now);
            let before = suggestion.current();
            for n in 0..1200 {
                let waits = (n % part == 0).then_some(before);
                suggestion.waits(waits, now);
                suggestion.update(now);
                now += SECOND / 20;
            }
            assert_eq!(suggestion.current() == before, keeps, "{part}");
        }
    }

    #[test]
    fn who_has_spent_much_and_is_drawn_to_go_lifts_it_by_one_step() {
        let mut now = Instant::now();
        let mut suggestion = Suggestion::new(now);
        for expected in [LEAST, 2 * LEAST, 4 * LEAST] {
            suggestion.evicted(1 << 20, now);
            suggestion.update(now);
            assert_eq!(suggestion.current(), expected);
            now += SECOND;
        }
        suggestion.evicted(LEAST, now);
        suggestion.update(now);
        assert_eq!(suggestion.current(), 4 * LEAST);
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
