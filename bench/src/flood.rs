//! What honest neighbours get through a relay while a flood comes, on AF_XDP, on UDP, and on UDP
//! behind the XDP filter.
//!
//! Honest datagrams come at a steady rate, about half of what the relay is good for, from 64
//! neighbours. In between, as fast as the generator can: random bytes of the right length, random
//! bytes that bear the index of a live session, datagrams that have come before, and handshake
//! initiations that are well formed and come from forged addresses, one as often as the other.
//! What comes back is compared with what comes back without the flood, in turns.
//!
//! Then whole networks: what strangers can do who know the protocol ([`attacks`]).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use mixline_testnet::programs;
use serde::Serialize;

use crate::attacks::{self, Row};
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
const KEPT: f64 = 0.9;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Frames of the flood a second that came to the relay on AF_XDP, the median.
    pub rate_pps: Option<f64>,
    /// Goodput on AF_XDP under the flood, as a share of that without; the median.
    pub xdp_kept: Option<f64>,
    /// The same on UDP.
    pub udp_kept: Option<f64>,
    /// The same on UDP behind the XDP filter.
    pub xdp_filter_kept: Option<f64>,
    /// All that was measured of one relay; empty if one attack was asked for.
    pub ports: Vec<Port>,
    /// Attacks on a network.
    pub attacks: Vec<Row>,
}

impl Report {
    fn new(ports: Vec<Port>, attacks: Vec<Row>) -> Self {
        let [xdp, udp, filter] = [0, 1, 2].map(|at| ports.get(at));
        let kept = |port: Option<&Port>| port.map(|port| port.kept.median);
        Self {
            rate_pps: xdp.map(|port| port.flood_pps.median),
            xdp_kept: kept(xdp),
            udp_kept: kept(udp),
            xdp_filter_kept: kept(filter),
            ports,
            attacks,
        }
    }
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
    let ports = if options.attack.is_none() {
        one_relay(options)?
    } else {
        Vec::new()
    };
    Ok(Report::new(ports, attacks::run(options)?))
}

/// One relay on each port.
fn one_relay(options: &Options) -> Result<Vec<Port>> {
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
        Ok(subjects.iter().map(Subject::port).collect())
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
        let what = "goodput kept under a flood, on AF_XDP";
        let mut goals = vec![Goal::at_least(what, self.xdp_kept, KEPT)];
        goals.extend(attacks::goals(&self.attacks));
        goals
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
        let ports = Plot::Bars(Bars {
            title: "Honest datagrams that come through".into(),
            note: format!(
                "Each port is offered half of what it is good for, and beside that a flood of \
                 {:.0} datagrams a second: garbage, replays and forged handshakes.",
                self.rate_pps.unwrap_or_default()
            ),
            unit: "datagrams/s".into(),
            bars: bars.collect(),
        });
        let ports = (!self.ports.is_empty()).then_some(ports);
        ports
            .into_iter()
            .chain(attacks::plots(&self.attacks))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flood:")?;
        if let Some(rate) = self.rate_pps {
            writeln!(
                f,
                " goodput kept under {rate:.0} frames a second of a flood (median, and where 8 of \
                 10 rounds lie)",
            )?;
        } else {
            writeln!(f)?;
        }
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
        attacks::write(&self.attacks, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Report as _;
    use crate::attacks::tests::row;
    use crate::cli::Attack;

    fn port(name: &'static str, kept: f64) -> Port {
        let summary = Summary::of;
        Port {
            name,
            honest_pps: 1000.0,
            calm_pps: summary(1000.0),
            flooded_pps: summary(1000.0 * kept),
            kept: summary(kept),
            flood_pps: summary(1e6),
            kept_of: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        }
    }

    #[test]
    fn names_in_the_json() {
        let ports = [("AF_XDP", 0.9), ("UDP", 0.4), ("UDP behind XDP", 0.8)];
        let ports = ports.map(|(name, kept)| port(name, kept)).into();
        let report = Report::new(ports, vec![row(Attack::Paths, 900.0, 20)]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["xdp_kept"], &json["udp_kept"]),
            (&0.9.into(), &0.4.into())
        );
        assert_eq!(
            (&json["xdp_filter_kept"], &json["rate_pps"]),
            (&0.8.into(), &1e6.into())
        );
        assert_eq!(json["attacks"][0]["name"], "paths");
        assert_eq!((report.goals().len(), report.plots().len()), (3, 3));
    }

    #[test]
    fn one_attack_alone_says_nothing_of_ports() {
        let report = Report::new(Vec::new(), vec![row(Attack::Paths, 900.0, 20)]);
        assert_eq!(report.goals()[0].reached(), None);
        assert_eq!(report.plots().len(), 2);
        let said = report.to_string();
        assert!(said.starts_with("flood:\n  attacks on a network"), "{said}");
        assert!(said.contains("0.90 (1000)"), "{said}");
    }
}
