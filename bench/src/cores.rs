//! The same datagrams on several workers of one relay at a time, beside as many relays of one worker each.
//!
//! A relay's workers share the replay filter, the rate of its bandwidth, and pools and queues that a known path does not
//! come to; relays apart share nothing but the machine: its memory, its last cache, and, where there are fewer cores than
//! workers, its cores. What the shared things cost is therefore the first over the second, also with more workers than
//! cores.

use std::fmt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use mixline_protocol::size::Header;
use serde::Serialize;

use crate::measure::{FirstError, Samples, Subject, Summary, run_rounds};
use crate::outcome::{Bar, Bars, Bound};
use crate::testbed::{Testbed, path};
use crate::{Goal, Options, Plot};

/// How many workers there are, from case to case.
const WORKERS: [usize; 3] = [1, 2, 4];
/// Rounds of the testbed in one of ours: long enough for threads to run beside each other.
const ROUNDS: usize = 60;
/// At most so many times what a datagram takes without anything shared.
const OVER_APART: f64 = 1.1;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Cores that the workers have, together.
    pub cores: usize,
    /// By number of workers.
    pub cases: Vec<Case>,
}

/// So many workers; a datagram's time in nanoseconds of the worker's core, the median of all workers.
#[derive(Debug, Serialize)]
pub struct Case {
    /// How many.
    pub workers: usize,
    /// In one relay, the median.
    pub ns: f64,
    /// In a relay each, the median.
    pub apart_ns: f64,
    /// The first over the second, round by round: what is shared.
    pub over_apart: Summary,
    /// In one relay, over one worker alone, round by round: what is shared, and the machine.
    pub over_one: Summary,
    /// The first with its spread.
    pub spread: Summary,
}

/// Workers, and the path that each knows.
struct Workers(Vec<(Testbed, Header)>);

/// Runs it.
///
/// # Errors
/// If a relay does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    eprintln!("cores: datagrams of a known path on several workers");
    let mut all = Vec::new();
    for workers in WORKERS {
        all.push(Workers::of_one_relay(workers)?);
        all.push(Workers::apart(workers)?);
    }
    let failed = FirstError::default();
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for workers in &mut all {
        let failed = &failed;
        subjects.push(Box::new(move || failed.or_nan(workers.run())));
    }
    let samples = run_rounds(if options.quick { 30 } else { 150 }, &mut subjects);
    drop(subjects);
    failed.tell()?;
    report(&samples)
}

fn report(samples: &[Samples]) -> Result<Report> {
    let one = samples.first().ok_or_else(|| anyhow!("no subjects"))?;
    let cases = WORKERS.iter().zip(samples.chunks_exact(2));
    let cases = cases.map(|(workers, samples)| {
        let (shared, apart) = (&samples[0], &samples[1]);
        let spread = shared.summary();
        Case {
            workers: *workers,
            ns: spread.median,
            apart_ns: apart.summary().median,
            over_apart: shared.over(apart).summary(),
            over_one: shared.over(one).summary(),
            spread,
        }
    });
    Ok(Report {
        cores: thread::available_parallelism().map_or(1, usize::from),
        cases: cases.collect(),
    })
}

impl Workers {
    fn of_one_relay(workers: usize) -> Result<Self> {
        Self::with_paths(Testbed::several(workers, 16)?)
    }

    fn apart(workers: usize) -> Result<Self> {
        let testbeds = (0..workers).map(|_| Testbed::new(16));
        Self::with_paths(testbeds.collect::<Result<_>>()?)
    }

    /// Each knows a path of its own.
    fn with_paths(testbeds: Vec<Testbed>) -> Result<Self> {
        let known = testbeds.into_iter().map(|mut testbed| {
            let path = path(&testbed.onion())?;
            let header = path.header;
            testbed.learn(path)?;
            Ok((testbed, header))
        });
        Ok(Self(known.collect::<Result<_>>()?))
    }

    /// All of them at the same time, each on a core of its own as far as there are so many. The nanoseconds that
    /// a datagram takes one of them: the median over their rounds and over them.
    fn run(&mut self) -> Result<f64> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let count = self.0.len();
        let (together, ended) = (Barrier::new(count), AtomicUsize::new(0));
        let (together, ended) = (&together, &ended);
        let medians: Vec<Result<f64>> = thread::scope(|scope| {
            let threads = self
                .0
                .iter_mut()
                .enumerate()
                .map(|(worker, (testbed, header))| {
                    let core = cores.iter().rev().cycle().nth(worker).copied();
                    scope.spawn(move || {
                        core.map(core_affinity::set_for_current);
                        together.wait();
                        let took = (0..ROUNDS).map(|_| testbed.round(|| &*header));
                        let took = took.collect::<Result<Samples>>();
                        ended.fetch_add(1, Ordering::Relaxed);
                        // Who is done keeps the others company.
                        while took.is_ok() && ended.load(Ordering::Relaxed) < count {
                            testbed.round(|| &*header)?;
                        }
                        Ok(took?.summary().median)
                    })
                });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| {
                let ended = thread.join().map_err(|_| anyhow!("has panicked"));
                ended.flatten()
            });
            joined.collect()
        });
        let medians = medians.into_iter().collect::<Result<Samples>>();
        Ok(medians.context("a worker")?.summary().median)
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        let shared = self.cases.iter().filter(|case| case.workers > 1);
        shared
            .map(|case| {
                Goal::at_most(
                    format!(
                        "{} workers of one relay, over as many apart (times)",
                        case.workers
                    ),
                    Some(case.over_apart.median),
                    OVER_APART,
                )
            })
            .collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let bars = self.cases.iter().map(|case| {
            Bar::new(format!("{} workers", case.workers), case.spread)
                .with(Bound::AtMost(OVER_APART * case.apart_ns))
        });
        vec![Plot::Bars(Bars {
            title: "A datagram on one of several workers".into(),
            note: format!(
                "Workers of one relay on {} cores; the bound is what it takes in relays that share nothing.",
                self.cores
            ),
            unit: "ns".into(),
            bars: bars.collect(),
        })]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "cores: a datagram on one of several workers, {} cores (median, and where 8 of 10 rounds lie)",
            self.cores
        )?;
        writeln!(
            f,
            "  {:>7}  {:>20}  {:>20}  {:>20}",
            "workers", "ns", "over apart", "over one"
        )?;
        for case in &self.cases {
            writeln!(
                f,
                "  {:>7}  {:>20}  {:>20}  {:>20}",
                case.workers,
                format!("{:.0}", case.spread),
                format!("{:.2}", case.over_apart),
                format!("{:.2}", case.over_one),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_replay_filter_and_those_of_relays_apart_do_not() {
        let mut shared = Workers::of_one_relay(3).unwrap();
        assert!(shared.run().unwrap() > 0.0);
        let fill = |workers: &Workers, at: usize| workers.0[at].0.replay_fill();
        assert!(fill(&shared, 0) > 0.0);
        assert_eq!(fill(&shared, 0).to_bits(), fill(&shared, 2).to_bits());
        let mut apart = Workers::apart(2).unwrap();
        let before = [0, 1].map(|at| fill(&apart, at));
        let (testbed, header) = &mut apart.0[0];
        let header = *header;
        // One tag in 64 counts.
        for _ in 0..8 {
            testbed.round(|| &header).unwrap();
        }
        assert!(fill(&apart, 0) > before[0]);
        assert_eq!(fill(&apart, 1).to_bits(), before[1].to_bits());
        assert!(apart.run().unwrap() > 0.0);
    }

    #[test]
    fn names_in_the_json() {
        let one = |ns: f64| [ns, ns, ns].into_iter().collect::<Samples>();
        let samples = [500.0, 500.0, 550.0, 520.0, 1200.0, 1000.0].map(one);
        let report = report(&samples).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let two = &json["cases"][1];
        assert_eq!((&two["workers"], &two["ns"]), (&2.into(), &550.0.into()));
        assert_eq!(two["over_one"]["median"], 1.1);
        let goals = crate::Report::goals(&report);
        let reached: Vec<_> = goals.iter().map(Goal::reached).collect();
        assert_eq!(reached, [Some(true), Some(false)]);
        assert!(report.to_string().contains("over apart"));
    }
}
