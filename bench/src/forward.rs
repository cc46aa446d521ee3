//! A relay between neighbours, on a wire: datagrams a second that it forwards, with all
//! cryptography, on AF_XDP and on UDP, beside an AF_XDP echo that does nothing with them.
//!
//! The relay is the real one, in a process, in a namespace and on a core of its own, with real
//! links to 64 neighbours and a path to each. Datagrams come from as many neighbours as they go
//! to. All that is compared takes turns in one run, and is offered more than it takes: what comes
//! back in a second is what it is good for. Then one datagram is under way at a time
//! ([`one_at_a_time`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::programs;
use serde::Serialize;

use crate::generator::node::DEVICE;
use crate::generator::{Fed, Feed, Generator, Kind, Load, NEIGHBOURS, in_new_namespace};
use crate::measure::{Samples, Summary};
use crate::one_at_a_time::{self, OneAtATime};
use crate::outcome::{Bar, Bars, Bound};
use crate::{Goal, Options, Plot, machine};

/// Datagrams of a round.
const FRAMES: u32 = 96 * 1024;
/// Datagrams offered a second: more than anything here forwards.
const OFFERED: f64 = 2e6;
/// The core of what is measured. The generator has the last one.
pub const CORE: usize = 0;
/// What the relay is to reach of the echo's rate, with one next hop and with 64.
const OF_ECHO: [f64; 2] = [0.8, 0.65];
/// What the relay on AF_XDP is to reach of the rate on UDP.
const OF_UDP: f64 = 1.0;

/// What was measured; rates in datagrams a second, medians.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The echo, with one neighbour.
    pub raw_xdp_pps: f64,
    /// The relay on AF_XDP, sending as it does by itself in the mode that was granted; one next
    /// hop.
    pub xdp_pps: f64,
    /// The relay on UDP, one next hop.
    pub udp_pps: f64,
    /// The relay on UDP behind the XDP filter, one next hop.
    pub xdp_filter_pps: f64,
    /// The echo, with 64 neighbours.
    pub raw_xdp_pps_64: f64,
    /// The relay on AF_XDP, 64 next hops.
    pub xdp_pps_64: f64,
    /// The relay on UDP, 64 next hops.
    pub udp_pps_64: f64,
    /// The relay on UDP behind the XDP filter, 64 next hops.
    pub xdp_filter_pps_64: f64,
    /// `xdp_pps` over `raw_xdp_pps`, round by round.
    pub xdp_over_raw: Summary,
    /// `xdp_pps_64` over `raw_xdp_pps`, round by round.
    pub xdp_64_over_raw: Summary,
    /// `xdp_pps` over `udp_pps`, round by round.
    pub xdp_over_udp: Summary,
    /// `xdp_pps_64` over `udp_pps_64`, round by round.
    pub xdp_64_over_udp_64: Summary,
    /// How long one datagram takes through a relay that has no other, in microseconds.
    pub one_at_a_time_us: OneAtATime,
    /// What the relay on AF_XDP was granted, and how it sends.
    pub granted: String,
    /// All cases, also those of the relay on AF_XDP with the other way of sending.
    pub cases: Vec<Case>,
}

/// One of what is compared, with so many neighbours.
#[derive(Debug, Serialize)]
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// Next hops, and neighbours that datagrams come from.
    pub hops: usize,
    /// Datagrams a second that came back.
    pub pps: Summary,
    /// Datagrams a second that were offered.
    pub offered_pps: Summary,
    /// The share of its time that the relay's core was busy.
    pub busy: Summary,
    /// Of all datagrams that were sent, which share never came to be counted by a worker:
    /// dropped before, because rings or buffers were full. None for the echo, which does not count.
    pub lost_before_worker: Option<f64>,
    /// What became of the datagrams of one round, by the verdicts of the relay and of its XDP
    /// program.
    pub verdicts: BTreeMap<String, u64>,
    #[serde(skip)]
    samples: Samples,
}

/// What is compared.
const SUBJECTS: [(&str, Option<&str>); 5] = [
    ("AF_XDP echo", None),
    ("relay, AF_XDP, GSO", Some("port: xdp\nxdp_send: gso\n")),
    (
        "relay, AF_XDP, TX ring",
        Some("port: xdp\nxdp_send: ring\n"),
    ),
    ("relay, UDP", Some("port: udp\n")),
    ("relay, UDP behind XDP", Some("port: xdp-filter\n")),
];

/// Where the relay on AF_XDP that sends with GSO stands in [`SUBJECTS`].
const GSO: usize = 1;

/// Runs it.
///
/// # Errors
/// If something does not start, or does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    eprintln!("forward: a relay on a wire, datagrams made in the kernel");
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe().context("where this program is")?;
    let relay = programs::relay()?;
    let rounds = if options.quick { 5 } else { 15 };
    in_new_namespace(|| {
        machine::stay_on_one_core();
        let mut generator = Generator::load(FRAMES, 0)?;
        let mut feeds = Vec::new();
        for (number, (_, more)) in (1..).zip(SUBJECTS) {
            let kind = more.map_or(Kind::Echo, |more| relay_with(&relay, more));
            let path = directory.path();
            feeds.push(Feed::start(
                &mut generator,
                &program,
                number,
                path,
                &kind,
                CORE,
            )?);
        }
        let all = run_rounds(&mut generator, &mut feeds, rounds)?;
        let granted = feeds[GSO].status()?.port.why;
        let [echo, gso, ring, udp, filter] = &mut feeds[..] else {
            bail!("a feed is missing");
        };
        let xdp = if sends_by_ring(&granted) { ring } else { gso };
        let single = one_at_a_time::run(&mut generator, [echo, xdp, udp, filter], rounds)?;
        report(&all, single, granted)
    })
}

/// Whether a relay on AF_XDP sends through the TX ring by itself, by what it says of the mode that it
/// was granted: with zero-copy it does, in copy mode it sends with GSO.
fn sends_by_ring(granted: &str) -> bool {
    granted.contains("zero-copy")
}

/// A relay of this program, with this in its configuration.
pub fn relay_with(program: &Path, more: &str) -> Kind {
    Kind::Relay {
        program: program.to_owned(),
        more: format!("interface: {DEVICE}\n{more}"),
    }
}

/// All subjects with one and with 64 neighbours in each round; a first round does not count.
fn run_rounds(
    generator: &mut Generator,
    feeds: &mut [Feed],
    rounds: usize,
) -> Result<Vec<(&'static str, usize, Vec<Fed>)>> {
    let mut all: Vec<_> = SUBJECTS
        .into_iter()
        .flat_map(|(name, _)| [1, NEIGHBOURS].map(|hops| (name, hops, Vec::new())))
        .collect();
    let load = Load {
        rate: OFFERED,
        count: FRAMES,
        flood: 0,
    };
    for round in 0..=rounds {
        eprintln!("forward: round {round} of {rounds}");
        for at in 0..all.len() {
            // Each time another one first.
            let at = (at + round) % all.len();
            let (name, hops, runs) = &mut all[at];
            let fed = feeds[at / 2]
                .run(generator, *hops, load)
                .with_context(|| format!("{name}, {hops} neighbours"))?;
            ensure!(
                fed.to == *hops,
                "{name}: datagrams came back to {} of {hops} neighbours",
                fed.to
            );
            if round > 0 {
                runs.push(fed);
            }
        }
    }
    Ok(all)
}

fn report(
    all: &[(&'static str, usize, Vec<Fed>)],
    one_at_a_time_us: OneAtATime,
    granted: String,
) -> Result<Report> {
    let cases: Vec<Case> = all
        .iter()
        .map(|(name, hops, runs)| Case::of(name, *hops, runs))
        .collect();
    let [
        raw,
        raw_64,
        gso,
        gso_64,
        ring,
        ring_64,
        udp,
        udp_64,
        filter,
        filter_64,
    ] = &cases[..]
    else {
        bail!("a case is missing");
    };
    let (xdp, xdp_64) = if sends_by_ring(&granted) {
        (ring, ring_64)
    } else {
        (gso, gso_64)
    };
    Ok(Report {
        raw_xdp_pps: raw.pps.median,
        xdp_pps: xdp.pps.median,
        udp_pps: udp.pps.median,
        xdp_filter_pps: filter.pps.median,
        raw_xdp_pps_64: raw_64.pps.median,
        xdp_pps_64: xdp_64.pps.median,
        udp_pps_64: udp_64.pps.median,
        xdp_filter_pps_64: filter_64.pps.median,
        xdp_over_raw: xdp.samples.over(&raw.samples).summary(),
        xdp_64_over_raw: xdp_64.samples.over(&raw.samples).summary(),
        xdp_over_udp: xdp.samples.over(&udp.samples).summary(),
        xdp_64_over_udp_64: xdp_64.samples.over(&udp_64.samples).summary(),
        one_at_a_time_us,
        granted,
        cases,
    })
}

impl Case {
    fn of(name: &'static str, hops: usize, runs: &[Fed]) -> Self {
        let of = |figure: fn(&Fed) -> f64| runs.iter().map(figure).collect::<Samples>();
        let samples = of(|fed| fed.returned);
        let last = runs.last();
        let worked = |fed: &Fed| {
            let own = fed
                .verdicts
                .iter()
                .filter(|(name, _)| !name.starts_with("xdp "));
            own.map(|(_, count)| *count).sum::<u64>()
        };
        let lost = last
            .filter(|fed| !fed.verdicts.is_empty())
            .map(|fed| 1.0 - (worked(fed) as f64 / fed.sent.honest.max(1) as f64).min(1.0));
        Self {
            name,
            hops,
            pps: samples.summary(),
            offered_pps: of(|fed| fed.offered).summary(),
            busy: of(|fed| fed.busy).summary(),
            lost_before_worker: lost,
            verdicts: last.map(|fed| fed.verdicts.clone()).unwrap_or_default(),
            samples,
        }
    }

    fn label(&self) -> String {
        match self.hops {
            1 => self.name.to_owned(),
            hops => format!("{}, {hops} next hops", self.name),
        }
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::at_least(
                "a relay on AF_XDP, of a bare echo's rate",
                Some(self.xdp_over_raw.median),
                OF_ECHO[0],
            ),
            Goal::at_least(
                "the same with 64 next hops",
                Some(self.xdp_64_over_raw.median),
                OF_ECHO[1],
            ),
            Goal::at_least("AF_XDP over UDP", Some(self.xdp_over_udp.median), OF_UDP),
            Goal::at_least(
                "the same with 64 next hops",
                Some(self.xdp_64_over_udp_64.median),
                OF_UDP,
            ),
        ]
    }

    fn plots(&self) -> Vec<Plot> {
        let bars = |one: bool| {
            let cases = self
                .cases
                .iter()
                .filter(move |case| (case.hops == 1) == one);
            let bars = cases.map(|case| {
                let bar = Bar::new(case.name, case.pps);
                if case.name == SUBJECTS[GSO].0 {
                    bar.with(Bound::AtLeast(
                        OF_ECHO[usize::from(!one)] * self.raw_xdp_pps,
                    ))
                } else {
                    bar
                }
            });
            bars.collect::<Vec<_>>()
        };
        vec![
            Plot::Bars(Bars {
                title: "Forwarded by one core, one next hop".into(),
                note: format!("The relay does all its cryptography; {}.", self.granted),
                unit: "datagrams/s".into(),
                bars: bars(true),
            }),
            Plot::Bars(Bars {
                title: "Forwarded by one core, 64 next hops".into(),
                note: "From 64 neighbours, to 64 neighbours, at random.".into(),
                unit: "datagrams/s".into(),
                bars: bars(false),
            }),
            self.one_at_a_time_us.bars(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "forward: datagrams a second through one core (median, and where 8 of 10 rounds lie)"
        )?;
        writeln!(
            f,
            "  AF_XDP relay over bare echo      {:.2}",
            self.xdp_over_raw
        )?;
        writeln!(
            f,
            "  the same, 64 next hops           {:.2}",
            self.xdp_64_over_raw
        )?;
        writeln!(
            f,
            "  AF_XDP over UDP                  {:.2}",
            self.xdp_over_udp
        )?;
        writeln!(
            f,
            "  the same, 64 next hops           {:.2}",
            self.xdp_64_over_udp_64
        )?;
        for case in &self.cases {
            write!(f, "  {:<40} {:.0}", case.label(), case.pps)?;
            writeln!(f, " of {:.0}", case.offered_pps.median)?;
        }
        write!(f, "{}", self.one_at_a_time_us)?;
        writeln!(f, "  AF_XDP: {}", self.granted)
    }
}
