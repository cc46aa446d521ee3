//! Effort before public-key work, of both sides: what strangers have to spend on initiations that come
//! through public tails, in which order they are served, and what is spent on own ones.

pub(crate) mod queue;
pub mod searches;
pub(crate) mod seeds;
pub(crate) mod seen;
pub(crate) mod strangers;
pub(crate) mod suggestion;

use mixline_protocol::effort::{Effort, EffortTerms};

/// The most that is spent on one initiation, whatever is suggested: half a second of one core, or a few of a slow one.
pub const MOST_EFFORT: Effort = 1 << 22;
/// The least that is spent on an initiation after one that was not answered: a millisecond of one core.
const LEAST_AGAIN: Effort = 1 << 13;

/// What is spent on an initiation: what the responder suggests, and after each that was not answered twice as
/// much, since what is known of its load may be old (Tor, proposal 327, section 4.2).
#[must_use]
pub fn to_spend(terms: &EffortTerms, unanswered: usize) -> Effort {
    let doublings = u32::try_from(unanswered).unwrap_or(u32::MAX).min(31);
    let effort = match doublings {
        0 => u64::from(terms.suggested),
        _ => u64::from(terms.suggested.max(LEAST_AGAIN / 2)) << doublings,
    };
    Effort::try_from(effort).map_or(MOST_EFFORT, |effort| effort.min(MOST_EFFORT))
}

/// By how many doublings less was spent than was asked for.
#[must_use]
pub fn shortfall(asked: Effort, spent: Effort) -> u32 {
    let doublings = |effort: Effort| Effort::BITS - effort.leading_zeros();
    doublings(asked).saturating_sub(doublings(spent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_quiet_times_nothing_is_spent_and_ever_more_on_what_is_not_answered() {
        let terms = |suggested| EffortTerms {
            seed: [0; 16],
            suggested,
        };
        let all = |suggested| [0, 1, 2, 99].map(|made| to_spend(&terms(suggested), made));
        assert_eq!(all(0), [0, 1 << 13, 1 << 14, MOST_EFFORT]);
        assert_eq!(all(1 << 10), [1 << 10, 1 << 13, 1 << 14, MOST_EFFORT]);
        assert_eq!(all(1 << 20), [1 << 20, 1 << 21, MOST_EFFORT, MOST_EFFORT]);
        assert_eq!(all(1 << 31), [MOST_EFFORT; 4]);
    }

    #[test]
    fn more_than_was_asked_for_is_no_better_than_that() {
        assert_eq!(shortfall(0, 0), 0);
        assert_eq!(shortfall(0, u32::MAX), 0);
        assert_eq!(shortfall(1 << 12, 1 << 12), 0);
        assert_eq!(shortfall(1 << 12, 1 << 10), 2);
        assert_eq!(shortfall(1 << 12, 0), 13);
    }
}
