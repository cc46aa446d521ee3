//! Searching for the greatest length that passes, several at a time.

use mixline_protocol::link::probe::MIN_PROBE;

/// Lengths that are tried in one round. With nine parts of what is left, four rounds are enough.
const AT_ONCE: usize = 8;

/// What is known of which lengths pass: all up to one, and none from another on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    passes: usize,
    fails: usize,
}

impl Search {
    /// [`MIN_PROBE`] passes; nothing longer than `most` is of interest.
    pub fn new(most: usize) -> Self {
        Self {
            passes: MIN_PROBE,
            fails: most + 1,
        }
    }

    /// What to try next: the longest alone at first, since it mostly passes. None: it is found.
    pub fn next(&self, first: bool) -> Vec<usize> {
        let gap = self.fails - self.passes;
        if gap <= 1 {
            return Vec::new();
        }
        if first {
            return vec![self.fails - 1];
        }
        let parts = (AT_ONCE + 1).min(gap);
        (1..parts)
            .map(|part| self.passes + gap * part / parts)
            .collect()
    }

    /// What was tried, and which of it passed.
    pub fn learn(&mut self, tried: &[usize], passed: &[bool]) {
        let best = tried
            .iter()
            .zip(passed)
            .filter(|(_, passed)| **passed)
            .map(|(length, _)| *length)
            .max();
        self.passes = best.map_or(self.passes, |best| self.passes.max(best));
        let next = tried.iter().copied().filter(|at| *at > self.passes).min();
        self.fails = next.map_or(self.fails, |next| self.fails.min(next));
    }

    /// The greatest length that is known to pass.
    pub fn found(&self) -> usize {
        self.passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: usize, most: usize) -> (usize, usize) {
        let (mut search, mut rounds) = (Search::new(most), 0);
        loop {
            let tried = search.next(rounds == 0);
            if tried.is_empty() {
                return (search.found(), rounds);
            }
            assert!(tried.len() <= AT_ONCE);
            let passed: Vec<bool> = tried.iter().map(|length| *length <= limit).collect();
            search.learn(&tried, &passed);
            rounds += 1;
        }
    }

    #[test]
    fn each_limit_is_found_in_few_rounds() {
        for limit in MIN_PROBE..=1408 {
            let (found, rounds) = search(limit, 1408);
            assert_eq!(found, limit);
            assert!(rounds <= 5, "{limit}: {rounds}");
        }
        assert_eq!(search(2000, 1408), (1408, 1));
        assert_eq!(search(100, MIN_PROBE), (MIN_PROBE, 0));
    }

    #[test]
    fn a_lost_answer_makes_it_less_and_never_more() {
        let mut search = Search::new(1408);
        let tried = search.next(true);
        search.learn(&tried, &[false]);
        let tried = search.next(false);
        // The third is lost although it would have passed.
        let passed: Vec<bool> = (0..tried.len()).map(|at| at < 2).collect();
        search.learn(&tried, &passed);
        assert_eq!(search.found(), tried[1]);
    }
}
