//! What a place costs where few are left.

use mixline_protocol::effort::Effort;
use mixline_protocol::link::{MAX_EFFORT, MIN_EFFORT};

/// The effort that a place is worth, if so many are free of so many. While a quarter is free they cost nothing;
/// then each tenth of that quarter costs twice as much as the one before, from [`MIN_EFFORT`] to [`MAX_EFFORT`].
/// So who would fill a table pays the most for the last places, and whoever comes before pays little.
pub fn price((free, of): (usize, usize)) -> Effort {
    let dear = of / 4;
    let doublings = MAX_EFFORT.ilog2() - MIN_EFFORT.ilog2();
    let taken = match dear.checked_sub(free) {
        Some(taken @ 1..) => taken,
        _ => return 0,
    };
    let steps = taken * doublings as usize / dear;
    MIN_EFFORT << u32::try_from(steps).unwrap_or(doublings).min(doublings)
}

/// Whether this effort pays that price. The price may have gone up by a step since it was named.
pub fn pays(effort: Effort, price: Effort) -> bool {
    effort >= price / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_dear_and_most_are_free() {
        assert_eq!(price((1000, 1000)), 0);
        assert_eq!(price((250, 1000)), 0);
        assert_eq!(price((249, 1000)), MIN_EFFORT);
        assert_eq!(price((125, 1000)), MIN_EFFORT << 5);
        assert_eq!(price((1, 1000)), MAX_EFFORT / 2);
        assert_eq!(price((0, 1000)), MAX_EFFORT);
        assert_eq!(price((0, 0)), 0);
        assert!(pays(0, 0) && !pays(0, MIN_EFFORT) && pays(MIN_EFFORT, 2 * MIN_EFFORT));
    }
}
