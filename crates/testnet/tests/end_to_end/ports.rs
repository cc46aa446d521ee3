//! Relays have the kind of port that they were asked for, and a page and a download get through.

use crate::tools::HOST;
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::metrics::Metrics;
use mixline_testnet::topology::{Node, RELAYS};
use mixline_testnet::web::DOWNLOAD_NAME;
use mixline_testnet::{Network, Port};

/// Counts datagrams by what became of them.
const DATAGRAMS: &str = "mixline_relay_datagrams_total";

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "relays_have_the_port_asked_for", ports);
}

/// Datagrams that relays with one kind of port must have forwarded, of the 100,000 of a download.
const FORWARDED: f64 = 50_000.0;
/// A path may happen to lead over relays of one kind only.
const TRIES: usize = 4;

fn ports(network: &mut Network) -> Result<()> {
    for number in 1..=RELAYS {
        let status = network.relay_status(number)?;
        let wanted = network.port(number)?;
        let has = status["port"]["kind"]
            .as_str()
            .context("no port in the status")?;
        ensure!(has == wanted.name(), "relay{number} has {has}");
        if wanted.needs_xdp() {
            ensure!(
                status["xdp"]["redirected"].is_u64(),
                "relay{number} has no verdicts of an XDP program"
            );
        }
    }
    let to = network.directory().join("download");
    let url = format!("http://{HOST}/{DOWNLOAD_NAME}");
    let mut all = false;
    for _ in 0..TRIES {
        fetch(&Node::Client.namespace(), &url, &to, &["--max-time", "300"])?;
        ensure!(
            sha256_file(&to)? == network.site()?.download_sha256,
            "something else arrived"
        );
        let [xdp, others] = forwarded(network)?;
        eprintln!("  {xdp} datagrams forwarded by relays on AF_XDP, {others} by others");
        let count = |wanted: bool, count: f64| !wanted || count >= FORWARDED;
        let kinds: Vec<Port> = (1..=RELAYS)
            .map(|number| network.port(number))
            .collect::<mixline_testnet::Result<_>>()?;
        all = count(kinds.contains(&Port::Xdp), xdp)
            && count(kinds.iter().any(|kind| *kind != Port::Xdp), others);
        if all {
            break;
        }
    }
    ensure!(all, "relays of one kind had no part in {TRIES} downloads");
    Ok(())
}

/// Datagrams that went out of the relays on AF_XDP, and out of the others, since they run.
fn forwarded(network: &Network) -> Result<[f64; 2]> {
    let mut sums = [0.0; 2];
    for number in 1..=RELAYS {
        let sum = Metrics::of(Node::Relay(number))?.sum(DATAGRAMS, "verdict=\"forwarded\"");
        sums[usize::from(network.port(number)? != Port::Xdp)] += sum;
    }
    Ok(sums)
}
