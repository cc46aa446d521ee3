//! What happened between two readings of a relay's report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{InsideReport, QueueReport, Report, Times, WorkerReport};

/// Between two readings; rates are per second.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Share of a core that all threads used: 1 is one core.
    pub cpu: f64,
    /// How long datagrams that left were inside.
    pub inside: InsideReport,
    /// What each worker did.
    pub workers: Vec<WorkerRates>,
    /// What came by each queue.
    pub queues: Vec<QueueRates>,
    /// Datagrams by outcome.
    pub outcomes: Vec<Count>,
    /// Frames by the XDP program's verdict.
    pub xdp: Vec<Count>,
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkerRates {
    /// Datagrams that it received.
    pub received: f64,
    /// Datagrams that it sent.
    pub sent: f64,
    /// Share of a core that it used, if the system says so.
    pub cpu: Option<f64>,
    /// How long datagrams that left were inside.
    pub inside: InsideReport,
}

/// What came by a queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueRates {
    /// Frames that the XDP program gave to its socket.
    pub redirected: f64,
    /// Frames that came out of the socket.
    pub received: f64,
}

/// Something that is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// Its name.
    pub name: String,
    /// Per second.
    pub rate: f64,
}

impl Rates {
    /// Between two reports, of which the second came so much later. None if no time has passed, or
    /// the relay was started in between: its counters began anew.
    #[must_use]
    pub fn between(before: &Report, after: &Report, elapsed: Duration) -> Option<Self> {
        let seconds = elapsed.as_secs_f64();
        let restarted = after.uptime_s < before.uptime_s
            || (after.process.started - before.process.started).abs() > 1.0;
        if seconds <= 0.0 || restarted {
            return None;
        }
        // A report is no snapshot: a counter may have been read a moment earlier than its neighbour,
        // and is not taken to have run backwards.
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let nothing = WorkerReport::default();
        let workers = after.per_worker.iter().enumerate().map(|(number, now)| {
            let then = before.per_worker.get(number).unwrap_or(&nothing);
            WorkerRates {
                received: rate(then.received, now.received),
                sent: rate(then.sent, now.sent),
                cpu: (now.cpu_s.zip(then.cpu_s)).map(|(now, then)| share(then, now, seconds)),
                inside: Times::of(difference(&then.inside_ns, &now.inside_ns)).report(),
            }
        });
        let inside = after
            .per_worker
            .iter()
            .enumerate()
            .flat_map(|(number, now)| {
                let then = before.per_worker.get(number).unwrap_or(&nothing);
                difference(&then.inside_ns, &now.inside_ns)
            });
        let no_queue = QueueReport {
            redirected: 0,
            received: 0,
        };
        let queues = after.port.queues.iter().enumerate().map(|(number, now)| {
            let then = before.port.queues.get(number).unwrap_or(&no_queue);
            QueueRates {
                redirected: rate(then.redirected, now.redirected),
                received: rate(then.received, now.received),
            }
        });
        let counts = |then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>| {
            let of = |(name, count): (&String, &u64)| Count {
                name: name.clone(),
                rate: rate(then.get(name).copied().unwrap_or_default(), *count),
            };
            now.iter().map(of).collect()
        };
        Some(Self {
            cpu: share(before.process.cpu_s, after.process.cpu_s, seconds),
            inside: Times::of(inside).report(),
            workers: workers.collect(),
            queues: queues.collect(),
            outcomes: counts(&before.verdicts, &after.verdicts),
            xdp: counts(&before.xdp, &after.xdp),
        })
    }
}

fn share(before: f64, after: f64, seconds: f64) -> f64 {
    ((after - before) / seconds).max(0.0)
}

/// What came to each bucket of a histogram.
fn difference(before: &[(u64, u64)], after: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let before: BTreeMap<u64, u64> = before.iter().copied().collect();
    let had = |time: &u64| before.get(time).copied().unwrap_or_default();
    after
        .iter()
        .map(|(time, count)| (*time, count.saturating_sub(had(time))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::report;
    use super::*;

    #[test]
    fn rates_are_differences_by_time() {
        let before = report();
        let mut after = before.clone();
        after.uptime_s += 2;
        after.process.cpu_s += 1.5;
        after.per_worker[0].received += 3000;
        after.per_worker[0].sent += 2000;
        after.per_worker[0].cpu_s = Some(before.per_worker[0].cpu_s.unwrap() + 0.5);
        after.per_worker[0].inside_ns = vec![(20_480, 1000), (1_048_576, 1900), (8_388_608, 100)];
        after.port.queues[1].redirected += 60;
        after.port.queues[1].received += 50;
        *after.verdicts.get_mut("forwarded").unwrap() += 1000;
        *after.xdp.get_mut("redirected").unwrap() += 60;
        let rates = Rates::between(&before, &after, Duration::from_secs(2)).unwrap();
        assert_eq!(rates.cpu, 0.75);
        let worker = rates.workers[0];
        assert_eq!((worker.received, worker.sent), (1500.0, 1000.0));
        assert_eq!(worker.cpu, Some(0.25));
        // Of those that left in between, not since the start: then all were faster.
        assert_eq!(worker.inside.datagrams, 2000);
        assert!(
            (1048.0..1060.0).contains(&worker.inside.p50_us),
            "{worker:?}"
        );
        assert!(
            (8388.0..8500.0).contains(&worker.inside.p999_us),
            "{worker:?}"
        );
        assert_eq!(rates.inside, worker.inside);
        assert_eq!(rates.workers[1].inside, InsideReport::default());
        assert_eq!(
            (rates.queues[1].redirected, rates.queues[1].received),
            (30.0, 25.0)
        );
        assert_eq!(rates.queues[0].received, 0.0);
        let forwarded = &rates.outcomes[0];
        assert_eq!((&*forwarded.name, forwarded.rate), ("forwarded", 500.0));
        assert_eq!(rates.xdp[0].rate, 30.0);
    }

    #[test]
    fn a_relay_that_was_started_anew_has_no_rates_yet() {
        let before = report();
        let second = Duration::from_secs(1);
        let mut after = before.clone();
        after.uptime_s = 0;
        assert_eq!(Rates::between(&before, &after, second), None);
        after = before.clone();
        after.process.started += 100.0;
        assert_eq!(Rates::between(&before, &after, second), None);
        assert_eq!(Rates::between(&before, &before, Duration::ZERO), None);
        // What seems to run backwards has not.
        after = before.clone();
        after.per_worker[0].received -= 1;
        let rates = Rates::between(&before, &after, second).unwrap();
        assert_eq!(rates.workers[0].received, 0.0);
    }
}
