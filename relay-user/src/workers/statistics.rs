//! What a worker shows of itself while it works.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mixline_relay_engine::outcome::{Counters, Outcome};
use mixline_relay_engine::pipeline::{Behaviour, Pipeline};

/// What a worker shows of itself to other threads. Only the worker writes.
#[derive(Debug, Default)]
pub struct WorkerStatistics {
    counters: [AtomicU64; Outcome::ALL.len()],
    sessions: AtomicUsize,
    paths: AtomicUsize,
    rounds: AtomicU64,
}

impl WorkerStatistics {
    /// What the worker has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for (outcome, count) in Outcome::ALL.iter().zip(&self.counters) {
            counters.add(*outcome, count.load(Ordering::Relaxed));
        }
        counters
    }

    /// How many link sessions it receives under.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many paths it knows.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.paths.load(Ordering::Relaxed)
    }

    /// How many rounds of its loop it has made: at least one a second, as long as it lives.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Shows what the worker's pipeline has counted, once in each round of its loop.
    pub(super) fn show<B: Behaviour>(&self, pipeline: &Pipeline<B>) {
        for ((_, count), shown) in pipeline.counters().iter().zip(&self.counters) {
            shown.store(count, Ordering::Relaxed);
        }
        let (sessions, paths) = pipeline.known();
        self.sessions.store(sessions, Ordering::Relaxed);
        self.paths.store(paths, Ordering::Relaxed);
        self.rounds.store(self.rounds() + 1, Ordering::Relaxed);
    }
}
