//! Relays that misbehave under link encryption that is in order.
//!
//! Every relay here is `rogue_relay`, which is honest until a file tells it otherwise. One
//! of the client's busiest path is told so in the middle of a download.

use crate::tools::{HOST, eventually, length};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::metrics::Metrics;
use mixline_testnet::netns;
use mixline_testnet::topology::{Node, RELAY_PORT, RELAYS};
use mixline_testnet::web::DOWNLOAD_NAME;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Rogue, "relay_that_replays", replay);
    tests.on(Kind::Rogue, "relay_that_flips_bits", |network| {
        goes_on(network, "flip")
    });
    tests.on(Kind::Rogue, "relay_that_cuts_messages", |network| {
        goes_on(network, "blank")
    });
    tests.on(Kind::Rogue, "relay_that_drops", |network| {
        goes_on(network, "drop")
    });
    tests.on(Kind::Rogue, "datagrams_that_are_cut", cut);
}

/// The metric that counts datagrams by what became of them.
const VERDICTS: &str = "mixline_relay_datagrams_total";
/// The same of the XDP program.
const XDP_VERDICTS: &str = "mixline_relay_xdp_frames_total";

/// New cells that replay filters may take for old ones in the course of a test.
const FALSE_ALARMS: f64 = 1000.0;

/// Every cell is sent twice: the next relay drops and counts the second.
fn replay(network: &mut Network) -> Result<()> {
    let before = all_relays("verdict=\"replay\"")?;
    let deeds = misbehave(network, "replay")?;
    let counted = all_relays("verdict=\"replay\"")? - before;
    // Some of the second ones may be lost on the way or belong to paths that died, but not many.
    ensure!(
        counted > 0.0,
        "{deeds} cells were sent twice, and no relay counted a replay"
    );
    ensure!(
        counted <= deeds as f64 * 1.01 + FALSE_ALARMS,
        "{deeds} cells were sent twice, but {counted} replays were counted"
    );
    eprintln!("  {deeds} cells sent twice, {counted} replays dropped");
    Ok(())
}

/// The download gets past the relay unharmed.
fn goes_on(network: &mut Network, behaviour: &str) -> Result<()> {
    let deeds = misbehave(network, behaviour)?;
    eprintln!("  {deeds} cells were treated so");
    Ok(())
}

/// Lets a relay misbehave in the middle of a download, which has to arrive intact; gives the number
/// of cells that the relay treated so.
fn misbehave(network: &mut Network, behaviour: &str) -> Result<u64> {
    let to = network.directory().join("download");
    let _ = fs::remove_file(&to);
    // The path has to be in use before it is looked for.
    let page = network.directory().join("page.html");
    fetch(
        &Node::Client.namespace(),
        &format!("http://{HOST}/"),
        &page,
        &["--max-time", "60"],
    )?;
    let curl = netns::command(&Node::Client.namespace(), "curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--limit-rate",
            "8M",
            "--max-time",
            "240",
        ])
        .arg("--output")
        .arg(&to)
        .arg(format!("http://{HOST}/{DOWNLOAD_NAME}"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running curl")?;
    eventually("the first 5 MB", 60, || Ok(length(&to) > 5_000_000))?;

    // The service's busiest path carries the download.
    let chosen = network.chosen_paths(Node::Service)?;
    let path = chosen.paths.first().context("the service has no path")?;
    let name = path.head.get(1).context("a short head")?.clone();
    let node = (1..=RELAYS)
        .map(Node::Relay)
        .find(|node| node.name() == name)
        .with_context(|| format!("{name} is no relay"))?;
    fs::write(order_file(network, node), behaviour)?;
    let deeds = eventually(&format!("{node} to {behaviour}"), 30, || {
        Ok(deeds_of(network, node) > 0)
    });
    let output = curl.wait_with_output()?;
    fs::write(order_file(network, node), "honest")?;
    eventually(&format!("{node} to be honest again"), 30, || {
        Ok(deeds_line(network, node).starts_with("honest"))
    })?;
    // The last batch may not have been counted yet.
    thread::sleep(Duration::from_millis(500));
    let done = deeds_of(network, node);
    deeds?;
    ensure!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        sha256_file(&to)? == network.site()?.download_sha256,
        "something else arrived"
    );
    fs::remove_file(to)?;
    Ok(done)
}

/// A datagram of the wrong length is dropped and counted, whoever sends it.
fn cut(network: &mut Network) -> Result<()> {
    let relay = Node::Relay(1);
    // Where there is an XDP program, it drops them before the relay sees them.
    let dropped = || -> Result<f64> {
        let metrics = Metrics::of(relay)?;
        let wrong = "verdict=\"wrong_length\"";
        Ok(metrics.sum(VERDICTS, wrong) + metrics.sum(XDP_VERDICTS, wrong))
    };
    let before = dropped()?;
    let target = format!("/dev/udp/{}/{RELAY_PORT}", relay.ipv4());
    let script = format!(
        "for length in 1 16 700 1407 1409; do head -c $length /dev/urandom > {target}; done"
    );
    let output = netns::command(&Node::Client.namespace(), "bash")
        .args(["-c", &script])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    eventually("five datagrams to be counted", 30, || {
        Ok(dropped()? >= before + 5.0)
    })?;
    fetch(
        &Node::Client.namespace(),
        &format!("http://{HOST}/"),
        &network.directory().join("page.html"),
        &["--max-time", "60"],
    )?;
    Ok(())
}

/// The sum of a counter over all relays.
fn all_relays(label: &str) -> Result<f64> {
    (1..=RELAYS)
        .map(|number| Ok(Metrics::of(Node::Relay(number))?.sum(VERDICTS, label)))
        .sum()
}

/// What the relay is told to do.
fn order_file(network: &Network, node: Node) -> PathBuf {
    network.files(node).state.join("behaviour")
}

/// What the relay says that it does, and how often it has.
fn deeds_line(network: &Network, node: Node) -> String {
    fs::read_to_string(network.files(node).state.join("deeds")).unwrap_or_default()
}

fn deeds_of(network: &Network, node: Node) -> u64 {
    let line = deeds_line(network, node);
    line.split_whitespace()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}
