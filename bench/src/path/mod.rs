//! Three and three relays, end to end: what TCP streams get, what UDP loses, how long a round trip
//! takes, what the relays do for it.
//!
//! A whole network runs on this machine, with the client, the service and all relays on its cores
//! at once; what is measured is what all of them leave each other. Rounds of all measurements
//! follow one another, so that what else the machine does falls on all alike. Where Debian's `tor` is
//! there, a private network of Tor then comes up beside, and both are compared, in rounds too.

mod iperf;
mod plots;
pub(crate) mod probes;
pub(crate) mod round_trips;
mod tools;
mod tor;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mixline_testnet::topology::{Node, RELAYS};
use mixline_testnet::web::DOWNLOAD_BYTES;
use mixline_testnet::{Network, Programs};
use serde::Serialize;

use crate::Options;
use crate::measure::{Samples, Summary};
use probes::Echo;
use round_trips::{Counts, RoundTrips};

pub use tools::Tool;
pub use tor::OverTor;

/// Microseconds from probe to probe.
const EVERY: u64 = 1000;
/// Bytes of a probe: as a voice packet's.
const PROBE: usize = 160;
/// Offered rates of UDP, in bytes a second.
const RATES: [u64; 5] = [4_000_000, 10_000_000, 20_000_000, 40_000_000, 80_000_000];
/// Bytes in a UDP datagram: with its headers, what most paths carry.
const DATAGRAM: &str = "1200";

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the relays received and sent with: as asked for, and as the first of them has it.
    pub port: [String; 2],
    /// One TCP stream from the service to the client, the median.
    pub one_stream_bytes_per_s: f64,
    /// Eight at once, all together, the median.
    pub eight_streams_bytes_per_s: f64,
    /// Round trips with nothing else on the network, in microseconds.
    pub rtt_idle_us: RoundTrips,
    /// Round trips beside one TCP stream at full speed, in microseconds.
    pub rtt_loaded_us: RoundTrips,
    /// What UDP from the client to the service lost, by rate.
    pub udp_loss: Vec<Loss>,
    /// Processor time of each relay while the TCP streams ran.
    pub relays: Vec<Relay>,
    /// Gigabytes that the TCP streams delivered in that time, their start included.
    pub delivered_gb: f64,
    /// The streams with their spread.
    pub spread: Spread,
    /// A download from an onion service on a private network of Tor, the median.
    pub tor_bytes_per_s: Option<f64>,
    /// The same download from Mixline's service over that, round by round, the median.
    pub over_tor: Option<f64>,
    /// All that was compared with Tor.
    pub tor: Option<OverTor>,
    /// Why nothing was.
    pub without_tor: Option<String>,
}

/// Medians and spreads.
#[derive(Debug, Serialize)]
pub struct Spread {
    /// Of one stream.
    pub one_stream_bytes_per_s: Summary,
    /// Of eight.
    pub eight_streams_bytes_per_s: Summary,
}

/// UDP at one rate.
#[derive(Debug, Serialize)]
pub struct Loss {
    /// What was sent, the median: at high rates less than was asked for.
    pub rate_bytes_per_s: f64,
    /// The share that did not arrive, the median.
    pub lost_share: f64,
    /// The share with its spread.
    pub spread: Summary,
}

/// One relay.
#[derive(Debug, Serialize)]
pub struct Relay {
    /// Its name.
    pub name: String,
    /// Processor time, in seconds.
    pub cpu_s: f64,
}

/// How long each part of a round is, and how many rounds there are.
struct Plan {
    rounds: usize,
    tcp: Duration,
    udp: Duration,
    idle_probes: u64,
    loaded: Duration,
    beside_tor: tor::Plan,
}

impl Plan {
    fn of(options: &Options) -> Self {
        let seconds = Duration::from_secs;
        if options.quick {
            Self {
                rounds: 2,
                tcp: seconds(2),
                udp: seconds(1),
                idle_probes: 1000,
                loaded: seconds(2),
                beside_tor: tor::Plan {
                    rounds: 3,
                    sizes: tor::Sizes {
                        download: 20_000_000,
                        pages: 5,
                    },
                },
            }
        } else {
            Self {
                rounds: 5,
                tcp: seconds(5),
                udp: seconds(2),
                idle_probes: 5000,
                loaded: seconds(5),
                beside_tor: tor::Plan {
                    rounds: 7,
                    sizes: tor::Sizes {
                        download: DOWNLOAD_BYTES,
                        pages: 10,
                    },
                },
            }
        }
    }
}

/// What the rounds yield.
#[derive(Default)]
struct Rounds {
    one: Vec<f64>,
    eight: Vec<f64>,
    delivered: f64,
    idle: Vec<Counts>,
    loaded: Vec<Counts>,
    /// Rate and loss, by the rate asked for.
    loss: HashMap<u64, Vec<(f64, f64)>>,
    cpu: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// If the network does not come up, or a program on it fails.
pub fn run(options: &Options) -> Result<Report> {
    mixline_testnet::end_on_signals()?;
    let began = Instant::now();
    let network_options = mixline_testnet::Options {
        ports: vec![options.port],
        ..mixline_testnet::Options::default()
    };
    let mut network = Network::up(Programs::release()?, network_options, |line| {
        eprintln!("path: {:5.1} s  {line}", began.elapsed().as_secs_f64());
    })?;
    let granted = network.relay_status(1)?["port"]["kind"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    let plan = Plan::of(options);
    let rounds = measure(&mut network, &plan)?;
    let compared = tor::compare(&network, &plan.beside_tor)?;
    if let Err(why) = &compared {
        eprintln!("path: not compared with Tor: {why}");
    }
    let report = report(&rounds, [options.port.name().to_owned(), granted], compared)?;
    network.down()?;
    Ok(report)
}

fn measure(network: &mut Network, plan: &Plan) -> Result<Rounds> {
    let to = network.identity(Node::Service)?.ipv4;
    let _iperf = iperf::Server::start()?;
    let _echo = Echo::start(to)?;
    let mut rounds = Rounds {
        cpu: vec![0.0; RELAYS],
        ..Rounds::default()
    };
    // The first packets make sessions and paths.
    probes(to, 200)?;
    for round in 1..=plan.rounds {
        eprintln!("path: round {round} of {}", plan.rounds);
        rounds.idle.push(probes(to, plan.idle_probes)?);
        let before = cpu(network)?;
        for (streams, rates) in [("1", &mut rounds.one), ("8", &mut rounds.eight)] {
            let options = ["--reverse", "--parallel", streams];
            let rate = iperf::delivered(&iperf::patiently(|| {
                iperf::Client::start(network, to, plan.tcp, &options)?.finish()
            })?)?;
            rounds.delivered += rate * plan.tcp.as_secs_f64();
            rates.push(rate);
        }
        for (sum, (after, before)) in rounds.cpu.iter_mut().zip(cpu(network)?.iter().zip(before)) {
            *sum += after - before;
        }
        rounds
            .loaded
            .push(iperf::patiently(|| loaded(network, to, plan))?);
        for rate in RATES {
            let bits = (8 * rate).to_string();
            let options = ["--udp", "--bitrate", &bits, "--length", DATAGRAM];
            let said = iperf::patiently(|| {
                iperf::Client::start(network, to, plan.udp, &options)?.finish()
            })?;
            let loss = iperf::loss(&said)?;
            rounds.loss.entry(rate).or_default().push(loss);
        }
    }
    Ok(rounds)
}

/// Round trips beside a TCP stream.
fn loaded(network: &Network, to: Ipv4Addr, plan: &Plan) -> Result<Counts> {
    let stream = iperf::Client::start(
        network,
        to,
        plan.loaded + Duration::from_secs(2),
        &["--reverse"],
    )?;
    thread::sleep(Duration::from_millis(500)); // slow start
    let micros = u64::try_from(plan.loaded.as_micros())?;
    let counts = probes(to, micros / EVERY)?;
    stream.finish()?;
    Ok(counts)
}

/// Sends so many probes of a voice packet's length from the client to the echo.
fn probes(to: Ipv4Addr, count: u64) -> Result<Counts> {
    probes::run(to, count, EVERY, PROBE)
}

/// Processor time of all relays so far, in seconds.
fn cpu(network: &mut Network) -> Result<Vec<f64>> {
    (1..=RELAYS)
        .map(|number| {
            let node = Node::Relay(number);
            let process = network
                .process(node)
                .with_context(|| format!("{node} does not run"))?;
            process.check_running()?;
            Ok(process.usage()?.cpu_s)
        })
        .collect()
}

fn report(rounds: &Rounds, port: [String; 2], compared: Result<OverTor, String>) -> Result<Report> {
    let (tor, without_tor) = match compared {
        Ok(tor) => (Some(tor), None),
        Err(why) => (None, Some(why)),
    };
    let summary = |of: &[f64]| of.iter().copied().collect::<Samples>().summary();
    let spread = Spread {
        one_stream_bytes_per_s: summary(&rounds.one),
        eight_streams_bytes_per_s: summary(&rounds.eight),
    };
    let udp_loss = RATES.iter().filter_map(|rate| rounds.loss.get(rate));
    Ok(Report {
        port,
        one_stream_bytes_per_s: spread.one_stream_bytes_per_s.median,
        eight_streams_bytes_per_s: spread.eight_streams_bytes_per_s.median,
        rtt_idle_us: RoundTrips::of(&rounds.idle).context("idle")?,
        rtt_loaded_us: RoundTrips::of(&rounds.loaded).context("loaded")?,
        udp_loss: udp_loss
            .map(|figures| {
                let (rates, lost): (Vec<f64>, Vec<f64>) = figures.iter().copied().unzip();
                let spread = summary(&lost);
                Loss {
                    rate_bytes_per_s: summary(&rates).median,
                    lost_share: spread.median,
                    spread,
                }
            })
            .collect(),
        relays: (1..)
            .zip(&rounds.cpu)
            .map(|(number, cpu_s)| Relay {
                name: Node::Relay(number).name(),
                cpu_s: *cpu_s,
            })
            .collect(),
        delivered_gb: rounds.delivered / 1e9,
        spread,
        tor_bytes_per_s: tor.as_ref().map(|tor| tor.tor_bytes_per_s.median),
        over_tor: tor.as_ref().map(|tor| tor.over_tor.median),
        tor,
        without_tor,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [asked, granted] = &self.port;
        writeln!(
            f,
            "path: 3 + 3 relays end to end, port {asked} ({granted}); median of the rounds"
        )?;
        let loaded = self.rtt_loaded_us.p50 as f64 / self.rtt_idle_us.p50.max(1) as f64;
        let eight = self.eight_streams_bytes_per_s / self.one_stream_bytes_per_s;
        writeln!(f, "  round trip, loaded over idle {loaded:.1}")?;
        writeln!(f, "  eight streams over one       {eight:.2}")?;
        if let Some(tor) = &self.tor {
            writeln!(f, "  one download, over Tor's     {:.1}", tor.over_tor)?;
        }
        let megabytes = |summary: Summary| summary.map(|rate| rate / 1e6);
        let spread = &self.spread;
        writeln!(
            f,
            "  one TCP stream          MB/s {:.1}",
            megabytes(spread.one_stream_bytes_per_s)
        )?;
        writeln!(
            f,
            "  eight TCP streams       MB/s {:.1}",
            megabytes(spread.eight_streams_bytes_per_s)
        )?;
        for (what, took) in [("idle", &self.rtt_idle_us), ("loaded", &self.rtt_loaded_us)] {
            writeln!(
                f,
                "  round trip, {what:<6}        us p50 {}, p99 {}, p99.9 {}, longest {}; {:.2} % lost",
                took.p50,
                took.p99,
                took.p999,
                took.max,
                100.0 * took.lost_share
            )?;
        }
        for loss in &self.udp_loss {
            writeln!(
                f,
                "  UDP at {:>5.1} MB/s      % lost {:.2}",
                loss.rate_bytes_per_s / 1e6,
                loss.spread.map(|share| 100.0 * share)
            )?;
        }
        let relays: Vec<String> = self
            .relays
            .iter()
            .map(|relay| format!("{} {:.2}", relay.name, relay.cpu_s))
            .collect();
        writeln!(
            f,
            "  processor time while TCP delivered {:.2} GB, s: {}",
            self.delivered_gb,
            relays.join(", ")
        )?;
        if let Some(why) = &self.without_tor {
            writeln!(f, "  not compared with Tor: {why}")?;
        }
        if let Some(tor) = &self.tor {
            let megabytes_each = tor.download_bytes as f64 / 1e6;
            writeln!(
                f,
                "  download of {megabytes_each:>3.0} MB      MB/s {:.1}; {} {:.1}",
                megabytes(tor.mixline_bytes_per_s),
                tor.version,
                megabytes(tor.tor_bytes_per_s)
            )?;
            writeln!(
                f,
                "  first byte of a page      ms {:.0}; {} {:.0}",
                tor.mixline_first_byte_ms, tor.version, tor.tor_first_byte_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_json() {
        let counts = || Counts {
            sent: 3,
            took: vec![(100, 1), (300, 1)],
        };
        let rounds = Rounds {
            one: vec![1e6, 3e6, 2e6],
            eight: vec![4e6],
            idle: vec![counts()],
            loaded: vec![counts(), counts()],
            loss: [(4_000_000, vec![(4e6, 0.25)])].into(),
            cpu: vec![0.5],
            delivered: 1e9,
        };
        let port = || ["auto".into(), "udp".into()];
        let without = report(&rounds, port(), Err("no `tor`".into())).unwrap();
        assert!(without.to_string().contains("Tor: no `tor`\n"));
        let json = serde_json::to_value(&without).unwrap();
        assert!(json["over_tor"].is_null() && json["tor_bytes_per_s"].is_null());
        let summary = |median| Summary::of(median);
        let compared = OverTor {
            version: "Tor".into(),
            up_after_s: 20.0,
            download_bytes: 1,
            mixline_bytes_per_s: summary(2e6),
            tor_bytes_per_s: summary(1e6),
            over_tor: summary(2.0),
            mixline_first_byte_ms: summary(20.0),
            tor_first_byte_ms: summary(80.0),
        };
        let report = report(&rounds, port(), Ok(compared)).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["one_stream_bytes_per_s"], 2e6);
        assert_eq!(json["eight_streams_bytes_per_s"], 4e6);
        assert_eq!(json["rtt_idle_us"]["p50"], 100);
        assert_eq!(json["rtt_loaded_us"]["p99"], 300);
        assert_eq!(json["udp_loss"][0]["lost_share"], 0.25);
        assert_eq!(json["relays"][0]["name"], "relay1");
        assert_eq!(json["tor_bytes_per_s"], 1e6);
        assert_eq!(json["over_tor"], 2.0);
        assert!(report.to_string().contains("p99.9"));
    }
}
