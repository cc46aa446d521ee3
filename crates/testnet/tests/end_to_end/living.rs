//! A host that lives: it sleeps, moves and has its wires narrowed, and what it uses
//! Mixline for goes on.
//!
//! The wires are captured meanwhile, as in `leaks`. How long the first answer takes is printed.

use crate::capture::{Watch, Way, nothing_on};
use crate::failures::start_download;
use crate::leaks::{VIRTUAL, page, quietly};
use crate::tools::{HOST, eventually, length, on_client, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::fetch::sha256_file;
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, netns};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a program waits for its first answer until it tries again, seconds.
const SOON: u32 = 2;
/// The same where no other try is needed: what is lost on a busy machine is repeated meanwhile.
const AT_ONCE: u32 = 5;

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "living::after_a_suspend", suspend);
    tests.on(
        Kind::Honest,
        "living::a_download_outlives_a_suspend",
        download,
    );
    tests.on(Kind::Honest, "living::in_another_network", roaming);
    tests.on(
        Kind::Honest,
        "living::an_address_that_is_renewed_changes_nothing",
        renewal,
    );
    tests.on(Kind::Honest, "living::a_path_too_narrow_is_named", narrow);
    tests.on(
        Kind::Honest,
        "living::a_firewall_that_forgets_the_directory",
        forgotten,
    );
    tests.on(
        Kind::Honest,
        "living::interfaces_of_any_size",
        interface_sizes,
    );
}

/// What the XDP program of the relays has a part in.
pub fn on_xdp(tests: &mut Tests) {
    tests.on(Kind::Honest, "living::a_path_too_narrow_is_named", narrow);
}

/// Asks for something again and again, as a person does; how often, and how long it took.
fn first(what: &str, ask: impl Fn() -> Result<bool>) -> Result<(u32, Duration)> {
    let began = Instant::now();
    let mut tries = 1;
    while !ask()? {
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "{what}: nothing for a minute"
        );
        tries += 1;
    }
    let took = began.elapsed();
    println!("    {what} after {} ms, try {tries}", took.as_millis());
    Ok((tries, took))
}

/// Asks for the page by name until it comes; how long it took.
pub fn first_page(what: &str) -> Result<Duration> {
    let what = format!("{what}: the first page");
    Ok(first(&what, || Ok(page(HOST, SOON)))?.1)
}

/// The same, where the first try has to do.
fn page_at_once(what: &str) -> Result<()> {
    let what = format!("{what}: the first page");
    let (tries, took) = first(&what, || Ok(page(HOST, AT_ONCE)))?;
    ensure!(tries == 1, "{what} after {took:?}");
    Ok(())
}

/// The same for a name alone, which nobody has asked for yet.
fn name_at_once(what: &str, number: u32) -> Result<()> {
    let name = format!("n{number}.{HOST}");
    let what = format!("{what}: the first name");
    let ask = || {
        let asked = output(on_client(AT_ONCE, "getent").args(["ahostsv4", &name]))?;
        Ok(asked.status.success())
    };
    let (tries, took) = first(&what, ask)?;
    ensure!(tries == 1, "{what} after {took:?}");
    Ok(())
}

fn suspend(network: &mut Network) -> Result<()> {
    ensure!(page(HOST, 20), "no page before");
    for (number, seconds) in [(1, 70), (2, 8)] {
        quietly(network, |network| {
            let client = network.process(Node::Client).context("the client")?;
            client.signal(Signal::SIGSTOP)?;
            sleep(Duration::from_secs(seconds));
            client.signal(Signal::SIGCONT)?;
            let what = format!("after {seconds} s of sleep");
            name_at_once(&what, number)?;
            page_at_once(&what)
        })?;
    }
    Ok(())
}

/// Connections go on after either side has slept, as they do without Mixline: the other side repeats
/// what it has said.
fn download(network: &mut Network) -> Result<()> {
    ensure!(page(HOST, 20), "no page before");
    for (sleeper, seconds) in [(Node::Client, 20), (Node::Service, 45)] {
        let to = network.directory().join("download");
        let _ = fs::remove_file(&to);
        let mut curl = start_download(&to)?;
        let outcome = quietly(network, |network| {
            eventually("the first 10 MB", 60, || Ok(length(&to) > 10_000_000))?;
            let process = network.process(sleeper).context("the client")?;
            process.signal(Signal::SIGSTOP)?;
            sleep(Duration::from_secs(seconds));
            process.signal(Signal::SIGCONT)?;
            let before = length(&to);
            ensure!(
                curl.try_wait()?.is_none(),
                "it ended while {sleeper:?} slept"
            );
            let began = Instant::now();
            // TCP has doubled its pauses meanwhile: one that comes just too early costs a minute.
            eventually("it goes on", 150, || Ok(length(&to) > before + 1_000_000))?;
            println!(
                "    {} asleep for {seconds} s: it goes on after {} ms",
                sleeper.name(),
                began.elapsed().as_millis()
            );
            Ok(())
        });
        if outcome.is_err() {
            let _ = curl.kill();
        }
        let ended = curl.wait_with_output()?;
        outcome.with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
        ensure!(ended.status.success(), "{ended:?}");
        ensure!(
            sha256_file(&to)? == network.site()?.download_sha256,
            "something else arrived"
        );
        fs::remove_file(to)?;
    }
    Ok(())
}

pub fn ip(lines: &[&str]) -> Result<()> {
    for line in lines {
        netns::said(netns::command(&Node::Client.namespace(), "ip").args(line.split(' ')))
            .with_context(|| format!("ip {line}"))?;
    }
    Ok(())
}

fn roaming(network: &mut Network) -> Result<()> {
    let client = Node::Client.namespace();
    netns::ip(&format!(
        "link add eth1 netns {client} type veth peer name client-b netns {ROUTER}\n"
    ))?;
    netns::ip_in(
        ROUTER,
        "link set client-b up\naddr add 172.29.0.1/24 dev client-b\n\
         addr add 3fff:202::1/64 dev client-b nodad\n",
    )?;
    let second = [(ROUTER, "client-b".to_owned(), "in")];
    let outcome = quietly(network, |network| {
        nothing_on(network, &second, VIRTUAL, |_| roam())
    });
    let _ = netns::ip_in(ROUTER, "link del client-b\n");
    outcome?;
    first_page("as at the beginning").map(drop)
}

/// From one network to another and back, and to another address.
fn roam() -> Result<()> {
    ensure!(page(HOST, 20), "no page before");
    // From one network to another, as from cable to Wi-Fi, with a moment in neither.
    ip(&["link set eth0 down"])?;
    sleep(Duration::from_secs(6));
    ip(&[
        "link set eth1 up",
        "addr add 172.29.0.2/24 dev eth1",
        "addr add 3fff:202::2/64 dev eth1 nodad",
        "route add default via 172.29.0.1",
        "-6 route add default via 3fff:202::1",
    ])?;
    page_at_once("in another network, after 6 s in none")?;
    // And back, without one; the old one goes a little later.
    ip(&[
        "link set eth0 up",
        "addr replace 3fff:200::2/64 dev eth0 nodad",
        "route replace default via 172.30.0.1",
        "-6 route replace default via 3fff:200::1",
        "link set eth1 down",
    ])?;
    page_at_once("back in the first network")?;
    // Another address on the same wire.
    ip(&[
        "addr del 172.30.0.2/24 dev eth0",
        "addr add 172.30.0.77/24 dev eth0",
        "route replace default via 172.30.0.1",
    ])?;
    page_at_once("with another address")?;
    ip(&[
        "addr del 172.30.0.77/24 dev eth0",
        "addr add 172.30.0.2/24 dev eth0",
        "route replace default via 172.30.0.1",
    ])
}

/// The guards' links, and since when the sessions are there.
fn sessions(network: &Network) -> Result<Vec<(String, i64)>> {
    let status = network.client_status(Node::Client)?;
    let sessions = status["sessions"].as_array().context("sessions")?;
    let one = |session: &Value| {
        let age = session["age_s"].as_i64().unwrap_or(0);
        (session["peer"].to_string(), age)
    };
    Ok(sessions.iter().map(one).collect())
}

fn renewal(network: &mut Network) -> Result<()> {
    let log = network.files(Node::Client).log;
    let moves = || -> Result<usize> {
        Ok(fs::read_to_string(&log)?
            .matches("the way to the guards has changed")
            .count())
    };
    ensure!(page(HOST, 20), "no page before");
    let (before, moved) = (sessions(network)?, moves()?);
    // On all interfaces of the host's, since some come and go.
    let host = vec![(Node::Client.namespace(), Way::Out, VIRTUAL.to_owned())];
    let watch = Watch::start(network, host)?;
    quietly(network, |_| {
        for lifetime in ["3600", "7200"] {
            ip(&[&format!(
                "addr change 172.30.0.2/24 dev eth0 valid_lft {lifetime} preferred_lft {lifetime}"
            )])?;
            // What comes and goes beside it, as containers do.
            ip(&["link add beside type dummy"])
                .or_else(|_| ip(&["link add beside type veth peer name beside2"]))?;
            ip(&[
                "addr add 198.18.0.1/24 dev beside",
                "link set beside up",
                "link del beside",
            ])?;
            ensure!(page(HOST, 5), "no page while an address is renewed");
            sleep(Duration::from_secs(1));
        }
        Ok(())
    })?;
    watch.end()?;
    ip(&["addr change 172.30.0.2/24 dev eth0 valid_lft forever preferred_lft forever"])?;
    ensure!(moves()? == moved, "it was taken for a move");
    let after = sessions(network)?;
    for (peer, age) in before {
        let same = after
            .iter()
            .any(|(other, now)| *other == peer && *now >= age);
        ensure!(
            same,
            "the session with {peer} is not what it was: {after:?}"
        );
    }
    Ok(())
}

/// What the client says is wrong with its guards, and in general.
pub fn complaints(network: &Network) -> Result<String> {
    let status = network.client_status(Node::Client)?;
    let mut all = status["problems"].to_string();
    for guard in status["guards"].as_array().into_iter().flatten() {
        all += &guard["last_error"].to_string();
        all += &format!(" out {} in {}", guard["mtu_out"], guard["mtu_in"]);
    }
    Ok(all)
}

fn narrow(network: &mut Network) -> Result<()> {
    let router = |mtu: u32| netns::ip_in(ROUTER, &format!("link set client mtu {mtu}\n"));
    let set = |end: &str, mtu: u32| match end {
        "the host's" => ip(&[&format!("link set eth0 mtu {mtu}")]),
        _ => Ok(router(mtu)?),
    };
    for end in ["the host's", "the router's"] {
        quietly(network, |network| {
            ensure!(page(HOST, 20), "no page before");
            set(end, 1400)?;
            let began = Instant::now();
            let named = |network: &Network| Ok(complaints(network)?.contains("1400"));
            let outcome = eventually("the MTU of 1400 is named", 60, || named(network));
            let said = complaints(network)?;
            println!(
                "    {end} end narrowed: named after {} ms: {said}",
                began.elapsed().as_millis()
            );
            set(end, 1500)?;
            outcome.context(said)?;
            eventually("the page comes again", 60, || Ok(page(HOST, 5)))?;
            eventually("nothing is said any more", 60, || {
                Ok(!complaints(network)?.contains("1400"))
            })
        })
        .context(end)?;
    }
    Ok(())
}

/// Has the router drop what these rules say.
pub fn router_drops(network: &Network, rules: &str) -> Result<()> {
    let table = format!(
        "table inet living {{\n chain forward {{\n  type filter hook forward priority 0;\n  {rules} }}\n}}\n"
    );
    let file = network.directory().join("living.nft");
    fs::write(&file, table)?;
    netns::said(netns::command(ROUTER, "nft").arg("-f").arg(&file)).map(drop)?;
    Ok(())
}

pub fn router_drops_nothing() -> Result<()> {
    netns::said(netns::command(ROUTER, "nft").args(["delete", "table", "inet", "living"]))?;
    Ok(())
}

/// The local ports of the client's connections to the directory.
fn directory_ports() -> Result<Vec<String>> {
    let filter = format!("dst {}", Node::Directory.ipv4());
    let shown = netns::said(
        netns::command(&Node::Client.namespace(), "ss")
            .args(["-Htn", "state", "established"])
            .arg(filter),
    )?;
    let port = |line: &str| {
        Some(
            line.split_whitespace()
                .nth(2)?
                .rsplit(':')
                .next()?
                .to_owned(),
        )
    };
    Ok(shown.lines().filter_map(port).collect())
}

fn forgotten(network: &mut Network) -> Result<()> {
    quietly(network, |network| {
        eventually("a connection to the directory", 60, || {
            Ok(!directory_ports()?.is_empty())
        })?;
        let old = directory_ports()?;
        // What a state table that has forgotten a connection does with it, both ways.
        let rule = |port: &String| format!("tcp sport {port} drop\n  tcp dport {port} drop\n");
        router_drops(network, &old.iter().map(rule).collect::<String>())?;
        let began = Instant::now();
        let fresh = eventually("a fresh connection to the directory", 60, || {
            Ok(directory_ports()?.iter().any(|port| !old.contains(port)))
        });
        println!(
            "    a fresh connection to the directory after {} ms, of which the next fetch is up to 10 s away",
            began.elapsed().as_millis()
        );
        router_drops_nothing()?;
        fresh?;
        // Ten seconds until the next fetch, three for the dead connection.
        ensure!(
            began.elapsed() < Duration::from_secs(25),
            "{:?}",
            began.elapsed()
        );
        ensure!(page(HOST, 10), "no page afterwards");
        Ok(())
    })
}

fn interface_sizes(network: &mut Network) -> Result<()> {
    let both = [Node::Client, Node::Service];
    let outcome = [(65535, 65535), (1280, 65535)]
        .iter()
        .try_for_each(|(client, service)| {
            let more = &mut network.options_mut().more;
            more.retain(|(_, text)| !text.starts_with("mtu:"));
            more.push((Node::Client, format!("mtu: {client}\n")));
            more.push((Node::Service, format!("mtu: {service}\n")));
            for node in both {
                network.stop(node)?;
                network.start(node)?;
                network.wait_for_client(node)?;
            }
            quietly(network, |network| {
                eventually("the page", 60, || Ok(page(HOST, 10)))?;
                let service = network.identity(Node::Service)?;
                // Larger than any cell, and as large as a packet gets.
                for (address, bytes) in [
                    (service.ipv4.to_string(), 20_000),
                    (service.ipv6.to_string(), 20_000),
                    (service.ipv4.to_string(), 65_507),
                ] {
                    let bytes = bytes.to_string();
                    let pinged = output(
                        on_client(40, "ping").args(["-c3", "-i0.2", "-W5", "-s", &bytes, &address]),
                    )?;
                    ensure!(
                        pinged.status.success(),
                        "{bytes} bytes to {address}: {pinged:?}"
                    );
                }
                Ok(())
            })
            .with_context(|| format!("MTU {client} and {service}"))
        });
    network
        .options_mut()
        .more
        .retain(|(_, text)| !text.starts_with("mtu:"));
    for node in both {
        network.stop(node)?;
        network.start(node)?;
        network.wait_for_client(node)?;
    }
    outcome
}
