//! The whole system as its users meet it: real programs in network namespaces, unmodified
//! applications at both ends.
//!
//! Needs root. Without it everything is skipped with a message, unless `MIXLINE_REQUIRE_ROOT=1`.
//! The tests share one network, which is brought up by the first that needs it, and run one after
//! the other on the main thread, because the programs end with the thread that started them.

mod answers;
mod applications;
mod bad_input;
mod before;
mod capture;
mod clients;
mod clocks;
mod desk;
mod failures;
mod frames;
mod host_events;
mod host_names;
mod inside;
mod kubernetes;
mod leaks;
mod living;
mod mappings;
mod name_server;
mod names;
mod ports;
mod questions;
mod reload;
mod resolv_conf;
mod rogue;
mod stream;
mod tools;
mod underlay;
mod vpn;
mod wires;

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use mixline_testnet::process::tail;
use mixline_testnet::topology::Node;
use mixline_testnet::{Network, Options, Port, Programs, apart, programs, skip};
use std::sync::{Arc, Mutex};

/// The network that is up, if one is. Tests of one kind follow one another, so that each kind is brought
/// up once.
type Shared = Arc<Mutex<Option<(Setting, Network)>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Eight honest relays.
    Honest,
    /// Eight relays that can be told to misbehave.
    Rogue,
}

/// What a test runs on.
type Setting = (Ports, Kind);

/// The relays' kinds of port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// All have the same.
    All(Port),
    /// Half of them have AF_XDP, the others UDP: every path but the rarest crosses both.
    Mixed,
}

impl Ports {
    /// What the names of tests begin with.
    fn name(self) -> &'static str {
        match self {
            Self::All(port) => port.name(),
            Self::Mixed => "mixed",
        }
    }

    fn list(self) -> Vec<Port> {
        match self {
            Self::All(port) => vec![port],
            Self::Mixed => vec![Port::Xdp, Port::Udp],
        }
    }
}

/// Makes test cases out of functions.
struct Tests {
    shared: Shared,
    ports: Ports,
    trials: Vec<Trial>,
}

impl Tests {
    /// A test on a network, with the ports of the moment.
    fn on(&mut self, kind: Kind, name: &str, test: fn(&mut Network) -> Result<()>) {
        let shared = Arc::clone(&self.shared);
        let setting = (self.ports, kind);
        let name = format!("{}::{name}", self.ports.name());
        self.trials.push(Trial::test(name, move || {
            let mut guard = shared.lock().map_err(|_| "an earlier test panicked")?;
            let network = network(&mut guard, setting).map_err(failed)?;
            let Err(error) = test(network) else {
                return Ok(());
            };
            for node in [Node::Client, Node::Service] {
                eprintln!(
                    "the end of {node}'s log:\n{}",
                    tail(&network.files(node).log, 12)
                );
            }
            // What it leaves behind is not to fail the next one too.
            *guard = None;
            Err(failed(error))
        }));
    }

    /// A test that needs none of the programs.
    fn bare(&mut self, name: &str, test: fn() -> Result<()>) {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name, move || {
            *shared.lock().map_err(|_| "an earlier test panicked")? = None;
            test().map_err(failed)
        }));
    }

    /// A test that makes what it needs.
    fn alone(&mut self, name: &str, test: fn(&Programs) -> Result<()>) {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name, move || {
            *shared.lock().map_err(|_| "an earlier test panicked")? = None;
            let programs = Programs::for_tests().map_err(|error| failed(error.into()))?;
            test(&programs).map_err(failed)
        }));
    }
}

fn main() {
    // Before there are other threads.
    if let Err(error) = apart::enter_if_asked() {
        eprintln!("namespaces of its own: {error}");
        std::process::exit(1);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let mut tests = Tests {
        shared: Arc::clone(&shared),
        ports: Ports::All(Port::Udp),
        trials: Vec::new(),
    };
    underlay::tests(&mut tests);
    bad_input::tests(&mut tests);
    everything(&mut tests, Port::Udp);
    leaks::tests(&mut tests);
    inside::tests(&mut tests);
    before::tests(&mut tests);
    vpn::tests(&mut tests);
    kubernetes::tests(&mut tests);
    resolv_conf::tests(&mut tests);
    desk::tests(&mut tests);
    mappings::tests(&mut tests);
    living::tests(&mut tests);
    clocks::tests(&mut tests);
    host_events::tests(&mut tests);
    host_names::tests(&mut tests);
    questions::tests(&mut tests);
    answers::tests(&mut tests);
    reload::tests(&mut tests);
    clients::tests(&mut tests);
    inside::alone(&mut tests);
    clocks::alone(&mut tests);
    let on_sockets = tests.trials.len();
    everything(&mut tests, Port::Xdp);
    tests.ports = Ports::All(Port::Xdp);
    living::on_xdp(&mut tests);
    tests.ports = Ports::Mixed;
    ports::tests(&mut tests);
    tests.ports = Ports::All(Port::XdpFilter);
    ports::tests(&mut tests);
    rogue::tests(&mut tests);
    if !arguments.list {
        if !nix::unistd::geteuid().is_root() {
            leave_out(&arguments, tests.trials.drain(..), skip::NEEDS_ROOT);
        } else if programs::xdp_program().is_none() {
            let on_xdp = tests.trials.drain(on_sockets..);
            leave_out(&arguments, on_xdp, "built without the XDP program");
        }
    }
    tests.trials.retain(|trial| apart::is_wanted(trial.name()));
    let conclusion = libtest_mimic::run(&arguments, tests.trials);
    if let Ok(mut network) = shared.lock() {
        *network = None; // takes it down
    }
    conclusion.exit();
}

/// Says of each test that was asked for that it is skipped.
fn leave_out(arguments: &Arguments, trials: impl Iterator<Item = Trial>, reason: &str) {
    let filter = arguments.filter.as_deref().unwrap_or_default();
    trials
        .filter(|trial| trial.name().contains(filter))
        .for_each(|_| skip::skip(reason));
}

/// All that relays with one kind of port have to do.
fn everything(tests: &mut Tests, port: Port) {
    tests.ports = Ports::All(port);
    ports::tests(tests);
    applications::tests(tests);
    names::tests(tests);
    wires::tests(tests);
    failures::tests(tests);
    rogue::tests(tests);
}

/// The network of this setting; brings it up, and another one down, if need be.
fn network(slot: &mut Option<(Setting, Network)>, setting: Setting) -> Result<&mut Network> {
    let (ports, kind) = setting;
    let right = slot
        .as_mut()
        .is_some_and(|(is, network)| *is == setting && network.is_whole());
    if !right {
        *slot = None;
        let mut programs = Programs::for_tests()?;
        if kind == Kind::Rogue {
            programs.relay = programs.rogue_relay.clone();
        }
        let options = Options {
            ports: ports.list(),
            ..Options::default()
        };
        let network = Network::up(programs, options, |line| eprintln!("  {line}"))?;
        *slot = Some((setting, network));
    }
    match slot {
        Some((_, network)) => Ok(network),
        None => bail!("no network"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error on")]
fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
