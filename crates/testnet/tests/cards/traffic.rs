//! Traffic through relays of a network, and the accounts of their frames.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::Network;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::metrics::Metrics;
use mixline_testnet::netns::Namespace;
use mixline_testnet::topology::{Node, ROUTER};
use std::thread;
use std::time::{Duration, Instant};

use crate::circle;
use crate::patient::Patient;

/// The metric that counts datagrams by what became of them.
const OUTCOMES: &str = "mixline_relay_datagrams_total";
/// The same of the XDP program.
const VERDICTS: &str = "mixline_relay_xdp_frames_total";
/// Cells of the client's that each relay has to forward ...
const FORWARDED: f64 = 200.0;
/// ... by so many fetches at most.
const FETCHES: usize = 12;
/// Bytes of the large file that each fetch asks for: the whole takes minutes in a machine without
/// hardware support.
const PART: usize = 1_000_000;

/// Sends cells round through each of these relays, and fetches pages until the client's paths have
/// led through each. Everything has to arrive intact, and no frame to be lost in a relay.
pub fn through(network: &mut Network, relays: &[usize], cells: u64) -> Result<()> {
    for relay in relays {
        let descriptor = Patient::new(network, *relay).descriptor()?;
        let began = Instant::now();
        Namespace::named(ROUTER)?
            .run(|| circle::pump(*relay, &descriptor, cells))?
            .with_context(|| format!("relay{relay}"))?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("  {cells} cells around relay{relay} in {seconds:.1} s");
    }
    fetches(network, relays)?;
    for relay in relays {
        accounts(Node::Relay(*relay)).with_context(|| format!("relay{relay}"))?;
    }
    Ok(())
}

/// Fetches pages until each of these relays has forwarded enough.
fn fetches(network: &mut Network, relays: &[usize]) -> Result<()> {
    let url = format!("http://{SERVICE_NAME}.anon/");
    let to = network.directory().join("fetched");
    let namespace = Node::Client.namespace();
    let before = forwarded(relays)?;
    for round in 1..=FETCHES {
        fetch(&namespace, &url, &to, &["--max-time", "120"])?;
        ensure!(
            sha256_file(&to)? == network.site()?.page_sha256,
            "the page is another"
        );
        let from = PART * round;
        let range = format!("{from}-{}", from + PART - 1);
        let download = format!("{url}download.bin");
        fetch(
            &namespace,
            &download,
            &to,
            &["--max-time", "240", "--range", &range],
        )?;
        let part = std::fs::read(network.site()?.directory.join("download.bin"))?;
        ensure!(
            std::fs::read(&to)? == part[from..from + PART],
            "a part of the download is another"
        );
        let now = forwarded(relays)?;
        let through: Vec<f64> = now
            .iter()
            .zip(&before)
            .map(|(now, then)| now - then)
            .collect();
        eprintln!("  {through:?} cells forwarded by relays {relays:?} after {round} fetches");
        if through.iter().all(|cells| *cells >= FORWARDED) {
            return Ok(());
        }
        // Another client chooses other paths.
        network.stop(Node::Client)?;
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
    }
    bail!("too little went through {relays:?}")
}

/// Cells that relays have passed on to others.
fn forwarded(relays: &[usize]) -> Result<Vec<f64>> {
    let of = |relay: &usize| {
        let metrics = Metrics::of(Node::Relay(*relay))?;
        Ok(metrics.sum(OUTCOMES, "verdict=\"forwarded\""))
    };
    relays.iter().map(of).collect()
}

/// What the XDP program redirected has become something in the relay, and nothing of it was cut.
fn accounts(node: Node) -> Result<()> {
    thread::sleep(Duration::from_secs(1));
    let metrics = Metrics::of(node)?;
    let outcome = |name: &str| metrics.sum(OUTCOMES, &format!("verdict=\"{name}\""));
    let counts: Vec<String> = metrics
        .series()
        .filter(|series| series.starts_with(OUTCOMES) || series.starts_with(VERDICTS))
        .filter_map(|series| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}');
            let value = metrics.sum(name, labels);
            let verdict = labels.rsplit_once("verdict=").map_or(labels, |both| both.1);
            let what = if name == VERDICTS { "xdp " } else { "" };
            (value > 0.0).then(|| format!("{what}{} {value}", verdict.trim_matches('"')))
        })
        .collect();
    eprintln!("  {node}: {}", counts.join(", "));
    let redirected = metrics.sum(VERDICTS, "verdict=\"redirected\"");
    ensure!(outcome("wrong_length") == 0.0, "datagrams were cut");
    ensure!(
        metrics.sum(VERDICTS, "verdict=\"wrong_length\"") == 0.0,
        "frames were cut"
    );
    if redirected > 0.0 {
        // What was redirected is data; handshakes come through the kernel's socket.
        let data = metrics.sum(OUTCOMES, "") - outcome("handshake");
        let lost = (redirected - data).abs();
        ensure!(
            lost <= redirected * 0.001 + 16.0,
            "{redirected} frames were redirected, and {data} had an outcome"
        );
    }
    Ok(())
}
