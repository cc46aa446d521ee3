//! The relay on network cards, with their own drivers, zero-copy and the TX ring.
//!
//! Runs in a virtual machine that has pairs of cards, each pair on one cable; `cargo xtask vm-test`
//! makes it and says by `MIXLINE_CARDS` which there are: `igb=MAC,MAC virtio_net=MAC,MAC`. Without
//! that, everything is skipped with a message.

mod around;
mod circle;
mod faults;
mod host;
mod modes;
mod patient;
mod shared;
mod stacks;
mod traffic;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use mixline_testnet::Port;
use patient::Patient;
use shared::Shared;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Which cards there are.
const CARDS: &str = "MIXLINE_CARDS";
/// Cells that go round so that every frame of two queues is used, and used again.
const MANY: u64 = 9000;
/// Cells that go round to see that a port works.
const SOME: u64 = 1000;
/// A machine without hardware support is slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// A driver, and two cards that it has on one cable.
#[derive(Clone, Debug)]
struct Pair {
    driver: String,
    near: String,
    far: String,
}

impl Pair {
    /// Whether the driver has native XDP and zero-copy.
    fn has_zero_copy(&self) -> bool {
        self.driver != "e1000e"
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = match std::env::var(CARDS) {
        Ok(text) => trials(pairs(&text)),
        Err(_) => {
            if !arguments.list {
                println!(
                    "no network cards given: `cargo xtask vm-test` runs this in a machine that has some"
                );
            }
            Vec::new()
        }
    };
    let filter = arguments.filter.clone().unwrap_or_default();
    if !trials.is_empty() && !trials.iter().any(|trial| trial.name().contains(&filter)) {
        eprintln!("no test has a name with `{filter}`");
        std::process::exit(2);
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn pairs(text: &str) -> Vec<Pair> {
    text.split_whitespace()
        .filter_map(|word| {
            let (driver, cards) = word.split_once('=')?;
            let (near, far) = cards.split_once(',')?;
            Some(Pair {
                driver: driver.into(),
                near: near.into(),
                far: far.into(),
            })
        })
        .collect()
}

/// A test of one pair of cards that needs no network.
type Alone = fn(&Pair) -> Result<()>;

/// A test of what all share.
type Run = Box<dyn FnOnce(&mut Shared) -> Result<()> + Send>;

/// All tests, which run one after the other: first those that need nothing but cards.
fn trials(pairs: Vec<Pair>) -> Vec<Trial> {
    let shared = Arc::new(Mutex::new(Shared::new(pairs.clone())));
    let trial = |name: String, test: Run| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            test(&mut shared).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let mut trials = Vec::new();
    for pair in &pairs {
        let tests: &[(&str, Alone)] = if pair.has_zero_copy() {
            &[
                ("on_other_interfaces", stacks::on_other_interfaces),
                ("families", stacks::families),
                ("rights", stacks::rights),
                ("jumbo", modes::jumbo),
            ]
        } else {
            &[("no_native", modes::no_native)]
        };
        for (name, test) in tests {
            let name = format!("{}::{name}", pair.driver);
            let (pair, test) = (pair.clone(), *test);
            let alone = move |shared: &mut Shared| {
                shared.down()?;
                test(&pair)
            };
            trials.push(trial(name, Box::new(alone)));
        }
    }
    trials.push(trial("all::xdp".into(), Box::new(on_xdp)));
    for (relay, pair) in (1..).zip(&pairs) {
        if !pair.has_zero_copy() {
            continue;
        }
        for (name, fault) in faults::FAULTS.into_iter().chain(around::FAULTS) {
            let one = move |shared: &mut Shared| {
                shared.on(&[relay], Port::Xdp, "", |network| fault(network, relay))
            };
            trials.push(trial(format!("{}::{name}", pair.driver), Box::new(one)));
        }
    }
    trials.push(trial("all::small_frames".into(), Box::new(small_frames)));
    for (name, port) in [("filter", Port::XdpFilter), ("udp", Port::Udp)] {
        let test = move |shared: &mut Shared| {
            let relays = shared.relays(|_| true);
            shared.on(&relays, port, "", |network| {
                traffic::through(network, &relays, SOME)
            })
        };
        trials.push(trial(format!("all::{name}"), Box::new(test)));
    }
    trials.push(trial("all::down".into(), Box::new(Shared::down)));
    trials
}

/// Zero-copy and the TX ring are granted where the driver has them, and elsewhere the generic path
/// with copies works; what is received arrives, and no frame is lost.
fn on_xdp(shared: &mut Shared) -> Result<()> {
    let relays = shared.relays(|_| true);
    let zero_copy = shared.relays(Pair::has_zero_copy);
    shared.on(&relays, Port::Xdp, "", |network| {
        for relay in &relays {
            let (kind, why) = Patient::new(network, *relay).port()?;
            eprintln!("  relay{relay}: {kind}: {why}");
            let wanted = if zero_copy.contains(relay) {
                ["native XDP", "zero-copy", "through the TX ring"]
            } else {
                ["generic XDP", "copy", "through UDP with GSO"]
            };
            ensure!(
                kind == "xdp" && wanted.iter().all(|part| why.contains(part)),
                "relay{relay}: {kind}: {why}"
            );
        }
        traffic::through(network, &relays, MANY)
    })
}

/// Frames of 2048 bytes. A card whose buffers come in steps of 1024 bytes cuts what arrives, and the
/// relay gives XDP up; with others it works.
fn small_frames(shared: &mut Shared) -> Result<()> {
    let relays = shared.relays(Pair::has_zero_copy);
    let cuts: Vec<bool> = relays
        .iter()
        .map(|relay| shared.pair(*relay).driver == "igb")
        .collect();
    shared.on(&relays, Port::Xdp, "xdp_frame_bytes: 2048\n", |network| {
        for (relay, cuts) in relays.iter().zip(cuts) {
            let patient = Patient::new(network, *relay);
            if cuts {
                patient.is_on_udp("the start with small frames", "arrived cut")?;
            } else {
                patient.is_healed("the start with small frames")?;
            }
        }
        traffic::through(network, &relays, SOME)
    })
}
