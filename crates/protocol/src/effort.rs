//! Effort before public-key work: a puzzle whose solution is checked with one hash.
//!
//! Whoever asks for public-key work searches for a nonce; whoever would do that work checks it first. The
//! puzzle is bound to who is asked and to what is asked for, so that a solution is worth one request of one
//! responder, and to a seed that the responder has published, so that none is computed long ahead (Tor,
//! proposal 327, which has another puzzle and the same use of an effort).
//!
//! ```text
//! puzzle  = label | each of the parts, whose lengths are fixed for a label
//! digest  = SHA-256(puzzle | effort 4 | nonce 16)
//! solved  = its first 8 bytes, as a big-endian number, × effort < 2^64
//! ```
//!
//! An effort of `n` takes `n` hashes on average. Effort 0 takes none, and any nonce solves it. Who claims an
//! effort has it in the hash: a solution for one is none for another.

use ring::digest::{Context, SHA256};

use crate::identity::first_bytes;

/// Bytes of a nonce.
pub const NONCE: usize = 16;
/// Bytes of an effort on the wire.
pub const EFFORT: usize = 4;

/// Bytes of a seed.
pub const SEED: usize = 16;

/// Hashes that solving takes on average.
pub type Effort = u32;
/// What a responder has drawn, so that puzzles made before are none of its own.
pub type Seed = [u8; SEED];

/// What a responder publishes of the puzzles that it wants solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EffortTerms {
    /// The seed of its puzzles.
    pub seed: Seed,
    /// The effort that is likely to be enough at present: 0 or a power of two, so that it does not tell the
    /// exact load.
    pub suggested: Effort,
}

impl EffortTerms {
    /// Whether the suggested effort is one that may be published.
    #[must_use]
    pub fn are_coarse(&self) -> bool {
        self.suggested == 0 || self.suggested.is_power_of_two()
    }
}

/// What a requester says of its effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Solution {
    /// The nonce that was found.
    pub nonce: [u8; NONCE],
    /// How hard the puzzle was.
    pub effort: Effort,
}

/// One puzzle, of whatever effort.
#[derive(Clone)]
pub struct Puzzle(Context);

impl std::fmt::Debug for Puzzle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Puzzle(..)")
    }
}

impl Puzzle {
    /// The puzzle of a label, which says what is asked for, and of parts whose lengths the label fixes.
    #[must_use]
    pub fn new(label: &[u8], parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(label);
        for part in parts {
            context.update(part);
        }
        Self(context)
    }

    /// Whether a solution is one: a hash, and none for effort 0.
    #[must_use]
    pub fn is_solved_by(&self, solution: &Solution) -> bool {
        solution.effort == 0 || {
            let mut context = self.0.clone();
            context.update(&solution.effort.to_be_bytes());
            context.update(&solution.nonce);
            let value = u64::from_be_bytes(first_bytes(context.finish().as_ref()));
            value.checked_mul(solution.effort.into()).is_some()
        }
    }

    /// A search for a solution, beginning at a nonce that should be random.
    #[must_use]
    pub fn search(&self, effort: Effort, nonce: [u8; NONCE]) -> Search {
        let mut with_effort = self.0.clone();
        with_effort.update(&effort.to_be_bytes());
        Search {
            puzzle: with_effort,
            effort,
            nonce: u128::from_be_bytes(nonce),
        }
    }
}

/// A search that goes on where it stopped.
#[derive(Clone)]
pub struct Search {
    /// Up to the effort.
    puzzle: Context,
    effort: Effort,
    nonce: u128,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("effort", &self.effort)
            .finish_non_exhaustive()
    }
}

impl Search {
    /// Tries so many nonces more at most.
    #[must_use]
    pub fn go_on(&mut self, hashes: u32) -> Option<Solution> {
        for _ in 0..hashes {
            let nonce = self.nonce.to_be_bytes();
            self.nonce = self.nonce.wrapping_add(1);
            let mut context = self.puzzle.clone();
            context.update(&nonce);
            let value = u64::from_be_bytes(first_bytes(context.finish().as_ref()));
            if value.checked_mul(self.effort.into()).is_some() {
                return Some(Solution {
                    nonce,
                    effort: self.effort,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solve(puzzle: &Puzzle, effort: Effort) -> Solution {
        puzzle
            .search(effort, [7; NONCE])
            .go_on(effort.saturating_mul(64))
            .unwrap()
    }

    #[test]
    fn a_solution_is_of_one_puzzle_and_one_effort() {
        let puzzle = Puzzle::new(b"label", &[&[1; 32], &[2; 16]]);
        let solution = solve(&puzzle, 1 << 12);
        assert!(puzzle.is_solved_by(&solution));
        for other in [
            Puzzle::new(b"lobel", &[&[1; 32], &[2; 16]]),
            Puzzle::new(b"label", &[&[1; 32], &[3; 16]]),
        ] {
            assert!(!other.is_solved_by(&solution));
        }
        let mut nonce = solution.nonce;
        nonce[0] ^= 1;
        let claimed_too_much = Solution {
            effort: 1 << 13,
            ..solution
        };
        assert!(!puzzle.is_solved_by(&claimed_too_much));
        assert!(!puzzle.is_solved_by(&Solution { nonce, ..solution }));
    }

    #[test]
    fn no_effort_is_free_and_much_is_not() {
        let puzzle = Puzzle::new(b"label", &[]);
        assert!(puzzle.is_solved_by(&Solution::default()));
        let cheap = Solution {
            effort: u32::MAX,
            ..Solution::default()
        };
        assert!(!puzzle.is_solved_by(&cheap));
    }

    /// Searching takes as many hashes as the effort says, and may be done in pieces.
    #[test]
    fn an_effort_is_a_number_of_hashes() {
        let mut hashes = 0_u32;
        for number in 0..200_u8 {
            let mut search = Puzzle::new(b"label", &[&[number]]).search(100, [0; NONCE]);
            while search.go_on(1).is_none() {
                hashes += 1;
            }
        }
        assert!((10_000..40_000).contains(&hashes), "{hashes} for 200 × 100");
    }

    /// By a program of a few lines, from what stands above.
    #[test]
    fn a_value_that_was_computed_by_others() {
        let puzzle = Puzzle::new(b"mixline/v1/effort test", &[&[1; 32]]);
        let solution = puzzle.search(1000, [0; NONCE]).go_on(100_000).unwrap();
        assert_eq!(u128::from_be_bytes(solution.nonce), 26);
    }
}
