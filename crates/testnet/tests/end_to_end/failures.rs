//! What happens when something breaks: relays die, the service goes away.

use crate::tools::{HOST, eventually, length, on_client, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::netns;
use mixline_testnet::topology::{Node, RELAYS};
use mixline_testnet::web::DOWNLOAD_NAME;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "guard_killed_in_a_download", |network| {
        relay_killed(network, 0)
    });
    tests.on(
        Kind::Honest,
        "middle_relay_killed_in_a_download",
        |network| relay_killed(network, 1),
    );
    tests.on(
        Kind::Honest,
        "service_relay_killed_in_a_download",
        service_relay_killed,
    );
    tests.on(Kind::Honest, "service_stopped", |network| {
        service_gone(network, Network::stop)
    });
    tests.on(Kind::Honest, "service_killed", |network| {
        service_gone(network, Network::kill)
    });
}

/// How long an application may wait for the error when a service is gone: 5 s are promised; the
/// rest is for a busy machine.
const ERROR_WITHIN: Duration = Duration::from_secs(8);

/// Kills a relay of the client's busiest path: the one at `position` of its head.
fn relay_killed(network: &mut Network, position: usize) -> Result<()> {
    kill_in_download(network, |network| {
        let chosen = network.chosen_paths(Node::Client)?;
        let path = chosen.paths.first().context("the client has no path")?;
        Ok(path.head.get(position).context("a short head")?.clone())
    })
}

/// Kills a relay of the service's busiest path back to the client.
fn service_relay_killed(network: &mut Network) -> Result<()> {
    kill_in_download(network, |network| {
        let chosen = network.chosen_paths(Node::Service)?;
        let path = chosen.paths.first().context("the service has no path")?;
        Ok(path.head.get(1).context("a short head")?.clone())
    })
}

fn kill_in_download(
    network: &mut Network,
    victim: impl FnOnce(&Network) -> Result<String>,
) -> Result<()> {
    let to = network.directory().join("download");
    let _ = std::fs::remove_file(&to);
    let mut curl = start_download(&to)?;
    eventually("the first 10 MB", 60, || {
        ensure!(
            curl.try_wait()?.is_none() || length(&to) > 10_000_000,
            "curl has ended"
        );
        Ok(length(&to) > 10_000_000)
    })?;
    let name = victim(network)?;
    let node = (1..=RELAYS)
        .map(Node::Relay)
        .find(|node| node.name() == name)
        .with_context(|| format!("{name} is no relay"))?;
    let before = length(&to);
    network.kill(node)?;
    ensure!(
        curl.try_wait()?.is_none(),
        "the download ended before {name} was killed"
    );
    eprintln!("  killed {name} after {:.0} MB", before as f64 / 1e6);
    let output = curl.wait_with_output()?;
    let outcome = if output.status.success() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(
            "curl: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    };
    network.start(node)?;
    network.wait_for_relays(RELAYS)?;
    outcome?;
    ensure!(
        sha256_file(&to)? == network.site()?.download_sha256,
        "something else arrived"
    );
    std::fs::remove_file(to)?;
    Ok(())
}

/// After the service has gone, an application gets an error, and soon; when it is back, it works
/// again.
fn service_gone(
    network: &mut Network,
    end: impl FnOnce(&mut Network, Node) -> mixline_testnet::Result<()>,
) -> Result<()> {
    let page = network.directory().join("page.html");
    let url = format!("http://{HOST}/");
    let client = Node::Client.namespace();
    fetch(&client, &url, &page, &["--max-time", "60"]).context("before the service ends")?;
    let to = network.directory().join("download");
    let mut transfer = start_download(&to)?;
    eventually("the first megabyte", 60, || Ok(length(&to) > 1_000_000))?;
    end(network, Node::Service)?;

    let began = Instant::now();
    let curl = output(on_client(60, "curl").args(["-sS", "--output", "/dev/null", &url]))?;
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&curl.stderr).into_owned();
    ensure!(!curl.status.success(), "there is nobody to answer");
    ensure!(
        took < ERROR_WITHIN,
        "the error came after {took:?} only: {said}"
    );
    ensure!(curl.status.code() != Some(124), "curl hung");
    eprintln!("  {:.1} s: {}", took.as_secs_f64(), said.trim());
    let _ = transfer.kill();
    let _ = transfer.wait();
    let _ = std::fs::remove_file(to);

    network.start(Node::Service)?;
    network.wait_for_client(Node::Service)?;
    eventually("the service to be back", 90, || {
        Ok(fetch(&client, &url, &page, &["--max-time", "10"]).is_ok())
    })?;
    ensure!(
        sha256_file(&page)? == network.site()?.page_sha256,
        "another page arrived"
    );
    Ok(())
}

/// A download that takes some ten seconds, so that there is time to break something.
pub fn start_download(to: &Path) -> Result<Child> {
    netns::command(&Node::Client.namespace(), "curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--limit-rate",
            "10M",
            "--max-time",
            "240",
        ])
        .arg("--output")
        .arg(to)
        .arg(format!("http://{HOST}/{DOWNLOAD_NAME}"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running curl")
}
