//! Random values that none of the directories has chosen.
//!
//! Each directory commits to a value in one round and reveals it in the next. What is revealed goes into a
//! hash chain; each period takes the chain's value at the beginning of the period before. The last who
//! reveals may keep its value back, and so has a choice of two for each liar. Nobody can do more than
//! that, and what is gained by it is little: relays have a place on the ring only after they were there for
//! longer than a value is known.

use mixline_protocol::identity::Digest;
use mixline_protocol::records::SharedRandom;

/// The values after a round. `before`: those of the round before (`None` for the first); `revealed`: by
/// index, ascending; `period`: that of the round.
#[must_use]
pub fn advance(
    before: Option<&SharedRandom>,
    revealed: &[(u8, [u8; 32])],
    period: u64,
) -> SharedRandom {
    let old = before.copied().unwrap_or_default();
    let mut parts: Vec<u8> = old.chain.0.to_vec();
    for (index, value) in revealed {
        parts.push(*index);
        parts.extend_from_slice(value);
    }
    let chain = Digest::of("mixline/v2/random chain", &[&parts]);
    let drawn = |period: u64| {
        Digest::of(
            "mixline/v2/random period",
            &[&chain.0, &period.to_be_bytes()],
        )
    };
    let (current, next) = match before {
        Some(old) if period == old.period => (old.current, old.next),
        Some(old) if Some(period) == old.period.checked_add(1) => {
            (old.next, drawn(period.saturating_add(1)))
        }
        _ => (drawn(period), drawn(period.saturating_add(1))),
    };
    SharedRandom {
        period,
        current,
        next,
        chain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_one_value_which_is_known_for_a_period_before() {
        let first = advance(None, &[(0, [1; 32])], 10);
        let same = advance(Some(&first), &[(0, [2; 32]), (3, [4; 32])], 10);
        assert_eq!((same.current, same.next), (first.current, first.next));
        assert_ne!(same.chain, first.chain);
        let next = advance(Some(&same), &[], 11);
        assert_eq!(next.current, first.next);
        assert_ne!(next.next, first.next);
        let late = advance(Some(&next), &[], 14);
        assert_ne!(late.current, next.next);
        // A clock that was set back does not bring a value back.
        assert_ne!(advance(Some(&next), &[], 10).current, first.current);
    }

    #[test]
    fn each_value_counts() {
        let old = advance(None, &[], 1);
        let with = |revealed: &[(u8, [u8; 32])]| advance(Some(&old), revealed, 1).chain;
        let all = [
            with(&[]),
            with(&[(0, [1; 32])]),
            with(&[(1, [1; 32])]),
            with(&[(0, [2; 32])]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one));
        }
    }
}
