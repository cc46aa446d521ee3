//! The same datagrams with more and more known paths, and with more and more link sessions, and
//! what those take of memory.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, anyhow};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{Header, PATH_HEADER};
use rand_core::Rng;
use serde::Serialize;

use crate::machine::{available, resident, stay_on_one_core};
use crate::measure::{FirstError, Samples, Subject, Summary, run_rounds};
use crate::outcome::{Axis, Lines, Point, Scale, Series};
use crate::testbed::{Path, Testbed, path};
use crate::{Goal, Options, Plot};

/// How many paths are known, from case to case.
const PATHS: [usize; 4] = [1, 1000, 100_000, 1_000_000];
/// How many sessions there are, from case to case; the first is that of the paths.
const SESSIONS: [usize; 3] = [100, 10_000, 100_000];
/// Memory of a path with its header as the sender knows it, and of a session with both ends.
const BYTES_EACH: u64 = 2500;
/// What a datagram of one of a million paths may take, nanoseconds, and what those may take of memory, bytes.
const BOUNDS: [f64; 2] = [1400.0, 0.7e9];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By number of known paths, under one session.
    pub paths: Vec<Case>,
    /// By number of link sessions, on one path.
    pub sessions: Vec<Case>,
}

/// One number of paths or sessions.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// How many.
    pub n: usize,
    /// One datagram of any of them, in nanoseconds, the median.
    pub ns: f64,
    /// How much more memory was resident after they were there.
    pub bytes: u64,
    /// How long with so many over how long with one, round by round.
    pub over_one: Summary,
    /// The time with its spread.
    pub spread: Summary,
}

/// A relay, and what comes to it.
struct Subjected {
    n: usize,
    testbed: Testbed,
    headers: Vec<Header>,
    neighbours: usize,
    bytes: u64,
}

/// Runs it.
///
/// # Errors
/// If the relay does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    stay_on_one_core();
    let mut cases = Vec::new();
    for n in PATHS {
        let needed = n as u64 * BYTES_EACH;
        if available().is_some_and(|there| there < needed + needed / 4) {
            eprintln!("scale: {n} paths left out: they need {} MB", needed >> 20);
            continue;
        }
        cases.push(with_paths(n)?);
    }
    let of_paths = cases.len();
    for n in SESSIONS {
        cases.push(with_sessions(n)?);
    }
    eprintln!("scale: datagrams of paths and of neighbours at random");
    let failed = FirstError::default();
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for case in &mut cases {
        let (mut of_path, mut of_neighbour) = (Lcg(1), Lcg(2));
        let failed = &failed;
        subjects.push(Box::new(move || {
            failed.or_nan(case.testbed.round_from(
                || of_neighbour.below(case.neighbours),
                || &case.headers[of_path.below(case.headers.len())],
            ))
        }));
    }
    let samples = run_rounds(if options.quick { 500 } else { 2000 }, &mut subjects);
    drop(subjects);
    failed.tell()?;
    let one = samples.first().ok_or_else(|| anyhow!("no subjects"))?;
    let mut all: Vec<Case> = cases
        .iter()
        .zip(&samples)
        .map(|(case, samples)| told(case, samples, one))
        .collect();
    let mut sessions = all.split_off(of_paths);
    sessions.insert(0, all[0].clone());
    Ok(Report {
        paths: all,
        sessions,
    })
}

fn told(case: &Subjected, samples: &Samples, one: &Samples) -> Case {
    let spread = samples.summary();
    Case {
        n: case.n,
        ns: spread.median,
        bytes: case.bytes,
        over_one: samples.over(one).summary(),
        spread,
    }
}

/// A relay that knows `n` paths.
///
/// The first is real. The others have random headers, and payload keys of their own, as the
/// relay's slow path would have made of headers that it opened; that takes 100 µs each.
fn with_paths(n: usize) -> Result<Subjected> {
    let rng = &mut OsRandom::new();
    let mut testbed = Testbed::new(n)?;
    let real = path(&testbed.onion())?;
    let mut headers: Vec<Header> = vec![[1; PATH_HEADER]; n];
    let mut told = Instant::now();
    let before = resident();
    for (count, header) in headers.iter_mut().enumerate().skip(1) {
        if told.elapsed().as_secs() >= 2 {
            eprintln!("scale: {count} of {n} paths");
            told = Instant::now();
        }
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        rng.fill_bytes(header);
        testbed.learn(Path {
            header: *header,
            known: real.known.beside(&key),
        })?;
    }
    headers[0] = real.header;
    testbed.learn(real)?;
    Ok(Subjected {
        n,
        testbed,
        headers,
        neighbours: 1,
        bytes: resident().saturating_sub(before),
    })
}

/// A relay with `n` link sessions and one path.
fn with_sessions(n: usize) -> Result<Subjected> {
    let mut case = with_paths(1)?;
    case.bytes = case.testbed.add_neighbours(n)?;
    (case.n, case.neighbours) = (n, n);
    Ok(case)
}

/// A generator that costs nothing and repeats from run to run (Knuth's MMIX constants).
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * n as u64) >> 32) as usize
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        let million = self.paths.iter().find(|case| case.n == 1_000_000);
        vec![
            Goal::at_most(
                "a datagram of one of 1,000,000 known paths (ns)",
                million.map(|case| case.ns),
                BOUNDS[0],
            ),
            Goal::at_most(
                "memory of 1,000,000 known paths (bytes)",
                million.map(|case| case.bytes as f64),
                BOUNDS[1],
            ),
        ]
    }

    fn plots(&self) -> Vec<Plot> {
        let axis = |label: &str, scale| Axis {
            label: label.into(),
            scale,
        };
        let line = |label: &str, cases: &[Case], y: fn(&Case) -> Summary| Series {
            label: label.into(),
            points: cases
                .iter()
                .map(|case| {
                    let y = y(case);
                    Point {
                        x: case.n as f64,
                        y: y.median,
                        spread: Some((y.low, y.high)),
                    }
                })
                .collect(),
        };
        let both = |y: fn(&Case) -> Summary| {
            vec![
                line("known paths", &self.paths, y),
                line("link sessions", &self.sessions, y),
            ]
        };
        let memory = |case: &Case| Summary::of(case.bytes.max(1) as f64 / 1e6);
        vec![
            Plot::Lines(Lines {
                title: "A datagram with more and more paths and sessions".into(),
                note: "Each datagram is of a path, or a session, at random: nothing that it needs \
                       is in the processor's caches any more."
                    .into(),
                x: axis("how many", Scale::Logarithmic),
                y: axis("times one path", Scale::Linear),
                series: both(|case| case.over_one),
                bounds: Vec::new(),
            }),
            Plot::Lines(Lines {
                title: "What they take of memory".into(),
                note: String::new(),
                x: axis("how many", Scale::Logarithmic),
                y: axis("MB", Scale::Logarithmic),
                series: vec![
                    line("known paths", &self.paths[1..], memory),
                    line("link sessions", &self.sessions[1..], memory),
                ],
                bounds: Vec::new(),
            }),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scale: a datagram of one of many (median, and where 8 of 10 rounds lie)"
        )?;
        for (what, cases) in [("paths", &self.paths), ("sessions", &self.sessions)] {
            writeln!(
                f,
                "  {what:>9}  {:>20}  {:>20}  memory",
                "times one path", "ns"
            )?;
            for case in cases {
                writeln!(
                    f,
                    "  {:>9}  {:>20}  {:>20}  {:.1} MB",
                    case.n,
                    format!("{:.2}", case.over_one),
                    format!("{:.0}", case.spread),
                    case.bytes as f64 / 1e6
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_and_sessions_are_relayed_and_their_memory_is_seen() {
        for mut case in [with_paths(2000).unwrap(), with_sessions(2000).unwrap()] {
            assert_eq!(case.n, 2000);
            // A path has 1.4 KB and a session 1.8 KB; other tests may free some meanwhile.
            assert!(case.bytes < 64 << 20, "{} bytes", case.bytes);
            let (mut at, mut from) = (Lcg(1), Lcg(2));
            let took = case.testbed.round_from(
                || from.below(case.neighbours),
                || &case.headers[at.below(case.headers.len())],
            );
            assert!(took.unwrap() > 0.0);
        }
    }

    #[test]
    fn names_in_the_json() {
        let case = |n| Case {
            n,
            ns: 1300.0,
            bytes: 1460,
            over_one: Summary::of(1.5),
            spread: Summary::of(1500.0),
        };
        let report = Report {
            paths: vec![case(1), case(1_000_000)],
            sessions: vec![case(1)],
        };
        let json = serde_json::to_value(&report).unwrap();
        for list in ["paths", "sessions"] {
            let first = &json[list][0];
            assert_eq!((&first["n"], &first["ns"]), (&1.into(), &1300.0.into()));
            assert_eq!(first["bytes"], 1460);
        }
        let goals = crate::Report::goals(&report);
        assert!(goals.iter().all(|goal| goal.reached() == Some(true)));
    }
}
