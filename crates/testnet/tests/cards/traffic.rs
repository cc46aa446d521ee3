//! Traffic through one relay of a network, and the accounts of its frames.

use anyhow::{Result, bail, ensure};
use mixline_testnet::Network;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::metrics::Metrics;
use mixline_testnet::topology::Node;
use std::thread;
use std::time::Duration;

/// The metric that counts datagrams by what became of them.
const OUTCOMES: &str = "mixline_relay_datagrams_total";
/// The same of the XDP program.
const VERDICTS: &str = "mixline_relay_xdp_frames_total";
/// Cells that have to go through the relay, so that every frame of its rings is used several times.
const CELLS: f64 = 10_000.0;
/// Fetches until then at most.
const FETCHES: usize = 40;

/// Fetches pages until so many cells have gone through a relay; each has to arrive intact.
pub fn through(network: &mut Network, relay: usize) -> Result<()> {
    let node = Node::Relay(relay);
    let url = format!("http://{SERVICE_NAME}.anon/");
    let to = network.directory().join("fetched");
    let namespace = Node::Client.namespace();
    for round in 1..=FETCHES {
        fetch(&namespace, &url, &to, &["--max-time", "120"])?;
        ensure!(
            sha256_file(&to)? == network.site()?.page_sha256,
            "the page is another"
        );
        // A part of the large file: the whole takes minutes in a machine without hardware support.
        let part = 2_000_000 * round;
        let range = format!("{}-{}", part, part + 1_999_999);
        let url = format!("{url}download.bin");
        let fetched = fetch(
            &namespace,
            &url,
            &to,
            &["--max-time", "240", "--range", &range],
        )?;
        ensure!(
            fetched.size_download == 2_000_000,
            "a part of the download is missing"
        );
        let relayed = relayed(node)?;
        eprintln!("  {relayed} cells through {node} after {round} fetches");
        if relayed >= CELLS {
            return accounts(node);
        }
        // Another client chooses other paths.
        network.stop(Node::Client)?;
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
    }
    bail!("too little went through {node}")
}

/// Cells that a relay has passed on.
fn relayed(node: Node) -> Result<f64> {
    let metrics = Metrics::of(node)?;
    Ok(metrics.sum(OUTCOMES, "verdict=\"forwarded\"")
        + metrics.sum(OUTCOMES, "verdict=\"delivered\""))
}

/// What the XDP program redirected has become something in the relay, and nothing of it was cut.
fn accounts(node: Node) -> Result<()> {
    thread::sleep(Duration::from_secs(2));
    let metrics = Metrics::of(node)?;
    let outcome = |name: &str| metrics.sum(OUTCOMES, &format!("verdict=\"{name}\""));
    let all: Vec<&str> = metrics
        .series()
        .filter(|series| {
            series.starts_with("mixline_relay_datagrams") || series.starts_with("mixline_relay_xdp")
        })
        .collect();
    for series in &all {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let value = metrics.sum(name, labels.trim_end_matches('}'));
        if value > 0.0 {
            eprintln!("    {series} {value}");
        }
    }
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
