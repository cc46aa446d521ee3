//! Effort that attackers make: with one thread, as fast as it can.

use mixline_protocol::effort::{Effort, NONCE, Puzzle, Solution};
use mixline_protocol::random::OsRandom;
use rand_core::Rng as _;

use super::turns::Turn;

/// Hashes between two looks whether the turn is over.
const HASHES: u32 = 4096;

/// Searches for a solution, which the turn counts; none if the turn ends before there is one.
pub fn solve(puzzle: &Puzzle, effort: Effort, turn: &mut Turn) -> Option<Solution> {
    if effort == 0 {
        return Some(Solution::default());
    }
    let mut nonce = [0; NONCE];
    OsRandom::new().fill_bytes(&mut nonce);
    let mut search = puzzle.search(effort, nonce);
    while turn.goes_on() {
        if let Some(solution) = search.go_on(HASHES) {
            // What it takes on average: a part of the last piece was not tried.
            turn.spent(effort.into());
            return Some(solution);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_are_some_and_count() {
        let puzzle = Puzzle::new(b"test", &[b"something"]);
        let mut turn = Turn::of_seconds(1000);
        for effort in [0, 1, 1 << 10, 1 << 13] {
            let solution = solve(&puzzle, effort, &mut turn).unwrap();
            assert!(solution.effort == effort && puzzle.is_solved_by(&solution));
        }
        assert_eq!(turn.hashes(), 1 + (1 << 10) + (1 << 13));
        assert!(solve(&puzzle, 1 << 30, &mut Turn::of_seconds(0)).is_none());
    }
}
