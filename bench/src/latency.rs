//! How long datagrams are inside a relay that is at work: from the time stamp of the kernel, or of the XDP
//! program, to the end of the call that sends them, at 10, 50 and 90 % of what each port forwards.
//!
//! The relay counts that itself (`time_inside: kernel`), and is asked before and after. What a port forwards is found
//! first, as `forward` does it: it is offered more. Then datagrams come evenly, in bursts as small as the generator can
//! make them. All that is compared takes turns.
//!
//! [`one_at_a_time`](crate::one_at_a_time), a part of `forward`, is how long a single datagram takes there and
//! back, waking and wires included.

use std::fmt;

use anyhow::{Context, Result, bail};
use mixline_testnet::programs;
use serde::Serialize;

use crate::forward::{CORE, relay_with};
use crate::generator::{BURST, Fed, Feed, Generator, Load, NEIGHBOURS, Steady, in_new_namespace};
use crate::measure::{Samples, Summary};
use crate::outcome::{Axis, Lines, Point, Scale, Series};
use crate::{Options, Plot, machine};

/// Room for datagrams of a round.
const FRAMES: u32 = 128 * 1024;
/// Datagrams of a round that finds what a port forwards.
const MOST: u32 = 64 * 1024;
/// Datagrams a second that are offered for that.
const OFFERED: f64 = 2e6;
/// How long a turn is, in seconds, and how many datagrams it has at least, for the last thousandth. Turns are short, so
/// that in most of them nothing else takes the core.
const SECONDS: f64 = 0.05;
const LEAST: u32 = 4_000;
/// Rounds at loads for each round that finds what a port forwards.
const ROUNDS: usize = 2;
/// Of so many datagrams of a round, one more is sent before it.
const WARM_UP: u32 = 5;
/// Shares of what the port forwards.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Next hops, and neighbours that datagrams come from.
const HOPS: [usize; 2] = [1, NEIGHBOURS];

/// What is compared. The relay on AF_XDP sends as it does by itself.
const SUBJECTS: [(&str, &str); 3] = [
    ("AF_XDP", "port: xdp\n"),
    ("UDP", "port: udp\n"),
    ("UDP behind XDP", "port: xdp-filter\n"),
];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the relay on AF_XDP was granted, and how it sends.
    pub granted: String,
    /// Datagrams that come together at most when they are due one by one.
    pub burst: u32,
    /// Each port with one next hop and with 64.
    pub cases: Vec<Case>,
}

/// A port with so many next hops.
#[derive(Debug, Serialize)]
pub struct Case {
    /// The port.
    pub port: &'static str,
    /// Next hops, and neighbours that datagrams come from.
    pub hops: usize,
    /// Datagrams a second that it forwards if it is offered more.
    pub most_pps: Summary,
    /// Datagrams a second that it is offered then.
    pub most_offered_pps: Summary,
    /// At each load.
    pub loads: Vec<AtLoad>,
}

/// At one load. Times are in microseconds; quantiles are those of a round's datagrams, and their medians and spreads those
/// of the rounds.
#[derive(Debug, Serialize)]
pub struct AtLoad {
    /// The share of what the port forwards.
    pub load: f64,
    /// Datagrams offered a second.
    pub offered_pps: Summary,
    /// Half are inside for so long at most.
    pub p50_us: Summary,
    /// 99 of 100.
    pub p99_us: Summary,
    /// 999 of 1000.
    pub p999_us: Summary,
    /// The share that did not leave the relay.
    pub lost: Summary,
}

/// Runs it.
///
/// # Errors
/// If something does not start, or does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    eprintln!("latency: time inside a relay, at loads");
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe().context("where this program is")?;
    let relay = programs::relay()?;
    let rounds = if options.quick { 5 } else { 15 };
    in_new_namespace(|| {
        machine::stay_on_one_core();
        let mut generator = Generator::load(FRAMES, 0)?;
        let mut feeds = Vec::new();
        for (number, (_, more)) in (1..).zip(SUBJECTS) {
            let kind = relay_with(&relay, &format!("{more}time_inside: kernel\n"));
            let path = directory.path();
            let feed = Feed::start(&mut generator, &program, number, path, &kind, CORE)?;
            feeds.push(feed);
        }
        let granted = feeds.first().context("no relay")?.status()?.port.why;
        let most = find_most(&mut generator, &mut feeds, rounds)?;
        let steady = at_loads(&mut generator, &mut feeds, &most, ROUNDS * rounds)?;
        Ok(report(granted, &most, &steady))
    })
}

/// The combinations of ports and next hops, by the places of both.
fn cases() -> impl Iterator<Item = (usize, usize)> {
    (0..SUBJECTS.len()).flat_map(|port| (0..HOPS.len()).map(move |hops| (port, hops)))
}

/// What each case forwards if it is offered more. A first round does not count.
fn find_most(
    generator: &mut Generator,
    feeds: &mut [Feed],
    rounds: usize,
) -> Result<Vec<Vec<Fed>>> {
    let load = Load {
        rate: OFFERED,
        count: MOST,
        flood: 0,
    };
    let cases: Vec<_> = cases().collect();
    let mut all = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        eprintln!("latency: what ports forward, round {round} of {rounds}");
        for at in 0..cases.len() {
            let at = (at + round) % cases.len();
            let (port, hops) = cases[at];
            let fed = feeds[port]
                .run(generator, HOPS[hops], load)
                .with_context(|| name(port, hops))?;
            if round > 0 {
                all[at].push(fed);
            }
        }
    }
    Ok(all)
}

/// All cases at all loads in each round, by case and load. A first round does not count.
fn at_loads(
    generator: &mut Generator,
    feeds: &mut [Feed],
    most: &[Vec<Fed>],
    rounds: usize,
) -> Result<Vec<[Vec<Steady>; LOADS.len()]>> {
    let cases: Vec<_> = cases().collect();
    let mut all: Vec<[Vec<Steady>; LOADS.len()]> =
        cases.iter().map(|_| Default::default()).collect();
    for round in 0..=rounds {
        eprintln!("latency: round {round} of {rounds}");
        for turn in 0..cases.len() * LOADS.len() {
            // Each time another one first, and another port each time.
            let turn = turn + round;
            let (at, load) = (turn % cases.len(), turn / cases.len() % LOADS.len());
            let (port, hops) = cases[at];
            let rate = summary(&most[at], |fed| fed.returned).median * LOADS[load];
            let steady = feeds[port]
                .steadily(generator, HOPS[hops], rate, datagrams(rate))
                .with_context(|| format!("{}, load {}", name(port, hops), LOADS[load]))?;
            if steady.inside.count() == 0 {
                bail!("{}: nothing has left the relay", name(port, hops));
            }
            if round > 0 {
                all[at][load].push(steady);
            }
        }
    }
    Ok(all)
}

/// How many datagrams are sent before a round and in it.
fn datagrams(rate: f64) -> [u32; 2] {
    let count = ((rate * SECONDS) as u32).clamp(LEAST, FRAMES - FRAMES / WARM_UP);
    [count / WARM_UP, count]
}

fn name(port: usize, hops: usize) -> String {
    match HOPS[hops] {
        1 => SUBJECTS[port].0.to_owned(),
        hops => format!("{}, {hops} next hops", SUBJECTS[port].0),
    }
}

fn summary(runs: &[Fed], figure: impl Fn(&Fed) -> f64) -> Summary {
    runs.iter().map(figure).collect::<Samples>().summary()
}

fn report(granted: String, most: &[Vec<Fed>], steady: &[[Vec<Steady>; LOADS.len()]]) -> Report {
    let loads = |rounds: &[Vec<Steady>; LOADS.len()]| {
        let loads = LOADS.iter().zip(rounds);
        loads
            .map(|(load, rounds)| AtLoad::of(*load, rounds))
            .collect()
    };
    let cases = cases().zip(most).zip(steady);
    let cases = cases.map(|(((port, hops), most), rounds)| Case {
        port: SUBJECTS[port].0,
        hops: HOPS[hops],
        most_pps: summary(most, |fed| fed.returned),
        most_offered_pps: summary(most, |fed| fed.offered),
        loads: loads(rounds),
    });
    Report {
        granted,
        burst: BURST,
        cases: cases.collect(),
    }
}

impl AtLoad {
    fn of(load: f64, rounds: &[Steady]) -> Self {
        let of = |figure: &dyn Fn(&Steady) -> f64| {
            rounds.iter().map(figure).collect::<Samples>().summary()
        };
        Self {
            load,
            offered_pps: of(&|steady| steady.offered),
            p50_us: of(&|steady| steady.inside.quantile_us(0.5)),
            p99_us: of(&|steady| steady.inside.quantile_us(0.99)),
            p999_us: of(&|steady| steady.inside.quantile_us(0.999)),
            lost: of(&|steady| steady.lost),
        }
    }
}

impl crate::Report for Report {
    fn plots(&self) -> Vec<Plot> {
        let plots = HOPS.into_iter().flat_map(|hops| {
            let lines = [
                self.lines(hops, "p50", |at| at.p50_us),
                self.lines(hops, "p99", |at| at.p99_us),
            ];
            lines.map(Plot::Lines)
        });
        plots.collect()
    }
}

impl Report {
    /// A quantile over the load, with a line for each port.
    fn lines(&self, hops: usize, quantile: &str, figure: fn(&AtLoad) -> Summary) -> Lines {
        let cases = self.cases.iter().filter(|case| case.hops == hops);
        let series = cases.map(|case| {
            let points = case.loads.iter().map(|at| {
                let time = figure(at);
                Point {
                    x: at.load,
                    y: time.median,
                    spread: Some((time.low, time.high)),
                }
            });
            Series {
                label: case.port.to_owned(),
                points: points.collect(),
            }
        });
        let next_hops = if hops == 1 {
            "one next hop".to_owned()
        } else {
            format!("{hops} next hops")
        };
        Lines {
            title: format!("Time inside a relay, {quantile}, {next_hops}"),
            note: format!(
                "From the kernel's time stamp to the end of the sending call; AF_XDP: {}.",
                self.granted
            ),
            x: Axis {
                label: "load, as a share of what the port forwards".into(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: "us".into(),
                scale: Scale::Logarithmic,
            },
            series: series.collect(),
            bounds: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "latency: time inside a relay from the kernel's time stamp to the sending call, us \
             (median, and where 8 of 10 rounds lie)"
        )?;
        for case in &self.cases {
            let hops = if case.hops == 1 { "hop" } else { "hops" };
            writeln!(
                f,
                "  {}, {} next {hops}: forwards {:.0} a second of {:.0}",
                case.port, case.hops, case.most_pps, case.most_offered_pps.median
            )?;
            for at in &case.loads {
                writeln!(
                    f,
                    "    {:>2.0} %  p50 {:.1}, p99 {:.1}, p99.9 {:.0}, lost {:.2} % of {:.0}",
                    100.0 * at.load,
                    at.p50_us,
                    at.p99_us,
                    at.p999_us,
                    100.0 * at.lost.median,
                    at.offered_pps.median,
                )?;
            }
        }
        writeln!(f, "  AF_XDP: {}", self.granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Inside;

    /// A round in which half of the datagrams were inside for `us`.
    fn round(us: u64, lost: f64) -> Steady {
        Steady {
            offered: 1e4,
            lost,
            inside: Inside::from_iter([
                (1000 * us, 500),
                (2000 * us, 490),
                (3000 * us, 9),
                (9000 * us, 1),
            ]),
        }
    }

    #[test]
    fn figures_are_medians_of_rounds() {
        let at = AtLoad::of(0.5, &[round(10, 0.0), round(30, 0.5), round(20, 0.25)]);
        assert_eq!(at.p50_us.median, 20.0);
        assert_eq!(at.p99_us.median, 40.0);
        assert_eq!(at.p999_us.median, 60.0);
        assert_eq!((at.lost.median, at.offered_pps.median), (0.25, 1e4));
    }

    #[test]
    fn each_case_has_its_own_figures() {
        let most: Vec<Vec<Fed>> = (0..6)
            .map(|at| {
                vec![Fed {
                    returned: f64::from(at),
                    offered: 7.0,
                    ..Fed::default()
                }]
            })
            .collect();
        let rounds = |at: u64| [0, 1, 2].map(|load| vec![round(100 * at + load + 1, 0.0)]);
        let steady: Vec<_> = (0..6).map(rounds).collect();
        let report = report("copy".into(), &most, &steady);
        let case = &report.cases[3];
        assert_eq!(
            (case.port, case.hops, case.most_pps.median),
            ("UDP", 64, 3.0)
        );
        let of: Vec<_> = case
            .loads
            .iter()
            .map(|at| (at.load, at.p50_us.median))
            .collect();
        assert_eq!(of, [(0.1, 301.0), (0.5, 302.0), (0.9, 303.0)]);
        assert!(
            report
                .to_string()
                .contains("UDP, 64 next hops: forwards 3 (3 to 3) a second of 7")
        );
        let plots = crate::Report::plots(&report);
        assert_eq!(plots.len(), 4);
        let Plot::Lines(lines) = &plots[3] else {
            panic!("no lines");
        };
        assert_eq!(lines.series[1].points[2].y, 606.0);
    }

    #[test]
    fn a_round_fits_into_the_generator() {
        for rate in [100.0, 3e5, 1e7] {
            let [warm_up, count] = datagrams(rate);
            assert!(count >= LEAST && warm_up + count <= FRAMES);
        }
    }
}
