//! Wall clocks that are set: a client's, a service's, and everybody's.
//!
//! Programs are shown another time by libfaketime; timers run on as ever.

use crate::leaks::{comes_again, connections_end, page, quietly};
use crate::living::{complaints, first_page, ip, router_drops, router_drops_nothing};
use crate::tools::{HOST, eventually, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result, anyhow, ensure};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{Roster, Snapshot};
use mixline_protocol::time::UnixTime;
use mixline_testnet::fetch::fetch_bytes;
use mixline_testnet::netns::Namespace;
use mixline_testnet::topology::{Node, RELAYS, directory_url};
use mixline_testnet::{Network, Options, Port, Programs};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

const DAY: u64 = 24 * 3600;

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "living::clocks_that_are_set", clocks);
    tests.on(
        Kind::Honest,
        "living::a_service_that_starts_under_a_slow_clock",
        |network| quietly(network, slow_service),
    );
}

/// What needs a network of its own, whose state is of no use afterwards.
pub fn alone(tests: &mut Tests) {
    tests.alone("living::days_and_months_pass_for_everybody", days);
}

/// The library that shows a program another clock.
fn libfaketime() -> Result<PathBuf> {
    let machine = std::env::consts::ARCH;
    let known = [
        format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"),
        "/usr/lib/faketime/libfaketime.so.1".to_owned(),
        "/usr/lib64/faketime/libfaketime.so.1".to_owned(),
    ];
    let found = known.into_iter().map(PathBuf::from).find(|p| p.is_file());
    found.context("libfaketime is not installed (package faketime)")
}

/// Sets the wall clock of the client, as an offset of what it was.
fn set_clock(file: &Path, offset: &str) -> Result<()> {
    fs::write(file, offset)?;
    Ok(())
}

/// The environment in which programs have a wall clock that is what the file says, as an offset of what
/// it is.
fn other_clock(file: &Path) -> Result<Vec<(String, String)>> {
    let environment = [
        ("LD_PRELOAD", libfaketime()?.to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_NO_CACHE", "1".into()),
    ];
    let named = environment.map(|(name, value)| (name.to_owned(), value));
    Ok(named.to_vec())
}

/// Starts a client whose wall clock is what the file says, as an offset of what it is.
pub fn start_with_clock(network: &mut Network, node: Node, file: &Path) -> Result<()> {
    let client = network.programs().client.clone();
    network.start_as(node, client, other_clock(file)?)?;
    network.wait_for_client(node)?;
    Ok(())
}

/// Set back while it is stopped, by as much as a snapshot still counts with: it publishes at once, what
/// it had and another name.
fn slow_service(network: &mut Network) -> Result<()> {
    ensure!(page(HOST, 20), "no page before");
    let file = network.directory().join("service-clock");
    let outcome = [("-240", "slow"), ("-120", "less-slow")]
        .into_iter()
        .try_for_each(|(offset, name)| {
            set_clock(&file, offset)?;
            connections_end(Node::Service)?;
            network.stop(Node::Service)?;
            start_with_clock(network, Node::Service, &file)?;
            let began = Instant::now();
            let published = output(
                network
                    .client_command(Node::Service, "publish")
                    .arg(name)
                    .stdin(Stdio::null()),
            )?;
            let said = String::from_utf8_lossy(&published.stderr);
            ensure!(published.status.success(), "{offset} s: {said}");
            let host = format!("{name}.anon");
            eventually(&format!("{host} is there"), 30, || Ok(page(&host, 5)))?;
            println!(
                "    a clock at {offset} s: published and reached after {} ms",
                began.elapsed().as_millis()
            );
            Ok(())
        });
    connections_end(Node::Service)?;
    network.stop(Node::Service)?;
    network.start(Node::Service)?;
    network.wait_for_client(Node::Service)?;
    for name in ["slow", "less-slow"] {
        output(network.client_command(Node::Service, "unpublish").arg(name))?;
    }
    outcome?;
    eventually("the page as at the beginning", 60, || Ok(page(HOST, 5)))
}

fn clocks(network: &mut Network) -> Result<()> {
    let file = network.directory().join("client-clock");
    set_clock(&file, "+0")?;
    network.stop(Node::Client)?;
    start_with_clock(network, Node::Client, &file)?;
    let outcome = quietly(network, |network| clock_steps(network, &file));
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    outcome
}

fn clock_steps(network: &mut Network, file: &Path) -> Result<()> {
    ensure!(page(HOST, 30), "no page before");
    // Ahead, so that handshakes have times that are to come, and back.
    set_clock(file, "+280")?;
    eventually("handshakes at the new time", 150, || {
        // A link is made anew every two minutes; a way that has changed does it at once.
        ip(&["link set eth0 down"])?;
        ip(&[
            "link set eth0 up",
            "addr replace 3fff:200::2/64 dev eth0 nodad",
            "route replace default via 172.30.0.1",
            "-6 route replace default via 3fff:200::1",
        ])?;
        sleep(Duration::from_secs(3));
        Ok(page(HOST, 5))
    })?;
    set_clock(file, "+0")?;
    first_page("after a step back of 280 s")?;
    // Five seconds of loss, after which the links are made anew.
    let loss = "iifname client drop\n  oifname client drop\n";
    router_drops(network, loss)?;
    sleep(Duration::from_secs(5));
    router_drops_nothing()?;
    let again = first_page("after a step back and five seconds of loss")?;
    ensure!(again < Duration::from_secs(20), "{again:?}");
    for (offset, what) in [("-300", "five minutes slow"), ("+0", "right again")] {
        set_clock(file, offset)?;
        sleep(Duration::from_secs(3));
        first_page(what)?;
    }
    // More than is tolerated, back and ahead: that is said, and it goes on afterwards.
    let before = guards(network)?;
    for (offset, says) in [("-480", "minutes behind"), ("+3d", "clock")] {
        set_clock(file, offset)?;
        eventually(&format!("a clock at {offset} is said"), 60, || {
            Ok(complaints(network)?.contains(says))
        })
        .with_context(|| complaints(network).unwrap_or_default())?;
        set_clock(file, "+0")?;
        let right = first_page(&format!("right again after {offset}"))?;
        ensure!(right < Duration::from_secs(30), "{right:?}");
        eventually("nothing said of the clock any more", 30, || {
            Ok(!complaints(network)?.contains("clock"))
        })?;
    }
    let after = guards(network)?;
    ensure!(before == after, "other guards: {before:?}, {after:?}");
    Ok(())
}

/// The regular guards' names, in alphabetical order.
fn guards(network: &Network) -> Result<Vec<String>> {
    let mut guards = network.chosen_paths(Node::Client)?.guards;
    guards.sort();
    Ok(guards)
}

/// A network whose wall clock is set ahead in all its programs at once.
fn days(programs: &Programs) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    set_clock(file.path(), "+0")?;
    let options = Options {
        ports: vec![Port::Udp],
        environment: other_clock(file.path())?,
        ..Options::default()
    };
    let mut network = Network::up(programs.clone(), options, |line| eprintln!("  {line}"))?;
    quietly(&mut network, |network| {
        comes_again(network, "before")?;
        let (before, first) = (guards(network)?, records(network)?);
        let shell = Shell::open(network)?;
        // A lease has less than half of its time, a name is to be renewed, and the keys of all paths and
        // descriptors are over.
        set_clock(file.path(), &format!("+{}", 4 * DAY))?;
        all_renewed(network, &first, 4 * DAY)?;
        ensure!(guards(network)? == before, "guards are kept for months");
        shell.is_there().context("a connection idle for days")?;
        drop(shell);
        connections_end(Node::Client)?;
        // Now names are free, leases over, and guards have served their time.
        let until = guards_until(network)?;
        set_clock(file.path(), &format!("+{}", 160 * DAY))?;
        all_renewed(network, &first, 160 * DAY)?;
        eventually("guards for months to come", 60, || {
            let over = until.iter().max().copied();
            Ok(over < guards_until(network)?.iter().min().copied())
        })?;
        // A newcomer has nothing from before.
        connections_end(Node::Client)?;
        network.stop(Node::Client)?;
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        comes_again(network, "of a client that starts months later")
    })
}

/// A TCP connection in which little is said.
struct Shell {
    client: TcpStream,
    service: TcpStream,
}

impl Shell {
    /// From the client's host to the service's virtual address.
    fn open(network: &Network) -> Result<Self> {
        let at = network.identity(Node::Service)?.ipv4;
        let listener = Namespace::named(&Node::Service.namespace())?
            .run(|| TcpListener::bind((at, 0)))?
            .context("a port of the service's")?;
        let to = listener.local_addr()?;
        let client = Namespace::named(&Node::Client.namespace())?
            .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(20)))?
            .context("a connection to the service")?;
        let (service, _) = listener.accept()?;
        let shell = Self { client, service };
        shell.is_there()?;
        Ok(shell)
    }

    /// Both ends hear each other; the one that was connected to is the first to say something.
    fn is_there(&self) -> Result<()> {
        let (one, other) = (&self.service, &self.client);
        for (mut from, mut to) in [(one, other), (other, one)] {
            from.write_all(b"word")?;
            to.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut heard = [0; 4];
            to.read_exact(&mut heard)?;
            ensure!(&heard == b"word", "{heard:?}");
        }
        Ok(())
    }
}

/// What `resolve` says of the service: when its lease and its name end.
fn records(network: &Network) -> Result<[u64; 2]> {
    let asked = output(
        network
            .client_command(Node::Client, "resolve")
            .args(["--json", HOST]),
    )?;
    let found: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
    let at = |key: &str| found[key].as_u64().unwrap_or(0);
    Ok([at("lease_expires"), at("name_expires")])
}

/// When the guards' time is over, seconds since 1970.
fn guards_until(network: &Network) -> Result<Vec<u64>> {
    let file = network.files(Node::Client).state.join("guards.json");
    let remembered: Value = serde_json::from_slice(&fs::read(file)?)?;
    let all = remembered["guards"].as_array().context("no guards")?;
    let regular = all.iter().filter(|guard| guard["fallback"] == false);
    regular
        .map(|guard| guard["until"].as_u64().context("no end"))
        .collect()
}

/// The snapshot, looked at so many seconds ahead.
fn snapshot_ahead(network: &Network, ahead: u64) -> Result<Snapshot> {
    let url = format!("{}/v2/snapshot", directory_url(0));
    let bytes = fetch_bytes(&Node::Directory.namespace(), &url)?;
    let id: AnonymousId = network
        .directory_id()?
        .parse()
        .map_err(|error| anyhow!("the directory's ID: {error}"))?;
    let now = UnixTime(UnixTime::from(SystemTime::now()).0 + ahead);
    Ok(Snapshot::decode_and_verify(
        &bytes,
        &Roster::alone(id),
        now,
    )?)
}

/// Waits until all that ends by the wall clock has been made anew.
fn all_renewed(network: &mut Network, first: &[u64; 2], ahead: u64) -> Result<()> {
    let began = Instant::now();
    let days = ahead / DAY;
    eventually(&format!("all relays' keys after {days} days"), 60, || {
        let Ok(snapshot) = snapshot_ahead(network, ahead) else {
            return Ok(false);
        };
        let epoch = snapshot.issued.0 / u64::from(snapshot.parameters.epoch_seconds);
        let current = |relay: &mixline_protocol::records::ListedRelay| {
            u32::try_from(epoch).is_ok_and(|epoch| relay.onion_for(epoch).is_some())
        };
        Ok(snapshot.relays.len() == RELAYS && snapshot.relays.iter().all(current))
    })?;
    eventually(&format!("lease and name after {days} days"), 90, || {
        let now = records(network)?;
        let renewed = |(now, first): (&u64, &u64)| *now >= first + ahead - DAY;
        Ok(now.iter().zip(first).all(renewed))
    })
    .with_context(|| format!("{first:?}, {:?}", records(network)))?;
    comes_again(network, &format!("after {days} days"))?;
    for node in [Node::Client, Node::Service] {
        eventually(&format!("nothing is wrong with {node}"), 60, || {
            Ok(network.client_status(node)?["problems"] == serde_json::json!([]))
        })
        .with_context(|| format!("{:?}", network.client_status(node)))?;
    }
    println!(
        "    {days} days ahead: all renewed after {} ms",
        began.elapsed().as_millis()
    );
    Ok(())
}
