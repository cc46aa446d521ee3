//! What honest neighbours get through a relay while a flood comes, on AF_XDP, on UDP, and on UDP
//! behind the XDP filter.
//!
//! Honest datagrams come at a steady rate, about half of what the relay is good for, from 64
//! neighbours. In between, as fast as the generator can: random bytes of the right length, random
//! bytes that bear the index of a live session, datagrams that have come before, and handshake
//! initiations that are well formed and come from forged addresses, one as often as the other.
//! What comes back is compared with what comes back without the flood, in turns.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use mixline_testnet::programs;
use serde::Serialize;

use crate::forward::{CORE, relay_with};
use crate::generator::{Fed, Feed, Garbage, Generator, Load, NEIGHBOURS, in_new_namespace};
use crate::measure::{Samples, Summary};
use crate::outcome::{Bar, Bars, Bound};
use crate::{Goal, Options, Plot, machine};

/// Room for honest datagrams of a round.
const FRAMES: u32 = 128 * 1024;
/// How long a round is.
const ROUND: Duration = Duration::from_millis(600);
/// Frames of the flood, a multiple of the number of kinds; they are sent over and over.
const GARBAGE: u32 = 1024;
/// Datagrams a second that the relay is offered to find out what it is good for.
const OFFERED: f64 = 1e6;
/// The share of that which is offered beside the flood.
const SHARE: f64 = 0.5;
/// What is to be left of the goodput on AF_XDP.
const KEPT: f64 = 0.8;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Frames of the flood a second that came to the relay on AF_XDP, the median.
    pub rate_pps: f64,
    /// Goodput on AF_XDP under the flood, as a share of that without; the median.
    pub xdp_kept: f64,
    /// The same on UDP.
    pub udp_kept: f64,
    /// The same on UDP behind the XDP filter.
    pub xdp_filter_kept: f64,
    /// All that was measured.
    pub ports: Vec<Port>,
}

/// One port.
#[derive(Debug, Serialize)]
pub struct Port {
    /// What it is.
    pub name: &'static str,
    /// Honest datagrams a second that were offered.
    pub honest_pps: f64,
    /// Of which came back without a flood.
    pub calm_pps: Summary,
    /// And with it.
    pub flooded_pps: Summary,
    /// The second over the first, round by round.
    pub kept: Summary,
    /// Frames of the flood a second.
    pub flood_pps: Summary,
    /// What is kept if there is only one kind of flood; only without `--quick`.
    pub kept_of: BTreeMap<&'static str, f64>,
    /// What became of all frames of one flooded round, by the verdicts of the relay and of its
    /// XDP program.
    pub verdicts: BTreeMap<String, u64>,
}

/// What is compared.
const SUBJECTS: [(&str, &str); 3] = [
    ("AF_XDP", "port: xdp\n"),
    ("UDP", "port: udp\n"),
    ("UDP behind XDP", "port: xdp-filter\n"),
];

/// Runs it.
///
/// # Errors
/// If something does not start, or does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    eprintln!("flood: honest datagrams among others");
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe().context("where this program is")?;
    let relay = programs::relay()?;
    let rounds = if options.quick { 5 } else { 15 };
    in_new_namespace(|| {
        machine::stay_on_one_core();
        let mut generator = Generator::load(FRAMES, GARBAGE)?;
        let mut subjects = Vec::new();
        for (number, (name, more)) in (1..).zip(SUBJECTS) {
            let (path, kind) = (directory.path(), relay_with(&relay, more));
            let feed = Feed::start(&mut generator, &program, number, path, &kind, CORE)?;
            subjects.push(Subject::new(name, feed, &mut generator)?);
        }
        for round in 0..=rounds {
            eprintln!("flood: round {round} of {rounds}");
            for subject in &mut subjects {
                let calm = subject.round(&mut generator, &[])?;
                let flooded = subject.round(&mut generator, &Garbage::ALL)?;
                if round > 0 {
                    subject.runs.push((calm, flooded));
                }
            }
        }
        if !options.quick {
            for subject in &mut subjects {
                eprintln!("flood: {}, one kind after the other", subject.name);
                subject.one_kind_at_a_time(&mut generator, rounds)?;
            }
        }
        let ports: Vec<Port> = subjects.iter().map(Subject::port).collect();
        let [xdp, udp, filter] = &ports[..] else {
            anyhow::bail!("a port is missing");
        };
        Ok(Report {
            rate_pps: xdp.flood_pps.median,
            xdp_kept: xdp.kept.median,
            udp_kept: udp.kept.median,
            xdp_filter_kept: filter.kept.median,
            ports,
        })
    })
}

/// A relay under a flood.
struct Subject {
    name: &'static str,
    feed: Feed,
    honest: f64,
    runs: Vec<(Fed, Fed)>,
    kept_of: BTreeMap<&'static str, f64>,
}

impl Subject {
    /// Finds out what the relay is good for, and so what it is offered.
    fn new(name: &'static str, mut feed: Feed, generator: &mut Generator) -> Result<Self> {
        let load = Load {
            rate: OFFERED,
            count: FRAMES,
            flood: 0,
        };
        let runs = (0..3).map(|_| feed.run(generator, NEIGHBOURS, load));
        let runs = runs.collect::<Result<Vec<_>>>()?;
        let good = runs.iter().map(|fed| fed.returned).collect::<Samples>();
        let most = f64::from(FRAMES) / ROUND.as_secs_f64();
        Ok(Self {
            name,
            feed,
            honest: (good.summary().median * SHARE).min(most),
            runs: Vec::new(),
            kept_of: BTreeMap::new(),
        })
    }

    /// One round with these kinds of garbage.
    fn round(&mut self, generator: &mut Generator, kinds: &[Garbage]) -> Result<Fed> {
        for (at, kind) in (0..GARBAGE).zip(kinds.iter().cycle()) {
            let frame = kind.frame(&mut self.feed, at as usize / kinds.len())?;
            generator.set_flood(at, &frame)?;
        }
        let replays = kinds.contains(&Garbage::Replay);
        if replays {
            // They are replays when they have come once.
            self.feed.send(
                generator,
                Load {
                    rate: OFFERED,
                    count: 0,
                    flood: GARBAGE,
                },
            )?;
        }
        let load = Load {
            rate: self.honest,
            count: (self.honest * ROUND.as_secs_f64()) as u32,
            flood: if kinds.is_empty() { 0 } else { GARBAGE },
        };
        self.feed
            .run(generator, NEIGHBOURS, load)
            .with_context(|| self.name)
    }

    fn one_kind_at_a_time(&mut self, generator: &mut Generator, rounds: usize) -> Result<()> {
        for (name, kind) in [
            ("random", Garbage::Random),
            ("guessed", Garbage::Guessed),
            ("replay", Garbage::Replay),
            ("handshake", Garbage::Handshake),
        ] {
            let mut kept = Vec::new();
            for _ in 0..rounds.div_ceil(3) {
                let calm = self.round(generator, &[])?;
                let flooded = self.round(generator, &[kind])?;
                kept.push(flooded.returned / calm.returned);
            }
            let kept = kept.into_iter().collect::<Samples>().summary().median;
            self.kept_of.insert(name, kept);
        }
        Ok(())
    }

    fn port(&self) -> Port {
        let of = |figure: fn(&(Fed, Fed)) -> f64| self.runs.iter().map(figure).collect::<Samples>();
        Port {
            name: self.name,
            honest_pps: self.honest,
            calm_pps: of(|(calm, _)| calm.returned).summary(),
            flooded_pps: of(|(_, flooded)| flooded.returned).summary(),
            kept: of(|(calm, flooded)| flooded.returned / calm.returned).summary(),
            flood_pps: of(|(_, flooded)| flooded.flooded).summary(),
            kept_of: self.kept_of.clone(),
            verdicts: self
                .runs
                .last()
                .map(|(_, f)| f.verdicts.clone())
                .unwrap_or_default(),
        }
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        vec![Goal::at_least(
            "goodput kept under a flood, on AF_XDP",
            Some(self.xdp_kept),
            KEPT,
        )]
    }

    fn plots(&self) -> Vec<Plot> {
        let bars = self.ports.iter().flat_map(|port| {
            let flooded = Bar::new(format!("{}, flooded", port.name), port.flooded_pps);
            let flooded = if port.name == SUBJECTS[0].0 {
                flooded.with(Bound::AtLeast(KEPT * port.calm_pps.median))
            } else {
                flooded
            };
            [
                flooded,
                Bar::new(format!("{}, calm", port.name), port.calm_pps),
            ]
        });
        vec![Plot::Bars(Bars {
            title: "Honest datagrams that come through".into(),
            note: format!(
                "Each port is offered half of what it is good for, and beside that a flood of \
                 {:.0} datagrams a second: garbage, replays and forged handshakes.",
                self.rate_pps
            ),
            unit: "datagrams/s".into(),
            bars: bars.collect(),
        })]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "flood: goodput kept under {:.0} frames a second of a flood (median, and where 8 of \
             10 rounds lie)",
            self.rate_pps
        )?;
        for port in &self.ports {
            writeln!(f, "  {:<15} {:.2}", port.name, port.kept)?;
            writeln!(f, "    calm, datagrams a second      {:.0}", port.calm_pps)?;
            writeln!(
                f,
                "    flooded, datagrams a second   {:.0}",
                port.flooded_pps
            )?;
            writeln!(f, "    of the flood, a second        {:.0}", port.flood_pps)?;
            for (kind, kept) in &port.kept_of {
                writeln!(f, "    kept if all is {kind:<15} {kept:.2}")?;
            }
        }
        Ok(())
    }
}
