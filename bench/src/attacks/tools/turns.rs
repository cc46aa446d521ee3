//! When an attacker begins and when it ends, and how fast it is.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// An attacker that may do nothing yet, or waits for what it holds, looks so often whether it is to end.
pub const LOOK: Duration = Duration::from_millis(20);

/// How long and how fast an attacker attacks.
#[derive(Debug, Clone, clap::Args)]
pub struct Limits {
    /// Ends after so many seconds in any case.
    #[arg(long)]
    pub seconds: u64,
    /// At most so many in a second; as fast as it can without.
    #[arg(long)]
    pub rate: Option<u32>,
}

/// What an attacker says at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Datagrams, cells, messages or connections that left.
    pub sent: u64,
    /// What was spent on puzzles for them: hashes, as many as their efforts take on average.
    pub hashes: u64,
    /// In how many seconds.
    pub seconds: f64,
}

impl Done {
    /// How many a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.sent as f64 / self.seconds.max(f64::EPSILON)
    }

    /// How many hashes a second.
    #[must_use]
    pub fn hashes_per_second(&self) -> f64 {
        self.hashes as f64 / self.seconds.max(f64::EPSILON)
    }
}

/// The turn of an attacker, from when it was told to begin.
pub struct Turn {
    began: Instant,
    until: Instant,
    rate: Option<u32>,
    over: Arc<AtomicBool>,
    sent: u64,
    hashes: u64,
}

impl Turn {
    /// Says that the attack is prepared, and waits until it is to begin.
    pub fn wait(limits: &Limits) -> Result<Self> {
        println!("ready");
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .context("waiting for the beginning")?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        // The end of the input is the end of the attack, also if whoever began it has died.
        thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ends.store(true, Ordering::Relaxed);
        });
        Ok(Self::from_now(limits, over))
    }

    fn from_now(limits: &Limits, over: Arc<AtomicBool>) -> Self {
        let began = Instant::now();
        Self {
            began,
            until: began + Duration::from_secs(limits.seconds),
            rate: limits.rate,
            over,
            sent: 0,
            hashes: 0,
        }
    }

    /// One that nobody ends before, and that may go as fast as it can.
    #[cfg(test)]
    pub fn of_seconds(seconds: u64) -> Self {
        let rate = None;
        Self::from_now(&Limits { seconds, rate }, Arc::default())
    }

    /// The hashes that were counted.
    #[cfg(test)]
    pub fn hashes(&self) -> u64 {
        self.hashes
    }

    /// Whether there is time for more.
    pub fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed) && Instant::now() < self.until
    }

    /// Counts what has been sent, and rests if that was faster than it may be.
    pub fn sent(&mut self, count: u64) {
        self.sent += count;
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else {
            return;
        };
        let due = self.began + Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
        while self.goes_on() {
            let rest = due.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            thread::sleep(rest.min(LOOK));
        }
    }

    /// Counts what was spent on a puzzle.
    pub fn spent(&mut self, hashes: u64) {
        self.hashes += hashes;
    }

    /// Says what was done.
    ///
    /// # Errors
    /// If nothing was: then nobody was attacked.
    pub fn end(self) -> Result<()> {
        ensure!(self.sent > 0, "nothing could be sent");
        let done = Done {
            sent: self.sent,
            hashes: self.hashes,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        println!("{}", serde_json::to_string(&done)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_by_itself_and_when_it_is_told() {
        let over = Arc::new(AtomicBool::new(false));
        let limits = |seconds, rate| Limits { seconds, rate };
        assert!(!Turn::from_now(&limits(0, None), Arc::clone(&over)).goes_on());
        let mut turn = Turn::from_now(&limits(1000, Some(100)), Arc::clone(&over));
        assert!(turn.goes_on());
        // Five hundredths of a second for five of a hundred a second.
        turn.sent(5);
        assert!(turn.began.elapsed() >= Duration::from_millis(50));
        over.store(true, Ordering::Relaxed);
        // Nobody waits for a turn that is over.
        turn.sent(1_000_000);
        assert!(!turn.goes_on());
        assert_eq!(turn.sent, 1_000_005);
    }

    #[test]
    fn a_rate_is_over_the_whole_turn() {
        let done = Done {
            sent: 500,
            hashes: 5000,
            seconds: 2.5,
        };
        assert_eq!(
            (done.per_second(), done.hashes_per_second()),
            (200.0, 2000.0)
        );
    }
}
