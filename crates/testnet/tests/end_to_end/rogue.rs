//! Relays that misbehave under link encryption that is in order.
//!
//! Every relay here is `rogue_relay`, which is honest until a file tells it otherwise. One on the
//! path from the service to the client is told so while data flows. What becomes of its cells is
//! counted on both sides: how many it sent twice or changed, and how many were found out; so a test
//! fails if whatever should find them out does not, even if something further on, such as a
//! checksum of TCP, keeps the harm from the user.

use crate::applications::part_of_download;
use crate::stream::Stream;
use crate::tools::{HOST, eventually, length, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::client_status::ChosenPath;
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
        change(network, "flip")
    });
    tests.on(Kind::Rogue, "relay_that_cuts_messages", |network| {
        change(network, "blank")
    });
    tests.on(Kind::Rogue, "relay_that_drops", lose);
    tests.on(Kind::Rogue, "relays_never_see_equal_payloads", compare);
    tests.on(Kind::Rogue, "datagrams_that_are_cut", cut);
}

/// The metric that counts datagrams by what became of them.
const OUTCOMES: &str = "mixline_relay_datagrams_total";
/// The same of the XDP program.
const XDP_VERDICTS: &str = "mixline_relay_xdp_frames_total";

/// New cells that replay filters may take for old ones in the course of a test.
const FALSE_ALARMS: f64 = 1000.0;
/// Cells that are sent twice at least, lest false alarms look like replays found out.
const MANY_REPLAYS: f64 = 10.0 * FALSE_ALARMS;
/// Cells that are changed at least, lest a handful of other losses decide.
const MANY_CHANGES: f64 = 500.0;
/// Payloads that a comparison has at least: those of one path for 10 MB.
const MANY_PAYLOADS: usize = 50_000;
/// Copies that came too late, at least; what answers probes makes a few without any policy.
const MANY_COPIES: f64 = 1000.0;
/// Of the cells that the relay did something to, those that must be found out. The others were
/// lost on the way, or belonged to somebody whose counters are not read (the directory).
const MOST: f64 = 0.9;

/// Every cell is sent twice: the next hop drops and counts the second.
///
/// A head and a tail are chosen by two who do not know of each other, so the relay may also be the
/// last one before the client: then it is the client that drops.
fn replay(network: &mut Network) -> Result<()> {
    let found_before = all_relays("verdict=\"replay\"")?;
    let arrived_before = endpoints(network, "duplicates")?;
    let done = during_download(network, "replay")?;
    let found = all_relays("verdict=\"replay\"")? - found_before;
    let arrived = endpoints(network, "duplicates")? - arrived_before;
    let (to_relays, to_endpoints) = (done.to_relays(), done.to_endpoints);
    eprintln!(
        "  cells sent twice: {to_relays} to relays, which dropped {found} replays, and \
         {to_endpoints} to endpoints, which dropped {arrived}"
    );
    ensure!(
        to_relays >= MANY_REPLAYS,
        "only {to_relays} cells were sent twice to relays"
    );
    ensure!(
        found >= to_relays * MOST,
        "{to_relays} cells were sent twice to relays, which counted {found} replays"
    );
    ensure!(
        found <= to_relays * 1.01 + FALSE_ALARMS,
        "{to_relays} cells were sent twice to relays, which counted {found} replays"
    );
    // A replay that a relay lets through arrives as well. So does a packet that is sent over two
    // paths on purpose.
    ensure!(
        arrived <= to_endpoints + done.all * 0.01 + FALSE_ALARMS,
        "{to_endpoints} cells were sent twice to endpoints, which counted {arrived} duplicates"
    );
    ensure!(
        arrived >= to_endpoints * MOST - FALSE_ALARMS,
        "{to_endpoints} cells were sent twice to endpoints, which counted {arrived} duplicates"
    );
    Ok(())
}

/// The download gets past a relay that drops.
fn lose(network: &mut Network) -> Result<()> {
    let done = during_download(network, "drop")?;
    eprintln!("  {} cells were dropped", done.all);
    Ok(())
}

/// Cells that were changed on the way are found out by the endpoint, none of what was in them
/// reaches an application, and packets go on arriving over other relays.
///
/// The packets are UDP without a checksum, so that nothing but Mixline can find out.
fn change(network: &mut Network, behaviour: &str) -> Result<()> {
    open_session(network)?;
    let found_before = endpoints(network, "bad_cells")?;
    let stream = Stream::start(network)?;
    eventually("the first packets", 60, || Ok(stream.arrived() > 2000))?;
    let node = busy_relay(network)?;
    tell(network, node, behaviour)?;
    let begun = eventually(&format!("{node} to {behaviour}"), 30, || {
        Ok(done_by(network, node).all >= MANY_CHANGES)
    });
    // Time to find out, and to go on over another path.
    thread::sleep(Duration::from_secs(3));
    let goes_on = eventually("packets to go on", 20, || stream.goes_on());
    let report = stream.end()?;
    let done = honest_again(network, node)?.all;
    begun?;
    goes_on.with_context(|| report.to_string())?;
    // What is on its way arrives.
    thread::sleep(Duration::from_secs(1));
    let found = endpoints(network, "bad_cells")? - found_before;
    eprintln!("  {done} cells were changed, {found} found out; of packets, {report}");
    ensure!(
        report.changed == 0,
        "changed packets reached the application: {report}"
    );
    // A head and a tail are chosen by two who do not know of each other: the relay may be in both, and
    // change a cell twice.
    ensure!(
        found >= done / 2.0 * MOST,
        "{done} cells were changed, but endpoints found out {found}"
    );
    ensure!(
        found <= done * 1.01 + MANY_CHANGES,
        "{done} cells were changed, but endpoints found out {found}"
    );
    ensure!(
        report.last_arrived >= report.last_sent * 9 / 10,
        "packets do not go on: {report}"
    );
    Ok(())
}

/// Lets a relay misbehave in the middle of a download, which has to arrive intact; gives to how many
/// cells the relay did it.
fn during_download(network: &mut Network, behaviour: &str) -> Result<Done> {
    let to = network.directory().join("download");
    let _ = fs::remove_file(&to);
    open_session(network)?;
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
    let node = busy_relay(network)?;
    tell(network, node, behaviour)?;
    let begun = eventually(&format!("{node} to {behaviour}"), 30, || {
        Ok(done_by(network, node).all > 0.0)
    });
    let output = curl.wait_with_output()?;
    let done = honest_again(network, node)?;
    begun?;
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

/// Fetches a page, so that client and service have a session with paths.
fn open_session(network: &Network) -> Result<()> {
    fetch(
        &Node::Client.namespace(),
        &format!("http://{HOST}/"),
        &network.directory().join("page.html"),
        &["--max-time", "60"],
    )?;
    Ok(())
}

/// The second relay of the path over which most flows from the service to the client at the moment.
fn busy_relay(network: &Network) -> Result<Node> {
    let before = network.chosen_paths(Node::Service)?.paths;
    thread::sleep(Duration::from_secs(1));
    let after = network.chosen_paths(Node::Service)?.paths;
    let sent_before = |path: &ChosenPath| {
        let same = |other: &&ChosenPath| (&other.head, &other.tail) == (&path.head, &path.tail);
        before.iter().find(same).map_or(0, |same| same.cells)
    };
    let path = after
        .iter()
        .max_by_key(|path| path.cells.saturating_sub(sent_before(path)))
        .context("the service has no path")?;
    let name = path.head.get(1).context("a short head")?;
    (1..=RELAYS)
        .map(Node::Relay)
        .find(|node| node.name() == *name)
        .with_context(|| format!("{name} is no relay"))
}

/// What relays on different paths could compare: the payloads of all cells, as each relay has them once it has
/// opened its layer. Copies of a packet, probes' answers and messages go over several paths.
fn compare(network: &mut Network) -> Result<()> {
    let config = network.files(Node::Service).config;
    let as_it_was = fs::read_to_string(&config)?;
    let copies = "policies: [{to: 10.0.0.0/8, policy: duplicate 3}, {to: \"fd00::/8\", policy: duplicate 3}]\n";
    fs::write(&config, format!("{as_it_was}{copies}"))?;
    succeed(&mut network.client_command(Node::Service, "reload"))?;
    let outcome = compared(network);
    fs::write(&config, as_it_was)?;
    succeed(&mut network.client_command(Node::Service, "reload"))?;
    outcome
}

fn compared(network: &mut Network) -> Result<()> {
    // The relay that misbehaved last may still be in the ways to the directory. Tails that its paths
    // went over are taken for broken for a minute: a service may have a single one left, and no copies.
    eventually("a session", 60, || Ok(open_session(network).is_ok()))?;
    eventually("copies over paths that do not meet", 240, || {
        Ok(compared_once(network)? >= MANY_COPIES)
    })
}

/// One download, of which no payload may be equal to another; gives how many copies came too late.
fn compared_once(network: &mut Network) -> Result<f64> {
    let relays: Vec<Node> = (1..=RELAYS).map(Node::Relay).collect();
    let before = endpoints(network, "duplicates")?;
    for node in &relays {
        let _ = fs::remove_file(network.files(*node).state.join("noted"));
        tell(network, *node, "note")?;
    }
    let to = network.directory().join("part");
    let part = ["--max-time", "60", "--range", "0-9999999"];
    let url = format!("http://{HOST}/{DOWNLOAD_NAME}");
    let fetched = fetch(&Node::Client.namespace(), &url, &to, &part);

    let mut all = Vec::new();
    for node in &relays {
        honest_again(network, *node)?;
        let file = network.files(*node).state.join("noted");
        eventually(&format!("what {node} has noted"), 30, || Ok(file.exists()))?;
        all.extend(fs::read(&file)?.chunks(16).map(<[u8]>::to_vec));
        fs::remove_file(file)?;
    }
    fetched?;
    let arrived = fs::read(&to)?;
    fs::remove_file(to)?;
    ensure!(
        arrived == part_of_download(network, 0, 10_000_000)?,
        "something else arrived"
    );
    let copies = endpoints(network, "duplicates")? - before;
    let cells = all.len();
    all.sort_unstable();
    all.dedup();
    let equal = cells - all.len();
    eprintln!(
        "  {cells} payloads in eight relays, {copies} copies that came too late, {equal} equal"
    );
    ensure!(cells > MANY_PAYLOADS, "only {cells} payloads");
    ensure!(
        equal == 0,
        "{equal} of {cells} payloads are equal to others"
    );
    Ok(copies)
}

/// A datagram of the wrong length is dropped and counted, no matter who sends it.
fn cut(network: &mut Network) -> Result<()> {
    let relay = Node::Relay(1);
    // Where there is an XDP program, it drops them before the relay sees them.
    let dropped = || -> Result<f64> {
        let metrics = Metrics::of(relay)?;
        let wrong = "verdict=\"wrong_length\"";
        Ok(metrics.sum(OUTCOMES, wrong) + metrics.sum(XDP_VERDICTS, wrong))
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
        .map(|number| Ok(Metrics::of(Node::Relay(number))?.sum(OUTCOMES, label)))
        .sum()
}

/// The sum of a counter over client and service.
fn endpoints(network: &Network, counter: &str) -> Result<f64> {
    [Node::Client, Node::Service]
        .into_iter()
        .map(|node| {
            network.client_status(node)?["counters"][counter]
                .as_f64()
                .with_context(|| format!("no {counter} in the status of {node}"))
        })
        .sum()
}

/// Tells a relay what to do.
fn tell(network: &Network, node: Node, behaviour: &str) -> Result<()> {
    fs::write(network.files(node).state.join("behaviour"), behaviour)?;
    Ok(())
}

/// Has the relay be honest again; gives to how many cells it did what it was told before.
fn honest_again(network: &Network, node: Node) -> Result<Done> {
    tell(network, node, "honest")?;
    eventually(&format!("{node} to be honest again"), 30, || {
        Ok(fs::read_to_string(done_file(network, node))
            .is_ok_and(|line| line.starts_with("honest")))
    })?;
    // The last batch may not have been counted yet.
    thread::sleep(Duration::from_millis(500));
    Ok(done_by(network, node))
}

/// To how many cells a relay did what it was told.
struct Done {
    all: f64,
    /// Those of them that it delivered to an endpoint itself.
    to_endpoints: f64,
}

impl Done {
    /// The others, which it forwarded to another relay.
    fn to_relays(&self) -> f64 {
        self.all - self.to_endpoints
    }
}

fn done_by(network: &Network, node: Node) -> Done {
    let line = fs::read_to_string(done_file(network, node)).unwrap_or_default();
    let mut counts = line
        .split_whitespace()
        .skip(1)
        .map(|count| count.parse().unwrap_or(0.0));
    Done {
        all: counts.next().unwrap_or(0.0),
        to_endpoints: counts.next().unwrap_or(0.0),
    }
}

/// Where the relay says what it does, and to how many cells it has.
fn done_file(network: &Network, node: Node) -> PathBuf {
    network.files(node).state.join("done")
}
