//! Strangers who attack a whole network: what honest clients, services and relays get meanwhile.
//!
//! A network of eight relays, a directory, a service and a client runs on this machine, and beside it
//! hosts of newcomers and of attackers. One attack follows the other. Each is measured in turns, first
//! without it and then under it: datagrams that come back to the client from the service, which are the
//! goodput, and how many succeed within 5 s who start and open a session, look a name up, or register a
//! relay. All guards that are attacked are those of the client and of every newcomer.

mod kinds;
mod processes;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::metrics::Metrics;
use mixline_testnet::topology::{Node, RELAYS, directory_url};
use mixline_testnet::{Network, Programs, guests, interrupted};
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::Attack;
use crate::measure::Summary;
use crate::outcome::{Bar, Bars, Bound};
use crate::path::probes::{self, Echo};
use crate::{Goal, Options, Plot};
use kinds::{SESSIONS, Targets};
use processes::{Attacker, Newcomers};
use tools::{Counted, Done, Tried};

pub use tools::Tool;

/// Honest datagrams between client and service, each there and back: their bytes, and microseconds from
/// one to the next. They take a part of what the machine can do, so that it is not the machine that is
/// measured.
const LENGTH: usize = 1000;
const EVERY: u64 = 1000;
/// What is to be kept of the goodput, as a share of that without the attack.
const GOODPUT: f64 = 0.8;
/// The same of sessions, lookups and registrations.
const SUCCESS: f64 = 0.95;
/// Whoever is under way when a measurement ends has so long.
const LAST: Duration = Duration::from_secs(6);

/// One attack.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What it sent, in a second: datagrams, cells, messages or connections.
    pub sent_per_s: f64,
    /// Hashes that were spent on puzzles for it, in a second.
    pub hashes_per_s: f64,
    /// Datagrams a second that came back to the client.
    pub goodput_per_s: Kept,
    /// The share of new clients that had a session within 5 s of their start.
    pub sessions: Kept,
    /// How long the slowest of them took under the attack, milliseconds.
    pub slowest_session_ms: f64,
    /// The share of lookups of a name that were answered within 5 s.
    pub lookups: Kept,
    /// The share of registrations of a relay that were taken within 5 s.
    pub registrations: Kept,
    /// Why some did not succeed under the attack, and how often.
    pub failures: BTreeMap<String, u64>,
    /// What became of the datagrams that the client's first guard received under the attack, by verdict: how
    /// many in a second.
    pub guard_per_s: BTreeMap<String, f64>,
    /// Whether anything was to be kept.
    #[serde(skip)]
    has_goals: bool,
}

/// A figure without an attack and under it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Kept {
    /// Without.
    pub calm: f64,
    /// Under it.
    pub attacked: f64,
    /// The second over the first; none if the first is none.
    pub kept: Option<f64>,
}

impl Kept {
    fn of(calm: f64, attacked: f64) -> Self {
        let kept = (calm > 0.0).then(|| attacked / calm);
        Self {
            calm,
            attacked,
            kept,
        }
    }

    fn of_tried(calm: &Tried, attacked: &Tried) -> Self {
        let share = |tried: &Tried| tried.share().unwrap_or(0.0);
        Self::of(share(calm), share(attacked))
    }
}

/// What was counted at one time.
#[derive(Debug, Clone)]
struct Measured {
    back_per_s: f64,
    newcomers: Counted,
    guard_per_s: BTreeMap<String, f64>,
}

impl Row {
    fn new(attack: Attack, calm: &Measured, attacked: &Measured, done: &Done) -> Self {
        let (before, under) = (&calm.newcomers, &attacked.newcomers);
        let tried = [
            ("session", &under.sessions),
            ("lookup", &under.lookups),
            ("registration", &under.registrations),
        ];
        let failures = tried.into_iter().flat_map(|(what, tried)| {
            let failures = tried.failures.iter();
            failures.map(move |(why, count)| (format!("{what}: {why}"), *count))
        });
        Self {
            name: attack.name(),
            what: attack.label(),
            sent_per_s: done.per_second(),
            hashes_per_s: done.hashes_per_second(),
            goodput_per_s: Kept::of(calm.back_per_s, attacked.back_per_s),
            sessions: Kept::of_tried(&before.sessions, &under.sessions),
            slowest_session_ms: under.sessions.slowest_ms,
            lookups: Kept::of_tried(&before.lookups, &under.lookups),
            registrations: Kept::of_tried(&before.registrations, &under.registrations),
            failures: failures.collect(),
            guard_per_s: attacked.guard_per_s.clone(),
            has_goals: attack.has_goals(),
        }
    }

    /// The least that is kept of sessions, lookups and registrations.
    #[must_use]
    pub fn success_kept(&self) -> Option<f64> {
        let all = [self.sessions, self.lookups, self.registrations];
        let kept: Option<Vec<f64>> = all.iter().map(|figure| figure.kept).collect();
        kept?.into_iter().reduce(f64::min)
    }
}

/// What was to be kept under each attack.
#[must_use]
pub fn goals(rows: &[Row]) -> Vec<Goal> {
    let rows = rows.iter().filter(|row| row.has_goals);
    rows.flat_map(|row| {
        let goodput = format!("goodput kept: {}", row.what);
        let success = format!("sessions, lookups, registrations kept: {}", row.what);
        [
            Goal::at_least(goodput, row.goodput_per_s.kept, GOODPUT),
            Goal::at_least(success, row.success_kept(), SUCCESS),
        ]
    })
    .collect()
}

/// What is kept under each attack.
#[must_use]
pub fn plots(rows: &[Row]) -> Vec<Plot> {
    let plot = |title: &str, goal, figure: &dyn Fn(&Row) -> Option<f64>| {
        let bars = rows.iter().filter_map(|row| {
            let bar = Bar::new(row.what, Summary::of(figure(row)?));
            Some(if row.has_goals {
                bar.with(Bound::AtLeast(goal))
            } else {
                bar
            })
        });
        Plot::Bars(Bars {
            title: title.into(),
            note: "One measurement without the attack and one under it, one after the other."
                .into(),
            unit: "of the value without".into(),
            bars: bars.collect(),
        })
    };
    vec![
        plot("Goodput under attacks", GOODPUT, &|row| {
            row.goodput_per_s.kept
        }),
        plot(
            "Sessions, lookups and registrations under attacks: the least of them",
            SUCCESS,
            &Row::success_kept,
        ),
    ]
}

/// The rows as lines of the table.
pub fn write(rows: &[Row], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    writeln!(
        f,
        "  attacks on a network: kept of the goodput (datagrams a second without), and of what \
         succeeds within 5 s"
    )?;
    let head = ["goodput", "sessions", "lookups", "registrations"];
    let [goodput, sessions, lookups, registrations] = head;
    writeln!(
        f,
        "  {:<52} {goodput:>14} {sessions:>9} {:>8} {lookups:>8} {registrations:>13} {:>10} {:>10}",
        "", "slowest", "sent/s", "hashes/s"
    )?;
    for row in rows {
        let kept = |figure: Kept| figure.kept.map_or("-".into(), |kept| format!("{kept:.2}"));
        let goodput = format!(
            "{} ({:.0})",
            kept(row.goodput_per_s),
            row.goodput_per_s.calm
        );
        writeln!(
            f,
            "  {:<52} {goodput:>14} {:>9} {:>8} {:>8} {:>13} {:>10.0} {:>10.0}",
            row.what,
            kept(row.sessions),
            format!("{:.0} ms", row.slowest_session_ms),
            kept(row.lookups),
            kept(row.registrations),
            row.sent_per_s,
            row.hashes_per_s
        )?;
        for (why, count) in &row.failures {
            writeln!(f, "    {count} times, {why}")?;
        }
    }
    Ok(())
}

/// Runs all attacks, one after the other, or the one that the options name.
///
/// # Errors
/// If the network does not come up, or a program on it fails.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    mixline_testnet::end_on_signals()?;
    let time = Duration::from_secs(if options.quick { 4 } else { 8 });
    let mut scene = Scene::set(options)?;
    let mut rows = Vec::new();
    let chosen = |attack: &&Attack| options.attack.is_none_or(|only| only == **attack);
    for attack in Attack::value_variants().iter().filter(chosen).copied() {
        if interrupted() {
            bail!("interrupted");
        }
        eprintln!("flood: {}", attack.label());
        rows.push(scene.row(attack, time).context(attack.label())?);
        thread::sleep(attack.fades_for());
    }
    scene.network.down()?;
    Ok(rows)
}

/// The network with all that is in it.
struct Scene {
    newcomers: Newcomers,
    _echo: Echo,
    targets: Targets,
    service: std::net::Ipv4Addr,
    files: TempDir,
    // After what talks to it.
    network: Network,
}

impl Scene {
    fn set(options: &Options) -> Result<Self> {
        let began = Instant::now();
        let sessions = format!("endpoint: {{max_sessions: {SESSIONS}}}\n");
        let network_options = mixline_testnet::Options {
            ports: vec![options.port],
            more: vec![(Node::Directory, sessions)],
            ..mixline_testnet::Options::default()
        };
        let network = Network::up(Programs::release()?, network_options, |line| {
            eprintln!("flood: {:5.1} s  {line}", began.elapsed().as_secs_f64());
        })?;
        guests::add()?;
        let service = network.identity(Node::Service)?;
        let _echo = Echo::start(service.ipv4)?;
        // The first packets make a session and its paths.
        probes::run(service.ipv4, 500, EVERY, LENGTH)?;
        let guards = network.chosen_paths(Node::Client)?.guards;
        let newcomers = Newcomers::start(&arguments(&network, &service.id)?)?;
        let targets = Targets {
            guards,
            service: service.id,
        };
        Ok(Self {
            newcomers,
            _echo,
            targets,
            service: service.ipv4,
            files: tempfile::tempdir()?,
            network,
        })
    }

    fn row(&mut self, attack: Attack, time: Duration) -> Result<Row> {
        let snapshot = self.files.path().join("snapshot");
        std::fs::write(&snapshot, self.network.snapshot()?.encode())?;
        let at_most = attack.grows_for() + time + LAST;
        let known = (self.network.directory_id()?, snapshot.as_path());
        let mut attacker = Attacker::prepare(attack, &self.targets, known, at_most)?;
        let calm = self.measure(time)?;
        attacker.begin()?;
        thread::sleep(attack.grows_for());
        let attacked = self.measure(time)?;
        let done = attacker.end()?;
        Ok(Row::new(attack, &calm, &attacked, &done))
    }

    /// Goodput and newcomers at the same time.
    fn measure(&mut self, time: Duration) -> Result<Measured> {
        let (began, before) = (Instant::now(), self.guard_verdicts()?);
        self.newcomers.begin(time)?;
        let count = u64::try_from(time.as_micros())? / EVERY;
        let counts = probes::run(self.service, count, EVERY, LENGTH)?;
        let newcomers = self.newcomers.counted()?;
        let (after, seconds) = (self.guard_verdicts()?, began.elapsed().as_secs_f64());
        let grown = after.into_iter().map(|(verdict, count)| {
            let grown = count - before.get(&verdict).copied().unwrap_or(0.0);
            (verdict, grown / seconds)
        });
        Ok(Measured {
            back_per_s: counts.came_back() as f64 / time.as_secs_f64(),
            newcomers,
            guard_per_s: grown.filter(|(_, rate)| *rate > 0.0).collect(),
        })
    }

    /// What the client's first guard has counted so far.
    fn guard_verdicts(&self) -> Result<BTreeMap<String, f64>> {
        let guard = self.targets.guards.first();
        let guard = (1..=RELAYS)
            .map(Node::Relay)
            .find(|node| Some(&node.name()) == guard);
        let metrics = Metrics::of(guard.context("the client has no guard")?)?;
        Ok(metrics.by_label("mixline_relay_datagrams_total", "verdict"))
    }
}

/// What newcomers are told.
fn arguments(network: &Network, service: &str) -> Result<Vec<String>> {
    let guards: PathBuf = network.files(Node::Client).state.join("guards.json");
    let pairs = [
        ("--url", directory_url(0)),
        ("--directory", network.directory_id()?.to_owned()),
        ("--service", service.to_owned()),
        ("--name", SERVICE_NAME.to_owned()),
        ("--guards", guards.to_string_lossy().into_owned()),
    ];
    let words = pairs
        .into_iter()
        .map(|(key, value)| [key.to_owned(), value]);
    Ok(words.flatten().collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(attack: Attack, back: f64, succeeded: u64) -> Row {
        let tried = |succeeded| Tried {
            tried: 20,
            succeeded,
            slowest_ms: 10.0,
            failures: (succeeded < 20)
                .then(|| ("no answer in time".to_owned(), 20 - succeeded))
                .into_iter()
                .collect(),
        };
        let measured = |back_per_s, sessions| Measured {
            back_per_s,
            newcomers: Counted {
                sessions: tried(sessions),
                lookups: tried(20),
                registrations: tried(20),
            },
            guard_per_s: [("sent".to_owned(), 2.0)].into(),
        };
        let done = Done {
            sent: 3000,
            hashes: 6_000_000,
            seconds: 10.0,
        };
        Row::new(
            attack,
            &measured(1000.0, 20),
            &measured(back, succeeded),
            &done,
        )
    }

    #[test]
    fn shares_are_of_the_calm_value() {
        let row = row(Attack::Paths, 900.0, 15);
        assert_eq!(row.goodput_per_s, Kept::of(1000.0, 900.0));
        assert_eq!((row.goodput_per_s.kept, row.sent_per_s), (Some(0.9), 300.0));
        assert_eq!(
            (row.sessions.kept, row.lookups.kept),
            (Some(0.75), Some(1.0))
        );
        assert_eq!(row.success_kept(), Some(0.75));
        assert_eq!(row.failures["session: no answer in time"], 5);
        // What did not work before cannot be told.
        assert_eq!(Kept::of(0.0, 0.0).kept, None);
    }

    #[test]
    fn each_attack_has_two_goals_and_sending_has_none() {
        let rows = [
            row(Attack::Sending, 100.0, 0),
            row(Attack::Initiations, 900.0, 20),
            row(Attack::Mailboxes, 700.0, 18),
        ];
        let reached: Vec<_> = goals(&rows).iter().map(Goal::reached).collect();
        assert_eq!(reached, [Some(true), Some(true), Some(false), Some(false)]);
        let [Plot::Bars(goodput), Plot::Bars(success)] = &plots(&rows)[..] else {
            panic!("two plots");
        };
        assert_eq!((goodput.bars.len(), success.bars.len()), (3, 3));
        assert!(goodput.bars[0].bound.is_none() && goodput.bars[1].bound.is_some());
    }

    #[test]
    fn names_in_the_json() {
        let json = serde_json::to_value(row(Attack::Connections, 500.0, 10)).unwrap();
        assert_eq!(json["name"], "connections");
        assert_eq!(json["goodput_per_s"]["kept"], 0.5);
        assert_eq!(json["sessions"]["attacked"], 0.5);
        assert_eq!(json["failures"]["session: no answer in time"], 10);
        assert_eq!(json["guard_per_s"]["sent"], 2.0);
        assert!(json.get("has_goals").is_none());
    }
}
