//! The relay on network cards, with their own drivers, zero-copy and the TX ring.
//!
//! Runs in a virtual machine that has pairs of cards, each pair on one cable; `cargo xtask vm-test`
//! makes it and says by `MIXLINE_CARDS` which there are: `igb=MAC,MAC virtio_net=MAC,MAC`. Without
//! that, everything is skipped with a message.

mod faults;
mod stacks;
mod traffic;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use mixline_testnet::process::tail;
use mixline_testnet::topology::Node;
use mixline_testnet::{CardWire, Network, Options, Port, Programs};
use std::time::Duration;

/// Which cards there are.
const CARDS: &str = "MIXLINE_CARDS";
/// The relay whose wire is a pair of cards.
const RELAY: usize = 1;
/// A machine without hardware support is slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// A driver, and two cards that it has on one cable.
#[derive(Clone, Debug)]
struct Pair {
    driver: String,
    near: String,
    far: String,
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = match std::env::var(CARDS) {
        Ok(text) => pairs(&text).into_iter().flat_map(trials).collect(),
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

/// A test of one pair of cards.
type Test = fn(&Pair) -> Result<()>;

/// The tests of one pair of cards, those on one network one after the other.
fn trials(pair: Pair) -> Vec<Trial> {
    let tests: [(&str, Test); 7] = [
        ("on_other_interfaces", stacks::on_other_interfaces),
        ("families", stacks::families),
        ("rights", stacks::rights),
        ("zero_copy", zero_copy),
        ("small_frames", small_frames),
        ("filter", |pair| on(pair, Port::XdpFilter, "", works)),
        ("udp", |pair| on(pair, Port::Udp, "", works)),
    ];
    tests
        .into_iter()
        .map(|(name, test)| {
            let pair = pair.clone();
            Trial::test(format!("{}::{name}", pair.driver), move || {
                test(&pair).map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect()
}

/// Runs a test on a network in which one relay's wire is the pair.
fn on(
    pair: &Pair,
    port: Port,
    more: &str,
    test: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    let options = Options {
        ports: vec![port, Port::Udp],
        // An igb of QEMU's takes segmentation of UDP for fragmentation.
        offloads: false,
        cards: vec![CardWire {
            node: Node::Relay(RELAY),
            near: pair.near.clone(),
            far: pair.far.clone(),
        }],
        patience: PATIENCE,
        more: vec![(Node::Relay(RELAY), more.into())],
    };
    let mut network = Network::up(Programs::release()?, options, |line| eprintln!("  {line}"))?;
    let result = test(&mut network);
    if result.is_err() {
        let log = network.files(Node::Relay(RELAY)).log;
        eprintln!("the end of the relay's log:\n{}", tail(&log, 20));
        if let Ok(status) = network.relay_status(RELAY) {
            eprintln!("its status:\n{status:#}");
        }
    }
    network.down()?;
    result
}

/// The driver grants zero-copy, what is received so arrives, and it goes on to do so whatever
/// happens to the card.
fn zero_copy(pair: &Pair) -> Result<()> {
    on(pair, Port::Xdp, "", |network| {
        let why = port_of(network)?;
        ensure!(
            why.starts_with("native XDP") && why.contains("zero-copy"),
            "{} did not grant zero-copy: {why}",
            pair.driver
        );
        ensure!(why.contains("TX ring"), "the TX ring is not used: {why}");
        works(network)?;
        for (name, fault) in FAULTS {
            eprintln!("  {name}");
            fault(network).with_context(|| name.to_owned())?;
        }
        Ok(())
    })
}

/// Something that happens to the card of a network's relay.
type Fault = fn(&mut Network) -> Result<()>;

/// What happens to the card meanwhile.
const FAULTS: [(&str, Fault); 7] = [
    ("its link goes and comes", faults::link_flaps),
    ("its rings change", faults::rings_change),
    ("its MTU changes", faults::mtu_changes),
    ("its gateway changes", faults::gateway_changes),
    ("the relay is killed", faults::killed),
    ("another relay wants the card", faults::another_program),
    ("its driver leaves and comes back", faults::driver_rebinds),
];

/// Frames of 2048 bytes. A card whose buffers come in steps of 1024 bytes cuts what arrives, and the
/// relay gives XDP up; with others it works.
fn small_frames(pair: &Pair) -> Result<()> {
    on(pair, Port::Xdp, "xdp_frame_bytes: 2048\n", |network| {
        if pair.driver == "igb" {
            let patient = faults::Patient::new(network)?;
            patient.is_on_udp("the start with small frames", "arrived cut")?;
        }
        works(network)
    })
}

/// What the relay says of its port.
fn port_of(network: &Network) -> Result<String> {
    let status = network.relay_status(RELAY)?;
    let why = status["port"]["why"].as_str().context("no port")?;
    eprintln!("  port: {why}");
    Ok(why.to_owned())
}

/// Pages and a download go through the relay, and no frame is lost in it.
fn works(network: &mut Network) -> Result<()> {
    traffic::through(network, RELAY)
}
