//! When what happens in a round.
//!
//! A round is called by the time `T` at which its snapshot is published. Before it:
//!
//! ```text
//! T - signing - (f + 1) steps     vote
//! f + 1 steps                     pass votes on
//! T - signing                     merge, sign
//! T                               publish
//! ```
//!
//! With rounds of 300 s a step takes 5 s and signing 30 s; in short rounds steps take three quarters together, and
//! signing three twentieths. `f + 1` steps are what it takes for all honest to
//! know the same although `f` lie (Dolev and Strong 1983, theorem 1): what an honest one knows at the end
//! either an honest one has passed on before, or all `f + 1` who have passed it on would lie.

use mixline_protocol::records::Roster;
use mixline_protocol::time::UnixTime;

/// The longest step, milliseconds.
const LONGEST_STEP: u64 = 5_000;
/// The longest time for signing, milliseconds.
const LONGEST_SIGNING: u64 = 30_000;

/// The times of rounds. Milliseconds since 1970 where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    round: u64,
    step: u64,
    steps: u64,
    signing: u64,
}

impl Schedule {
    /// That of a roster of several directories.
    #[must_use]
    pub fn of(roster: &Roster) -> Self {
        let round = u64::from(roster.round_seconds.max(1)) * 1000;
        let steps = roster.faults() as u64 + 1;
        Self {
            round,
            step: (round * 3 / 4 / steps).min(LONGEST_STEP),
            steps,
            signing: (round * 3 / 20).min(LONGEST_SIGNING),
        }
    }

    /// How long a round is, in seconds.
    #[must_use]
    pub fn round_seconds(&self) -> u64 {
        self.round / 1000
    }

    /// In how many steps votes are passed on.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// When the directories vote for a round.
    #[must_use]
    pub fn voting(&self, round: UnixTime) -> u64 {
        self.merging(round).saturating_sub(self.steps * self.step)
    }

    /// When they merge the votes and sign.
    #[must_use]
    pub fn merging(&self, round: UnixTime) -> u64 {
        self.publishing(round).saturating_sub(self.signing)
    }

    /// When they publish.
    #[must_use]
    pub fn publishing(&self, round: UnixTime) -> u64 {
        round.0.saturating_mul(1000)
    }

    /// Which step of passing on it is, from 1; also before the first. `None` when they are over.
    #[must_use]
    pub fn step(&self, round: UnixTime, now: u64) -> Option<u64> {
        let step = now.saturating_sub(self.voting(round)) / self.step + 1;
        (step <= self.steps).then_some(step)
    }

    /// The last round whose voting has begun.
    #[must_use]
    pub fn round_at(&self, now: u64) -> UnixTime {
        let before = self.steps * self.step + self.signing;
        let rounds = now.saturating_add(before) / self.round;
        UnixTime(rounds * self.round_seconds())
    }

    /// The round after one.
    #[must_use]
    pub fn after(&self, round: UnixTime) -> UnixTime {
        round.plus(self.round_seconds())
    }

    /// Whether rounds can have this number.
    #[must_use]
    pub fn is_round(&self, round: UnixTime) -> bool {
        round.0.is_multiple_of(self.round_seconds())
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::records::Member;

    use super::*;

    fn schedule(directories: u8, round_seconds: u32) -> Schedule {
        let member = |n| Member {
            key: [n; 32],
            name: format!("d{n}"),
            url: "http://d".into(),
        };
        let members = (0..directories).map(member).collect();
        Schedule::of(&Roster::first(members, round_seconds, 10_800).unwrap())
    }

    #[test]
    fn a_round_fits_before_its_time() {
        for (directories, seconds) in [(4, 300), (7, 300), (4, 10), (7, 10), (10, 20)] {
            let schedule = schedule(directories, seconds);
            let round = UnixTime(u64::from(seconds) * 1_000_000);
            let voting = schedule.voting(round);
            assert!(voting > schedule.publishing(round) - u64::from(seconds) * 1000);
            assert_eq!(schedule.round_at(voting), round);
            assert_eq!(schedule.after(schedule.round_at(voting - 1)), round);
            assert_eq!(schedule.step(round, voting - 5000), Some(1));
            assert_eq!(schedule.step(round, voting), Some(1));
            let merging = schedule.merging(round);
            assert_eq!(schedule.step(round, merging - 1), Some(schedule.steps()));
            assert_eq!(schedule.step(round, merging), None);
        }
        let usual = schedule(4, 300);
        let round = UnixTime(300_000);
        assert_eq!(usual.merging(round), 300_000_000 - 30_000);
        assert_eq!(usual.voting(round), 300_000_000 - 40_000);
        assert_eq!(schedule(7, 300).voting(round), 300_000_000 - 45_000);
    }
}
