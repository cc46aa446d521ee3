//! A relay between neighbours, on a wire: datagrams a second that it forwards, with all
//! cryptography, on AF_XDP and on UDP, beside an AF_XDP echo that does nothing with them.
//!
//! The relay is the real one, in a process, a namespace and on a core of its own, with real
//! links to 64 neighbours and a path to each. All that is compared takes turns in one run.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Options;
use crate::generator::{Fed, Feed, Generator, Kind, Look, NEIGHBOURS, in_new_namespace};
use crate::machine;
use crate::measure::{Summary, Turns};

/// Frames of a turn.
const FRAMES: u32 = 96 * 1024;
/// The core of what is measured. The generator has the last one.
pub const CORE: usize = 0;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// All cases.
    pub cases: Vec<Case>,
}

/// One kind of thing with so many next hops.
#[derive(Debug, Serialize)]
pub struct Case {
    /// What it is.
    pub name: String,
    /// Next hops.
    pub hops: usize,
    /// Datagrams a second that came back.
    pub pps: Summary,
    /// offered
    pub offered: f64,
    /// busy
    pub busy: f64,
    /// last
    pub verdicts: std::collections::BTreeMap<String, u64>,
}

/// Runs it.
///
/// # Errors
/// If something does not start, or does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe().context("where this program is")?;
    let turns = if options.quick { 5 } else { 15 };
    in_new_namespace(|| {
        machine::stay_on_one_core();
        let mut generator = Generator::load(FRAMES, 1)?;
        let kinds = [
            ("echo", Kind::Echo),
            (
                "xdp ring",
                Kind::Relay("port: xdp\nxdp_send: ring\ninterface: relay0".into()),
            ),
            (
                "xdp gso",
                Kind::Relay("port: xdp\nxdp_send: gso\ninterface: relay0".into()),
            ),
            ("udp", Kind::Relay("port: udp".into())),
        ];
        let mut feeds = Vec::new();
        for (number, (name, kind)) in (1..).zip(kinds) {
            eprintln!("forward: starting {name}");
            let feed = Feed::start(
                &mut generator,
                &program,
                number,
                directory.path(),
                &kind,
                CORE,
            )?;
            if let Ok(report) = feed.report() {
                eprintln!("forward: {}: {}", report.port.kind, report.port.why);
            }
            feeds.push((name, feed));
        }
        let rate: f64 = std::env::var("RATE")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(1e6);
        let mut all: Vec<(String, usize, Vec<Fed>)> = Vec::new();
        for turn in 0..turns {
            let mut at = 0;
            for (name, feed) in &mut feeds {
                for hops in [1, NEIGHBOURS] {
                    let look = Look {
                        rate,
                        count: FRAMES,
                        flood: 0,
                    };
                    let fed = feed.run(&mut generator, hops, look)?;
                    eprintln!("{turn} {name} {hops}: {fed:?}");
                    if turn == 0 {
                        all.push((name.to_string(), hops, Vec::new()));
                    } else {
                        all[at].2.push(fed);
                    }
                    at += 1;
                }
            }
        }
        Ok(Report {
            cases: all
                .into_iter()
                .map(|(name, hops, fed)| Case {
                    name,
                    hops,
                    pps: fed.iter().map(|f| f.returned).collect::<Turns>().summary(),
                    offered: fed[0].offered,
                    busy: fed.iter().map(|f| f.busy).sum::<f64>() / fed.len() as f64,
                    verdicts: fed[0].verdicts.clone(),
                })
                .collect(),
        })
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            writeln!(
                f,
                "{:10} {:3} {:.0} offered {:.0} busy {:.2} {:?}",
                case.name, case.hops, case.pps, case.offered, case.busy, case.verdicts
            )?;
        }
        Ok(())
    }
}
