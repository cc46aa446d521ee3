//! One datagram of a known path on one core, from sealed datagram in to sealed datagram out.
//!
//! Measured is the relay's own batch function. Beside it stand the bare primitives (what a
//! relay cannot do without) and the opening of headers of new paths.

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use mixline_protocol::path::open_header;
use mixline_protocol::size::PAYLOAD;
use serde::Serialize;

use crate::floor::Floor;
use crate::measure::{Subject, Summary, Turns, take_turns};
use crate::stand::{Stand, header, nanoseconds, path};
use crate::{Goal, Options, machine};

/// Headers opened in a turn.
const OPENED: usize = 4;

/// What was measured. Times are in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One datagram through the batch function, the median.
    pub ns: f64,
    /// One datagram's bare primitives, the median.
    pub floor_ns: f64,
    /// The first over the second, turn by turn, the median.
    pub over_floor: f64,
    /// The payload's layer off, for each of its bytes.
    pub peel_ns_per_byte: f64,
    /// Headers of new paths that one core opens in a second.
    pub new_paths_per_s: f64,
    /// All of these with their spread.
    pub spread: Spread,
}

/// Medians and spreads.
#[derive(Debug, Serialize)]
pub struct Spread {
    /// One datagram through the batch function.
    pub ns: Summary,
    /// Its bare primitives.
    pub floor_ns: Summary,
    /// Ratio of the two.
    pub over_floor: Summary,
    /// AES-256-GCM open.
    pub open_ns: Summary,
    /// HCTR2.
    pub hctr2_ns: Summary,
    /// AES-256-GCM seal.
    pub seal_ns: Summary,
    /// Opening one header.
    pub new_path_ns: Summary,
}

/// Runs it.
///
/// # Errors
/// If the relay does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    machine::stay_on_one_core();
    eprintln!("hop: one datagram of a known path on one core");
    let mut stand = Stand::new(16)?;
    let onion = stand.onion();
    let known = path(&onion)?;
    let of_known = known.header;
    stand.learn(known)?;
    let mut floor = Floor::new()?;
    let mut parts_of = Floor::new()?;
    let fresh = header(&onion)?;
    let parts = RefCell::new(Vec::new());
    // A subject cannot return an error; the first one is kept, and told at the end.
    let failed = RefCell::new(None);
    let or_fail = |result: Result<f64>| {
        result.unwrap_or_else(|error| {
            failed.borrow_mut().get_or_insert(error);
            f64::NAN
        })
    };
    let mut subjects: Vec<Subject<'_>> = vec![
        Box::new(|| or_fail(stand.turn(|| &of_known))),
        Box::new(|| or_fail(floor.turn())),
        Box::new(|| {
            or_fail(parts_of.parts().map(|took| {
                parts.borrow_mut().push(took);
                took.open + took.hctr2 + took.seal
            }))
        }),
        Box::new(|| {
            let began = Instant::now();
            for _ in 0..OPENED {
                let opened = open_header(&onion, black_box(&fresh));
                or_fail(opened.map(|_| 0.0).map_err(|error| anyhow!(error)));
            }
            nanoseconds(began.elapsed()) / OPENED as f64
        }),
    ];
    let turns = take_turns(if options.quick { 300 } else { 2000 }, &mut subjects);
    drop(subjects);
    if let Some(error) = failed.take() {
        return Err(error);
    }
    let [hop, floor, _, opening] = &turns[..] else {
        return Err(anyhow!("a subject is missing"));
    };
    let parts = parts.into_inner();
    let part = |of: fn(&crate::floor::Took) -> f64| -> Summary {
        parts.iter().map(of).collect::<Turns>().summary()
    };
    let spread = Spread {
        ns: hop.summary(),
        floor_ns: floor.summary(),
        over_floor: hop.over(floor).summary(),
        open_ns: part(|took| took.open),
        hctr2_ns: part(|took| took.hctr2),
        seal_ns: part(|took| took.seal),
        new_path_ns: opening.summary(),
    };
    Ok(Report {
        ns: spread.ns.median,
        floor_ns: spread.floor_ns.median,
        over_floor: spread.over_floor.median,
        peel_ns_per_byte: spread.hctr2_ns.median / PAYLOAD as f64,
        new_paths_per_s: 1e9 / spread.new_path_ns.median,
        spread,
    })
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::at_most("a hop over its bare primitives", Some(self.over_floor), 1.35),
            Goal::at_least("new paths a second", Some(self.new_paths_per_s), 9000.0),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = &self.spread;
        writeln!(
            f,
            "hop: one datagram of a known path (median, and where 8 of 10 turns lie)"
        )?;
        writeln!(f, "  times the bare primitives   {:.2}", spread.over_floor)?;
        writeln!(f, "  sealed to sealed         ns {:.0}", spread.ns)?;
        writeln!(f, "  bare primitives          ns {:.0}", spread.floor_ns)?;
        writeln!(f, "    AES-256-GCM open       ns {:.0}", spread.open_ns)?;
        writeln!(f, "    HCTR2                  ns {:.0}", spread.hctr2_ns)?;
        writeln!(f, "    AES-256-GCM seal       ns {:.0}", spread.seal_ns)?;
        writeln!(f, "  a new path's header      ns {:.0}", spread.new_path_ns)?;
        writeln!(
            f,
            "  new paths a second          {:.0}",
            self.new_paths_per_s
        )
    }
}
