//! What a worker shows of itself while it works.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arrayvec::ArrayVec;
use mixline_relay_engine::batch::{BATCH, Batch};
use mixline_relay_engine::outcome::{Counters, Outcome};
use mixline_relay_engine::pipeline::{Behaviour, Pipeline};

use super::inside::TimeInside;
use crate::port::MOST_BATCHES;

/// What a worker shows of itself to other threads. Only the worker writes, so that no counter needs
/// an operation that locks the memory.
#[derive(Debug, Default)]
pub struct WorkerStatistics {
    counters: [AtomicU64; Outcome::ALL.len()],
    sessions: AtomicUsize,
    paths: AtomicUsize,
    /// Datagrams of the right length that the port gave.
    received: AtomicU64,
    /// Datagrams that the port was given.
    sent: AtomicU64,
    /// How long datagrams were inside.
    pub inside: TimeInside,
    /// The thread's number (`gettid(2)`); 0 before it runs.
    thread: AtomicI32,
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

    /// Datagrams of the right length that its port received, and datagrams that its port took to
    /// send. What the control plane sends is not among them.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let sent = self.sent.load(Ordering::Relaxed);
        let failed = &self.counters[Outcome::SendFailed as usize];
        (
            self.received.load(Ordering::Relaxed),
            sent.saturating_sub(failed.load(Ordering::Relaxed)),
        )
    }

    /// The thread that the worker is, for what the system says of it; none before it runs.
    #[must_use]
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    /// The worker runs on the thread that calls this.
    pub(super) fn runs_here(&self) {
        self.thread
            .store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
    }

    /// Counts a batch that the port gave.
    #[inline]
    pub(super) fn received(&self, batch: &Batch<'_>) {
        add(&self.received, batch.slots.len() as u64);
        self.sent(batch);
    }

    /// Counts what a batch leaves to be sent.
    #[inline]
    pub(super) fn sent(&self, batch: &Batch<'_>) {
        add(&self.sent, batch.order.len() as u64);
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

/// Adds to a count that nobody else writes.
#[inline]
fn add(count: &AtomicU64, n: u64) {
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// Batches of one poll whose datagrams are about to be sent.
#[derive(Default)]
pub(super) struct Stay {
    /// Those whose datagrams have one time: since when, and how many.
    batches: ArrayVec<(Instant, u64), MOST_BATCHES>,
    /// Datagrams of the others. Takes memory with the first of them.
    single: Vec<Instant>,
}

impl Stay {
    /// Adds a processed batch. All its datagrams came by one read, so they have one time, unless the port knows when
    /// each came.
    #[inline]
    pub(super) fn add(&mut self, batch: &Batch<'_>, now: Instant) {
        if batch.apart {
            return self.add_apart(batch, now);
        }
        let since = batch.slots.first().and_then(|slot| slot.since);
        let entry = (since.unwrap_or(now), batch.order.len() as u64);
        if let Err(full) = self.batches.try_push(entry) {
            // With the last one, which came earlier: said to be longer inside, not shorter.
            if let Some(last) = self.batches.last_mut() {
                last.1 += full.element().1;
            }
        }
    }

    /// Adds a batch whose datagrams differ.
    #[cold]
    fn add_apart(&mut self, batch: &Batch<'_>, now: Instant) {
        self.single
            .reserve((MOST_BATCHES * BATCH).saturating_sub(self.single.len()));
        for at in &batch.order {
            let slot = batch.slots.get(usize::from(*at));
            let since = slot.and_then(|slot| slot.since);
            self.single.push(since.unwrap_or(now));
        }
    }

    /// The batches have been sent.
    #[inline]
    pub(super) fn end(&mut self, statistics: &WorkerStatistics, now: Instant) {
        for (since, count) in self.batches.drain(..) {
            statistics
                .inside
                .record(now.saturating_duration_since(since), count);
        }
        for since in self.single.drain(..) {
            statistics
                .inside
                .record(now.saturating_duration_since(since), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mixline_protocol::size::DATAGRAM;

    use super::*;

    #[test]
    fn a_batch_counts_for_each_datagram_that_leaves_and_since_it_was_read() {
        let statistics = WorkerStatistics::default();
        let began = Instant::now();
        let source = ([192, 0, 2, 1], 7000).into();
        let mut datagrams = [[0; DATAGRAM]; 3];
        let mut batch = Batch::new();
        for datagram in &mut datagrams {
            batch.push(datagram, source);
        }
        batch.order.extend([2, 0]);
        batch.waited_since(began);
        let mut stay = Stay::default();
        stay.add(&batch, began + Duration::from_millis(3));
        statistics.received(&batch);
        stay.end(&statistics, began + Duration::from_millis(5));
        assert_eq!(statistics.traffic(), (3, 2));
        let counts: Vec<_> = statistics.inside.counts().collect();
        assert_eq!(counts.len(), 1);
        let (most, count) = counts[0];
        assert_eq!(count, 2);
        assert!((5_000_000..5_200_000).contains(&most), "{most}");
    }

    #[test]
    fn datagrams_of_a_batch_that_came_apart_have_a_time_each() {
        let statistics = WorkerStatistics::default();
        let ms = Duration::from_millis;
        let began = Instant::now();
        let mut datagrams = [[0; DATAGRAM]; 4];
        let mut batch = Batch::new();
        for datagram in &mut datagrams {
            batch.push(datagram, ([192, 0, 2, 1], 7000).into());
        }
        batch.order.extend([2, 0, 3]);
        // Of the last one it is not known: then it counts from the work on its batch.
        let times = [0, 1, 40].map(|after| Some(began + ms(after)));
        batch.arrived_at(times.into_iter().chain([None]));
        let mut stay = Stay::default();
        stay.add(&batch, began + ms(60));
        stay.end(&statistics, began + ms(100));
        let counts: Vec<_> = statistics.inside.counts().collect();
        let near = |at: usize, wanted: u64| {
            let (most, count) = counts[at];
            assert_eq!(count, 1);
            assert!((wanted..wanted + wanted / 30).contains(&most), "{most}");
        };
        assert_eq!(counts.len(), 3);
        near(0, 40_000_000);
        near(1, 60_000_000);
        near(2, 100_000_000);
        // They count once.
        stay.end(&statistics, began + ms(200));
        assert_eq!(statistics.inside.counts().count(), 3);
    }
}
