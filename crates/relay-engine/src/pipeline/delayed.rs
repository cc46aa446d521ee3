//! Optional mixing in time: each cell waits for a time of its own, exponentially
//! distributed, so that when it leaves says little of when it came.
//!
//! (Danezis, "The traffic analysis of continuous-time mixes", 2004: of all delays with
//! one mean, the exponential leaves an observer the least.) Off by default: it costs
//! latency at each relay, and cells of a path overtake each other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use rand_core::Rng;

use super::boxed::Boxed;

/// No cell waits for longer than this many means; one in 20,000 would.
const LONGEST: f64 = 10.0;

/// Cells that wait for their time.
pub(super) struct Delayed {
    mean: Duration,
    cells: BinaryHeap<Waiting>,
}

struct Waiting {
    until: Reverse<Instant>,
    cell: Boxed,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Waiting {}

impl Delayed {
    /// Nothing waits yet; the mean of the waits to come.
    pub(super) fn new(mean: Duration) -> Self {
        Self {
            mean,
            cells: BinaryHeap::new(),
        }
    }

    /// Changes the mean of the waits to come. Cells that wait keep their time.
    pub(super) fn set_mean(&mut self, mean: Duration) {
        self.mean = mean;
    }

    /// Lets a cell wait from now on.
    #[inline]
    pub(super) fn hold(&mut self, cell: Boxed, now: Instant, rng: &mut ChaCha8Rng) {
        let until = Reverse(now + exponential(self.mean, rng));
        self.cells.push(Waiting { until, cell });
    }

    /// Takes out the cells whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> impl Iterator<Item = Boxed> {
        std::iter::from_fn(move || {
            let first = self.cells.peek()?;
            if first.until.0 > now {
                return None;
            }
            self.cells.pop().map(|waiting| waiting.cell.due())
        })
    }

    /// Takes out all cells.
    pub(super) fn all(&mut self) -> impl Iterator<Item = Boxed> {
        self.cells.drain().map(|waiting| waiting.cell.due())
    }

    /// When the next cell's time comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.cells.peek().map(|waiting| waiting.until.0)
    }
}

/// An exponentially distributed time.
fn exponential(mean: Duration, rng: &mut ChaCha8Rng) -> Duration {
    // Uniform in (0, 1], with the 53 bits that the type holds.
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    mean.mul_f64((-uniform.ln()).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn delays_have_their_mean_and_spread() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mean = Duration::from_millis(50);
        let delays: Vec<f64> = (0..100_000)
            .map(|_| exponential(mean, &mut rng).as_secs_f64() / 0.05)
            .collect();
        let average = delays.iter().sum::<f64>() / 1e5;
        assert!((0.98..1.02).contains(&average), "{average}");
        // A third and a bit are longer than the mean: e^-1.
        let longer = delays.iter().filter(|d| **d > 1.0).count() as f64 / 1e5;
        assert!((0.36..0.376).contains(&longer), "{longer}");
        assert!(delays.iter().all(|d| *d <= LONGEST));
    }
}
