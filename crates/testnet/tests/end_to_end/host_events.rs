//! A host to which anything happens, at random, while programs on it use virtual addresses and names:
//! nothing of that leaves around the client.
//!
//! A round is some events, the host put back, and the page again. Captures of all interfaces of both
//! hosts, the router and a container run from the first event to the last, and are looked through after
//! each round, so that a packet names the events that let it out. `MIXLINE_HOST_EVENTS_S` says how many seconds it
//! goes on (600), `MIXLINE_HOST_EVENTS_SEED` repeats a run.

mod event;
mod host;
mod programs;
mod random;

use crate::capture::{Watch, Way};
use crate::leaks::{VIRTUAL, comes_again};
use crate::{Kind, Tests};
use anyhow::{Context, Result};
use event::Event;
use host::Host;
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use programs::Programs;
use random::Random;
use std::env;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long it goes on unless told otherwise, seconds.
const SECONDS: u64 = 600;
/// Neighbourhoods that come and go, on wires and behind bridges: no program is told an address there,
/// and what their hosts and this one say to each other by those addresses may leave.
const NEIGHBOURS: &str = "10.44.0.0/16";
/// What is behind the host's bridge and its other link: a container, and another VPN's end.
const BEHIND: &str = namespaces::BESIDE;
/// The container's addresses, and those of the router, in whose name it sends as well.
const CONTAINER: [&str; 2] = ["10.44.8.2", "3fff:208::2"];
const FORGED: [&str; 2] = ["172.30.0.1", "3fff:200::1"];
/// Questions for names: of DNS, and those that go to all neighbours (RFC 6762, RFC 4795).
const QUESTIONS: &str = "port 53 or port 5353 or port 5355";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::events_at_random_let_nothing_out",
        events,
    );
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// What may pass nowhere: what no test lets pass, but for what two ends that are not virtual say to
/// each other in a neighbourhood. A question for names is never excused, nor an address that somebody
/// has.
fn closed(network: &Network) -> Result<String> {
    let virtual_end = |end| format!("({end} net 10.0.0.0/8 and not {end} net {NEIGHBOURS})");
    let (from, to) = (virtual_end("src"), virtual_end("dst"));
    let excused = format!("(net {NEIGHBOURS} and not {from} and not {to})");
    let mut filter = format!("(({VIRTUAL}) and not {excused}) or {QUESTIONS}");
    for node in [Node::Service, Node::Client] {
        filter += &format!(" or host {}", network.identity(node)?.ipv4);
    }
    Ok(filter)
}

fn events(network: &mut Network) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = number("MIXLINE_HOST_EVENTS_SEED").unwrap_or(clock.as_secs());
    let seconds = number("MIXLINE_HOST_EVENTS_S").unwrap_or(SECONDS);
    namespaces::create_lonely(BEHIND)?;
    for address in FORGED {
        netns::ip_in(BEHIND, &format!("address add {address} dev lo\n"))?;
    }
    let outcome = go_on(network, seed, Duration::from_secs(seconds));
    let removed = namespaces::remove_one(BEHIND);
    outcome?;
    Ok(removed?)
}

fn go_on(network: &mut Network, seed: u64, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let before = fs::read(&file)?;
    let closed = closed(network)?;
    // The client tells the container in the name of whom it asks that it may not: on no wire, and to
    // nobody else.
    let refusals = [
        format!(
            "(icmp[0] == 3 and icmp[1] == 13 and dst host {})",
            CONTAINER[0]
        ),
        format!(
            "(icmp6 and ip6[40] == 1 and ip6[41] == 5 and dst host {})",
            CONTAINER[1]
        ),
    ];
    let to_container = format!("({closed}) and not ({})", refusals.join(" or "));
    let watched = vec![
        (Node::Client.namespace(), Way::Out, to_container.clone()),
        (BEHIND.into(), Way::In, to_container),
        (Node::Service.namespace(), Way::Out, closed.clone()),
        (ROUTER.into(), Way::In, closed),
    ];
    let mut watch = Watch::start(network, watched)?;
    let programs = Programs::start(network, seed)?;
    let mut host = Host {
        random: Random(seed),
        asking: Arc::clone(&programs.asking),
        published: false,
    };
    let (mut rounds, mut all) = (0, 0);
    let mut outcome = Ok(());
    while outcome.is_ok() && Instant::now() < until {
        let mut happened = Vec::new();
        let done = host.round(network, &mut happened);
        let passed = watch.turn();
        outcome = both(done, passed)
            .with_context(|| format!("seed {seed}, round {rounds}: {happened:?}"));
        rounds += 1;
        all += happened.len();
    }
    let tried = programs.end();
    outcome?;
    if host.published {
        host.happen(network, Event::Publish("events"))?;
    }
    fs::write(&file, before)?;
    comes_again(network, "at the end")?;
    let inside = watch
        .end()
        .with_context(|| format!("seed {seed}, at the end"))?;
    eprintln!(
        "  {rounds} rounds of {all} events, {tried} tries to get out, {inside} frames inside and none \
         outside; seed {seed}"
    );
    Ok(())
}

/// The one may be why of the other.
fn both(done: Result<()>, passed: Result<()>) -> Result<()> {
    match (done, passed) {
        (Err(done), Err(passed)) => Err(done.context(format!("{passed:#}"))),
        (done, passed) => passed.and(done),
    }
}
