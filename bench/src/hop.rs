//! One datagram of a known path on one core, from sealed datagram in to sealed datagram out.
//!
//! Measured is the relay's own batch function. Beside it are the bare primitives (what a
//! relay cannot do without), what others take for the same ([`crate::peers`]), and the opening of
//! headers of new paths.

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use mixline_protocol::path::open_header;
use mixline_protocol::size::PAYLOAD;
use mixline_wide_crypto::Width;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, Took};
use crate::measure::{FirstError, Samples, Subject, Summary, run_rounds};
use crate::outcome::{Bar, Bars, Bound};
use crate::peers::{Peers, peers};
use crate::testbed::{Testbed, header, nanoseconds, path};
use crate::{Goal, Options, Plot, machine};

/// Headers opened in a round.
const OPENED: usize = 6;

/// At most so many times the bare primitives.
const OVER_BASELINE: f64 = 1.25;
/// At most so many times what well-known crates take: HCTR2 by `aes` and `polyval`, AES-256-GCM by `ring`.
const OVER_CRATES: [f64; 2] = [0.35, 0.7];
/// At least so many times as fast as `sphinx-packet`.
const FASTER: f64 = 150.0;
/// At least so many new paths a second.
const NEW_PATHS: f64 = 9000.0;

/// What was measured. Times are in nanoseconds; what is missing are peers that were not built in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether this was built for one kind of processor and not for all.
    pub native: bool,
    /// One datagram through the batch function, the median.
    pub ns: f64,
    /// One datagram's bare primitives, the median.
    pub floor_ns: f64,
    /// The first over the second, round by round, the median.
    pub over_floor: f64,
    /// The processor's instructions that are used.
    pub cpu: String,
    /// HCTR2 over what the crates `aes` and `polyval` take, the median.
    pub hctr2_over_crates: f64,
    /// AES-256-GCM, sealing and opening, over what `ring` takes, the median.
    pub gcm_over_ring: f64,
    /// A packet of a cell's size unwrapped by `sphinx-packet`.
    pub sphinx_packet_ns: Option<f64>,
    /// How many times as fast as that one datagram is, round by round, the median.
    pub faster_than_sphinx_packet: Option<f64>,
    /// A relay cell of Tor as it is today, for each of its bytes.
    pub tor1_ns_per_byte: Option<f64>,
    /// A relay cell of Tor in Counter Galois Onion, for each of its bytes.
    pub tor_cgo_ns_per_byte: Option<f64>,
    /// The payload's layer off, for each of its bytes.
    pub peel_ns_per_byte: f64,
    /// Headers of new paths that one core opens in a second.
    pub new_paths_per_s: f64,
    /// All of these with their spread.
    pub spread: Spread,
}

/// Medians and spreads.
#[derive(Debug, Serialize, Deserialize)]
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
    /// HCTR2 over the crates.
    pub hctr2_over_crates: Summary,
    /// AES-256-GCM over `ring`.
    pub gcm_over_ring: Summary,
    /// Opening one header.
    pub new_path_ns: Summary,
    /// The peers, if they were built in.
    pub peers: Option<PeerSpread>,
}

/// Medians and spreads of the peers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PeerSpread {
    /// A packet of `sphinx-packet`.
    pub sphinx_packet_ns: Summary,
    /// Over one datagram here.
    pub faster_than_sphinx_packet: Summary,
    /// A byte of Tor's relay cell.
    pub tor1_ns_per_byte: Summary,
    /// A byte of Tor's relay cell, Counter Galois Onion.
    pub tor_cgo_ns_per_byte: Summary,
}

/// Runs it.
///
/// # Errors
/// If the relay, or a peer, does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    machine::stay_on_one_core();
    eprintln!("hop: one datagram of a known path on one core");
    let mut testbed = Testbed::new(16)?;
    let onion = testbed.onion();
    let known = path(&onion)?;
    let of_known = known.header;
    testbed.learn(known)?;
    let mut baseline = Baseline::new();
    let (mut parts_of, mut by_crates) = (Baseline::new(), Baseline::by_crates()?);
    let fresh = header(&onion)?;
    let mut peers = peers()?;
    let parts = RefCell::new(Vec::new());
    let failed = FirstError::default();
    let mut subjects: Vec<Subject<'_>> = vec![
        Box::new(|| failed.or_nan(testbed.round(|| &of_known))),
        Box::new(|| failed.or_nan(baseline.round())),
        Box::new(|| {
            let both = parts_of
                .parts()
                .and_then(|own| Ok((own, by_crates.parts()?)));
            failed.or_nan(both.map(|both| {
                parts.borrow_mut().push(both);
                0.0
            }))
        }),
        Box::new(|| {
            let began = Instant::now();
            for _ in 0..OPENED {
                let opened = open_header(&onion, black_box(&fresh));
                failed.or_nan(opened.map(|_| 0.0).map_err(|error| anyhow!(error)));
            }
            nanoseconds(began.elapsed()) / OPENED as f64
        }),
    ];
    if let Some(Peers {
        sphinx_packet,
        tor1,
        tor_cgo,
    }) = &mut peers
    {
        subjects.push(Box::new(|| failed.or_nan(sphinx_packet())));
        subjects.push(Box::new(|| failed.or_nan(tor1())));
        subjects.push(Box::new(|| failed.or_nan(tor_cgo())));
    }
    let samples = run_rounds(if options.quick { 1000 } else { 4000 }, &mut subjects);
    drop(subjects);
    failed.tell()?;
    report(&samples, &parts.into_inner())
}

fn report(samples: &[Samples], parts: &[(Took, Took)]) -> Result<Report> {
    let [hop, baseline, _, opening, others @ ..] = samples else {
        return Err(anyhow!("a subject is missing"));
    };
    let part = |of: fn(&Took) -> f64| -> Summary {
        let own = parts.iter().map(|(own, _)| of(own));
        own.collect::<Samples>().summary()
    };
    let over_crates = |of: fn(&Took) -> f64| -> Summary {
        let ratios = parts.iter().map(|(own, crates)| of(own) / of(crates));
        ratios.collect::<Samples>().summary()
    };
    let peers = match others {
        [sphinx_packet, tor1, tor_cgo] => Some(PeerSpread {
            sphinx_packet_ns: sphinx_packet.summary(),
            faster_than_sphinx_packet: sphinx_packet.over(hop).summary(),
            tor1_ns_per_byte: tor1.summary(),
            tor_cgo_ns_per_byte: tor_cgo.summary(),
        }),
        _ => None,
    };
    let spread = Spread {
        ns: hop.summary(),
        floor_ns: baseline.summary(),
        over_floor: hop.over(baseline).summary(),
        open_ns: part(|took| took.open),
        hctr2_ns: part(|took| took.hctr2),
        seal_ns: part(|took| took.seal),
        hctr2_over_crates: over_crates(|took| took.hctr2),
        gcm_over_ring: over_crates(|took| took.open + took.seal),
        new_path_ns: opening.summary(),
        peers,
    };
    Ok(Report {
        native: machine::is_native(),
        ns: spread.ns.median,
        floor_ns: spread.floor_ns.median,
        over_floor: spread.over_floor.median,
        cpu: Width::current().name().to_owned(),
        hctr2_over_crates: spread.hctr2_over_crates.median,
        gcm_over_ring: spread.gcm_over_ring.median,
        sphinx_packet_ns: peers.map(|peers| peers.sphinx_packet_ns.median),
        faster_than_sphinx_packet: peers.map(|peers| peers.faster_than_sphinx_packet.median),
        tor1_ns_per_byte: peers.map(|peers| peers.tor1_ns_per_byte.median),
        tor_cgo_ns_per_byte: peers.map(|peers| peers.tor_cgo_ns_per_byte.median),
        peel_ns_per_byte: spread.hctr2_ns.median / PAYLOAD as f64,
        new_paths_per_s: 1e9 / spread.new_path_ns.median,
        spread,
    })
}

impl Report {
    fn build(&self) -> &'static str {
        if self.native {
            "built for this processor"
        } else {
            "built for all processors"
        }
    }
}

impl crate::Report for Report {
    fn goals(&self) -> Vec<Goal> {
        let build = self.build();
        let mut goals = vec![Goal::at_least(
            format!("as fast as sphinx-packet, {build} (times)"),
            self.faster_than_sphinx_packet,
            FASTER,
        )];
        if !self.native {
            goals.insert(
                0,
                Goal::at_most(
                    "a datagram, over its bare primitives (times)",
                    Some(self.over_floor),
                    OVER_BASELINE,
                ),
            );
            // Where there are no wide instructions, it is the crates that do it.
            let is_wide = self.cpu != "scalar" && self.cpu != "aesni";
            goals.push(Goal::at_most(
                "HCTR2, over the crates `aes` and `polyval` (times)",
                is_wide.then_some(self.hctr2_over_crates),
                OVER_CRATES[0],
            ));
            goals.push(Goal::at_most(
                "AES-256-GCM, over `ring` (times)",
                is_wide.then_some(self.gcm_over_ring),
                OVER_CRATES[1],
            ));
            goals.push(Goal::at_least(
                "new paths a second on one core",
                Some(self.new_paths_per_s),
                NEW_PATHS,
            ));
        }
        goals
    }

    fn plots(&self) -> Vec<Plot> {
        let (spread, build) = (&self.spread, self.build());
        let baseline = spread.floor_ns.median;
        let mut plots = vec![Plot::Bars(Bars {
            title: format!("One datagram of a known path, {build}"),
            note: "From sealed to sealed: the link opened, the replay filter asked, the path's \
                   layer off, the next link sealed. Below, the bare primitives on buffers of the \
                   same size."
                .into(),
            unit: "ns".into(),
            bars: vec![
                Bar::new("relay, sealed to sealed", spread.ns)
                    .with(Bound::AtMost(OVER_BASELINE * baseline)),
                Bar::new("bare primitives", spread.floor_ns),
                Bar::new("· AES-256-GCM open", spread.open_ns),
                Bar::new("· HCTR2", spread.hctr2_ns),
                Bar::new("· AES-256-GCM seal", spread.seal_ns),
            ],
        })];
        if let Some(peers) = spread.peers {
            plots.push(Plot::Bars(Bars {
                title: format!("A packet beside Nym's, {build}"),
                note: format!(
                    "sphinx-packet takes {} times as long for a packet of the same size; it does \
                     the header's public-key work for each.",
                    peers.faster_than_sphinx_packet.median.round()
                ),
                unit: "ns".into(),
                bars: vec![
                    Bar::new("relay, sealed to sealed", spread.ns)
                        .with(Bound::AtMost(peers.sphinx_packet_ns.median / FASTER)),
                    Bar::new("a new path's header", spread.new_path_ns),
                    Bar::new("sphinx-packet unwrap", peers.sphinx_packet_ns),
                ],
            }));
            plots.push(Plot::Bars(Bars {
                title: format!("A layer off, for each byte, {build}"),
                note: "HCTR2 here has keys of 256 bits, Tor's relay crypto of 128.".into(),
                unit: "ns/byte".into(),
                bars: vec![
                    Bar::new(
                        "Mixline (HCTR2-AES-256)",
                        spread.hctr2_ns.map(|ns| ns / PAYLOAD as f64),
                    ),
                    Bar::new("Tor today (AES-128-CTR)", peers.tor1_ns_per_byte),
                    Bar::new("Tor, Counter Galois Onion", peers.tor_cgo_ns_per_byte),
                ],
            }));
        }
        plots
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = &self.spread;
        writeln!(
            f,
            "hop: one datagram of a known path, {} (median, and where 8 of 10 rounds lie)",
            self.build()
        )?;
        writeln!(f, "  over bare primitives        {:.2}", spread.over_floor)?;
        match &spread.peers {
            Some(peers) => writeln!(
                f,
                "  times as fast as sphinx-packet {:.1}",
                peers.faster_than_sphinx_packet
            )?,
            None => writeln!(f, "  no peers: not built with the feature `peers`")?,
        }
        writeln!(f, "  sealed to sealed         ns {:.0}", spread.ns)?;
        writeln!(f, "  bare primitives          ns {:.0}", spread.floor_ns)?;
        writeln!(f, "    AES-256-GCM open       ns {:.0}", spread.open_ns)?;
        writeln!(f, "    HCTR2                  ns {:.0}", spread.hctr2_ns)?;
        writeln!(f, "    AES-256-GCM seal       ns {:.0}", spread.seal_ns)?;
        writeln!(f, "  instructions                {}", self.cpu)?;
        let [hctr2, gcm] = [spread.hctr2_over_crates, spread.gcm_over_ring];
        writeln!(f, "    HCTR2, over the crates    {hctr2:.2}")?;
        writeln!(f, "    AES-256-GCM, over ring    {gcm:.2}")?;
        if let Some(peers) = &spread.peers {
            writeln!(
                f,
                "  sphinx-packet unwrap     ns {:.0}",
                peers.sphinx_packet_ns
            )?;
            writeln!(
                f,
                "  a layer off, ns per byte    {:.3}",
                self.peel_ns_per_byte
            )?;
            writeln!(
                f,
                "    Tor today                 {:.3}",
                peers.tor1_ns_per_byte
            )?;
            writeln!(
                f,
                "    Tor, CGO                  {:.3}",
                peers.tor_cgo_ns_per_byte
            )?;
        }
        writeln!(f, "  a new path's header      ns {:.0}", spread.new_path_ns)?;
        writeln!(
            f,
            "  new paths a second          {:.0}",
            self.new_paths_per_s
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Report as _;
    use crate::baseline::Took;

    fn measured(peers: bool) -> Report {
        let samples = |ns| Samples::from_iter([ns; 3]);
        let mut all = vec![
            samples(1200.0),
            samples(1000.0),
            samples(1000.0),
            samples(100_000.0),
        ];
        if peers {
            all.extend([samples(120_000.0), samples(0.4), samples(0.9)]);
        }
        let took = Took {
            open: 250.0,
            hctr2: 536.0,
            seal: 214.0,
        };
        let by_crates = Took {
            open: 500.0,
            hctr2: 2000.0,
            seal: 428.0,
        };
        Report {
            cpu: "vaes512".into(),
            ..report(&all, &[(took, by_crates)]).unwrap()
        }
    }

    #[test]
    fn names_in_the_json() {
        let json = serde_json::to_value(measured(true)).unwrap();
        for (name, value) in [
            ("ns", 1200.0),
            ("floor_ns", 1000.0),
            ("over_floor", 1.2),
            ("sphinx_packet_ns", 120_000.0),
            ("faster_than_sphinx_packet", 100.0),
            ("tor1_ns_per_byte", 0.4),
            ("tor_cgo_ns_per_byte", 0.9),
            ("peel_ns_per_byte", 0.5),
            ("new_paths_per_s", 10_000.0),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        // What another build of this program has written is read.
        let read: Report = serde_json::from_value(json).unwrap();
        assert_eq!(read.to_string(), measured(true).to_string());
    }

    #[test]
    fn without_peers_their_figures_are_null() {
        let report = measured(false);
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["sphinx_packet_ns"].is_null() && json["tor_cgo_ns_per_byte"].is_null());
        assert!(report.to_string().contains("no peers"));
        let reached: Vec<_> = report.goals().iter().map(Goal::reached).collect();
        let yes = Some(true);
        assert_eq!(reached, [yes, None, yes, yes, yes]);
        // There the crates do it themselves.
        let report = Report {
            cpu: "scalar".into(),
            ..report
        };
        let reached: Vec<_> = report.goals().iter().map(Goal::reached).collect();
        assert_eq!(reached, [yes, None, None, None, yes]);
    }

    #[test]
    fn a_native_build_has_one_goal() {
        let report = Report {
            native: true,
            ..measured(true)
        };
        let [goal] = &report.goals()[..] else {
            panic!("other goals");
        };
        assert_eq!(goal.bound, Bound::AtLeast(150.0));
    }
}
