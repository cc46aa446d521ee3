//! The same datagrams with more and more known paths, and what those take of memory.

use std::cell::RefCell;
use std::fmt;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use mixline_protocol::path::OnionSecret;
use mixline_protocol::size::Header;
use serde::Serialize;

use crate::machine::{go_to_core, resident, stay_on_one_core};
use crate::measure::{Subject, Summary, take_turns};
use crate::stand::{Path, Stand, path};
use crate::{Goal, Options};

/// Paths that are made at a time, so that few are there twice.
const AT_A_TIME: usize = 4096;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By number of paths.
    pub paths: Vec<Case>,
}

/// One number of known paths.
#[derive(Debug, Serialize)]
pub struct Case {
    /// How many.
    pub n: usize,
    /// One datagram of any of them, in nanoseconds, the median.
    pub ns: f64,
    /// How much more memory was resident after they were learnt.
    pub bytes: u64,
    /// How long with so many over how long with one, turn by turn.
    pub over_one: Summary,
    /// The time with its spread.
    pub spread: Summary,
}

/// Runs it.
///
/// # Errors
/// If the relay does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    stay_on_one_core();
    let counts: &[usize] = if options.quick {
        &[1, 1000, 100_000]
    } else {
        &[1, 1000, 100_000, 1_000_000]
    };
    let mut stands = Vec::new();
    for n in counts {
        stands.push(populated(*n)?);
    }
    eprintln!("scale: datagrams of paths at random");
    let failed = RefCell::new(None);
    let mut memory = Vec::new();
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for (stand, headers, bytes) in &mut stands {
        memory.push(*bytes);
        let mut at = Lcg(1);
        let failed = &failed;
        subjects.push(Box::new(move || {
            stand
                .turn(|| &headers[at.below(headers.len())])
                .unwrap_or_else(|error| {
                    failed.borrow_mut().get_or_insert(error);
                    f64::NAN
                })
        }));
    }
    let turns = take_turns(if options.quick { 300 } else { 2000 }, &mut subjects);
    drop(subjects);
    if let Some(error) = failed.take() {
        return Err(error);
    }
    let one = turns.first().ok_or_else(|| anyhow!("no turns"))?;
    let cases = counts
        .iter()
        .zip(memory)
        .zip(&turns)
        .map(|((n, bytes), turns)| {
            let spread = turns.summary();
            Case {
                n: *n,
                ns: spread.median,
                bytes,
                over_one: turns.over(one).summary(),
                spread,
            }
        });
    Ok(Report {
        paths: cases.collect(),
    })
}

/// A relay that knows `n` paths, their headers, and what the relay's memory grew by.
fn populated(n: usize) -> Result<(Stand, Vec<Header>, u64)> {
    let mut stand = Stand::new(n)?;
    let onion = stand.onion();
    let mut headers = vec![[1; 296]; n];
    let mut bytes = 0;
    let mut told = Instant::now();
    for (count, headers) in headers.chunks_mut(AT_A_TIME).enumerate() {
        if told.elapsed().as_secs() >= 2 {
            eprintln!("scale: {} of {n} paths made", count * AT_A_TIME);
            told = Instant::now();
        }
        let paths = make(&onion, headers.len())?;
        let before = resident();
        for (header, path) in headers.iter_mut().zip(paths) {
            *header = path.header;
            stand.learn(path)?;
        }
        bytes += resident().saturating_sub(before);
    }
    Ok((stand, headers, bytes))
}

/// Makes paths on all cores.
fn make(onion: &OnionSecret, n: usize) -> Result<Vec<Path>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|number| {
                let share = (n + number) / threads;
                scope.spawn(move || {
                    go_to_core(number);
                    (0..share).map(|_| path(onion)).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut paths = Vec::with_capacity(n);
        for handle in handles {
            paths.extend(
                handle
                    .join()
                    .map_err(|_| anyhow!("a thread has panicked"))??,
            );
        }
        Ok(paths)
    })
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
        let measured = million.map(|case| case.over_one.median);
        vec![Goal::at_most("1,000,000 paths over one path", measured, 1.6)]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scale: a datagram of one of many known paths")?;
        writeln!(
            f,
            "  {:>9}  {:>18}  {:>20}  memory",
            "paths", "times one path", "ns"
        )?;
        for case in &self.paths {
            writeln!(
                f,
                "  {:>9}  {:>18}  {:>20}  {:.1} MB",
                case.n,
                format!("{:.2}", case.over_one),
                format!("{:.0}", case.spread),
                case.bytes as f64 / 1e6
            )?;
        }
        Ok(())
    }
}
