//! What is answered besides addresses, and how long an answer holds, also behind a cache.

use crate::clocks::start_with_clock;
use crate::host_names::resolve;
use crate::leaks::{comes_again, connections_end, quietly};
use crate::name_server::NameServer;
use crate::tools::{HOST, eventually, on_client, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::topology::Node;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A name of nobody.
const NOBODYS: &str = "nosuch.anon";
/// A cache of the client's host, in front of the client.
const CACHE: &str = "127.0.0.1";
/// The longest that anything is told for, seconds.
const LONGEST: i64 = 60;
/// How long a claim lives, seconds, and how much later than the lease it is to end.
const CLAIM: i64 = 7 * 24 * 3600;
const APART: i64 = 45;
/// By how much the time that an ID says may be behind, seconds.
const MOST_BEHIND: i64 = 60;
/// How long before the end of each it is asked for, seconds: the lease is over by the second.
const BEFORE_LEASE: i64 = 40;
const BEFORE_NAME: i64 = 30;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::names::answers_end_with_what_they_tell_also_behind_a_cache",
        ends,
    );
}

/// What a server says: the code, the answers' times to live, and what stands in for no answer.
struct Said {
    code: String,
    lives: Vec<i64>,
    has_soa: bool,
}

fn ask(server: &str, kind: &str, name: &str) -> Result<Said> {
    let at = format!("@{server}");
    let dig = [
        &at,
        "+tries=1",
        "+time=15",
        "+noall",
        "+comments",
        "+answer",
        "+authority",
    ];
    let text = succeed(on_client(30, "dig").args(dig).args([kind, name]))?;
    let code = text
        .split("status: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let records = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty());
    let records: Vec<Vec<&str>> = records
        .map(|line| line.split_whitespace().collect())
        .collect();
    let of = |record: &&Vec<&str>, kind: &str| record.get(3) == Some(&kind);
    let lives = records.iter().filter(|record| of(record, kind));
    Ok(Said {
        code: code.with_context(|| text.clone())?.to_owned(),
        lives: lives
            .map(|record| Ok(record[1].parse()?))
            .collect::<Result<_>>()?,
        has_soa: records.iter().any(|record| of(&record, "SOA")),
    })
}

/// The cache asks nobody but the client.
fn cache(network: &Network) -> Result<(NameServer, String)> {
    let status = network.client_status(Node::Client)?;
    let resolver = status["dns"]["resolver"].as_str().context("no resolver")?;
    let more = [
        &format!("--listen-address={CACHE}"),
        "--bind-interfaces",
        &format!("--server=/{HOST}/{resolver}"),
        &format!("--server=/{NOBODYS}/{resolver}"),
    ];
    let server = NameServer::start(network, &Node::Client.namespace(), &more)?;
    Ok((server, resolver.to_owned()))
}

fn ends(network: &mut Network) -> Result<()> {
    let clock = network.directory().join("clock-of-names");
    fs::write(&clock, "+0\n")?;
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    claim_again(network)?;
    start_with_clock(network, Node::Client, &clock)?;
    let outcome = quietly(network, |network| {
        comes_again(network, "at the start")?;
        other_kinds(network)?;
        lives(network, &clock)
    });
    fs::write(&clock, "+0\n")?;
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    outcome?;
    comes_again(network, "at the end")
}

/// Has the service claim its name again, so that the claim ends after the lease.
fn claim_again(network: &Network) -> Result<()> {
    let lease = lease_of_service(network)?;
    eventually(
        "the lease's age",
        APART as u64 + MOST_BEHIND as u64 + 10,
        || Ok(now()? - MOST_BEHIND + CLAIM >= lease + APART),
    )?;
    let mut publish = network.client_command(Node::Service, "publish");
    succeed(publish.arg(SERVICE_NAME)).map(drop)
}

fn lease_of_service(network: &Network) -> Result<i64> {
    let status = network.client_status(Node::Service)?;
    status["lease_expires"].as_i64().context("no lease")
}

/// What browsers and others ask for besides addresses is not there, and no error.
fn other_kinds(network: &Network) -> Result<()> {
    let (_cache, resolver) = cache(network)?;
    for (kind, name) in [
        ("HTTPS", HOST.to_owned()),
        ("SVCB", HOST.to_owned()),
        ("HTTPS", format!("_8443._https.{HOST}")),
        ("SVCB", format!("_dns.www.{HOST}")),
        ("MX", HOST.to_owned()),
        ("TXT", HOST.to_owned()),
    ] {
        let said = ask(&resolver, kind, &name)?;
        let what = format!("{kind} {name}: {}", said.code);
        ensure!(said.code == "NOERROR" && said.lives.is_empty(), "{what}");
        ensure!(said.has_soa, "{what}: nothing says for how long");
        for time in ["at first", "again"] {
            let said = ask(CACHE, kind, &name)?;
            ensure!(
                said.code == "NOERROR" && said.lives.is_empty(),
                "{what}, in between {time}: {}",
                said.code
            );
        }
    }
    for at in [&resolver, CACHE] {
        let said = ask(at, "HTTPS", NOBODYS)?;
        ensure!(
            said.code == "NXDOMAIN" && said.has_soa,
            "{at}: {}",
            said.code
        );
    }
    Ok(())
}

/// Nothing is told for longer than it holds: the address until the lease ends, all of it until the name does.
fn lives(network: &Network, clock: &Path) -> Result<()> {
    let (found, well) = resolve(network, Node::Client, HOST)?;
    ensure!(well, "{found}");
    let end_of = |what: &str| found[what].as_i64().with_context(|| format!("{found}"));
    let (lease, name) = (end_of("lease_expires")?, end_of("name_expires")?);
    ensure!(
        lease == lease_of_service(network)? && name >= lease + APART,
        "{found}"
    );
    let client = network.client_status(Node::Client)?;
    let resolver = client["dns"]["resolver"].as_str().context("no resolver")?;

    // Long before.
    for (kind, _) in KINDS {
        let told = in_both(network, kind, i64::MAX, 0)?;
        ensure!(
            told.len() == 3 && told.iter().all(|life| (1..=LONGEST).contains(life)),
            "{kind}: {told:?}"
        );
    }
    // The client looked it up just now, and tells it again by another clock.
    for (end, before) in [(lease, BEFORE_LEASE), (name, BEFORE_NAME)] {
        fs::write(clock, "+0\n")?;
        eventually("a fresh answer", 60, || {
            let told = ask(resolver, "AAAA", HOST)?.lives;
            Ok(told.iter().all(|life| *life >= LONGEST - 25))
        })?;
        let ahead = end - before - now()?;
        fs::write(clock, format!("+{ahead}\n"))?;
        for (kind, of_lease) in KINDS {
            let until = if of_lease { lease.min(name) } else { name };
            let is_over = until <= now()? + ahead;
            let told = in_both(network, kind, until, ahead)?;
            ensure!(
                told.is_empty() == is_over,
                "{kind} of {until}, with {end}: {told:?}"
            );
        }
    }
    Ok(())
}

/// The kinds of address, and whether one ends with the lease.
const KINDS: [(&str, bool); 2] = [("A", true), ("AAAA", false)];

/// How long an address is told for, by the client and twice by a fresh cache; never beyond `until`, by a
/// clock that is so much ahead.
fn in_both(network: &Network, kind: &str, until: i64, ahead: i64) -> Result<Vec<i64>> {
    let (_cache, resolver) = cache(network)?;
    let mut all = Vec::new();
    for at in [resolver.as_str(), CACHE, CACHE] {
        let left = until.saturating_sub(now()? + ahead);
        let said = ask(at, kind, HOST)?;
        ensure!(said.code == "NOERROR", "{kind} of {at}: {}", said.code);
        for life in said.lives {
            ensure!(
                life <= left,
                "{at} tells {kind} for {life} s, and it ends in {left} s"
            );
            all.push(life);
        }
        if at == CACHE && all.len() < 3 {
            sleep(Duration::from_millis(1100));
        }
    }
    Ok(all)
}

fn now() -> Result<i64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)?
        .as_secs()
        .try_into()?)
}
