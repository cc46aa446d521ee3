//! The host sleeps, moves and gets its clock set; what was there goes on, soon.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::OwnVersions;
use mixline_endpoint_engine::command::{Command, Question};
use mixline_endpoint_engine::testing::*;
use mixline_protocol::identity::IdentityKey;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// What a person may have to wait for.
const SOON: Duration = Duration::from_secs(2);

/// Node 2 asks node 1 every 200 ms, as an application that tries again does; how long until it has
/// an answer.
fn first_answer(world: &mut World) -> Duration {
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let question = udp(client, service, (5000, 80), b"question");
    let answer = udp(service, client, (80, 5000), b"answer");
    let began = world.now.instant;
    world.take(1);
    world.take(2);
    for step in 0..2000 {
        if step % 20 == 0 {
            world.send(2, std::slice::from_ref(&question));
        }
        world.run(10 * MILLISECOND);
        if world.take(1).contains(&question) {
            world.send(1, std::slice::from_ref(&answer));
        }
        if world.take(2).contains(&answer) {
            return world.now.instant - began;
        }
    }
    panic!("no answer at all: {:#?}", world.status(2));
}

/// How long the directory takes to answer a node.
fn directory(world: &mut World, node: usize) -> Duration {
    let began = world.now.instant;
    let id = world.nodes[1].id;
    world.ask(node, Question::LookupId(id)).expect("an answer");
    world.now.instant - began
}

fn both(world: &mut World) -> (Duration, Duration) {
    (directory(world, 2), first_answer(world))
}

#[test]
fn after_a_sleep_the_first_answer_comes_soon() {
    for (seed, sleep) in [(1, 3), (2, 20), (3, 70), (4, 150), (5, 400), (6, 1500)] {
        for busy in [true, false] {
            let mut world = World::connected(seed);
            let _ = both(&mut world);
            if !busy {
                world.run(30 * SECOND);
            }
            world.sleep(2, sleep * SECOND);
            let (name, packet) = both(&mut world);
            println!("asleep {sleep} s, busy {busy}: directory {name:?}, packet {packet:?}");
            assert!(
                name < SOON && packet < SOON,
                "{sleep} s, {busy}: {name:?}, {packet:?}"
            );
        }
    }
}

#[test]
fn packets_come_first_after_a_sleep_too() {
    for seed in 1..11 {
        let mut world = World::connected(seed);
        world.weather.loss = 0.01;
        world.run(30 * SECOND);
        world.sleep(2, 70 * SECOND);
        let packet = first_answer(&mut world);
        println!("asleep 70 s, one datagram in 100 lost on each wire: packet {packet:?}");
        assert!(packet < SOON, "{packet:?}");
    }
}

#[test]
fn a_night_asleep_needs_a_snapshot_and_no_more() {
    let mut world = World::connected(7);
    let _ = both(&mut world);
    world.nodes[2].frozen = true;
    for _ in 0..20 {
        world.run(1500 * SECOND);
        world.publish_snapshot_to(&[0, 1]);
        world.renew_lease(1);
    }
    world.wake(2);
    world.run(SECOND);
    world.renew_lease(2);
    world.publish_snapshot();
    let (name, packet) = both(&mut world);
    println!("asleep a night: directory {name:?}, packet {packet:?}");
    assert!(name < SOON && packet < SOON, "{name:?}, {packet:?}");
}

#[test]
fn a_sleep_of_all_is_one_of_each() {
    let mut world = World::connected(8);
    world.nodes[1].frozen = true;
    world.sleep(2, 70 * SECOND);
    world.wake(1);
    let (name, packet) = both(&mut world);
    assert!(name < SOON && packet < SOON, "{name:?}, {packet:?}");
}

#[test]
fn a_service_that_sleeps_is_there_again_soon() {
    for (seed, sleep) in [(1, 5), (2, 20), (3, 70), (4, 150), (5, 400)] {
        let mut world = World::connected(seed);
        let _ = both(&mut world);
        world.sleep(1, sleep * SECOND);
        let packet = first_answer(&mut world);
        println!("service asleep {sleep} s: packet {packet:?}");
        assert!(packet < SOON, "{sleep} s: {packet:?}");
    }
}

#[test]
fn a_host_that_moves_is_there_again_soon() {
    for (seed, away) in [(1, 0), (2, 1), (3, 5), (4, 12), (5, 60), (6, 300)] {
        let mut world = World::connected(seed);
        let _ = both(&mut world);
        world.nodes[2].unplugged = true;
        world.run(away * SECOND);
        world.nodes[2].unplugged = false;
        world.nodes[2].address.set_ip([198, 51, 100, 9].into());
        world.command(2, Command::HostChanged);
        let (name, packet) = both(&mut world);
        println!("away {away} s: directory {name:?}, packet {packet:?}");
        assert!(
            name < SOON && packet < SOON,
            "{away} s: {name:?}, {packet:?}"
        );
    }
}

#[test]
fn what_is_told_too_often_ends_no_session() {
    let mut world = World::connected(9);
    let before = world.session(2, 1).age_s;
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let packet = udp(client, service, (1, 1), b"x");
    let mut arrived = 0;
    for _ in 0..100 {
        world.command(2, Command::HostChanged);
        world.send(2, std::slice::from_ref(&packet));
        world.run(100 * MILLISECOND);
        arrived += world.take(1).len();
    }
    assert_eq!(arrived, 100);
    assert!(
        world.session(2, 1).age_s >= before + 10,
        "it is the same session"
    );
}

#[test]
fn an_outage_that_nobody_announces_ends_with_the_next_handshake() {
    let mut world = World::connected(10);
    world.nodes[2].unplugged = true;
    world.run(30 * SECOND);
    assert!(!world.status(2).online);
    world.nodes[2].unplugged = false;
    let online = |world: &World| world.status(2).online;
    assert!(world.run_until(7 * SECOND, online));
    let (name, packet) = both(&mut world);
    assert!(name < SOON && packet < SOON, "{name:?}, {packet:?}");
}

/// Sets the wall clock of node 2 ahead, or back.
fn set_clock(world: &mut World, seconds: i64) {
    world.nodes[2].clock = seconds * 1000;
}

fn guards(world: &World) -> Vec<String> {
    let guards = world.status(2).guards;
    let mut names: Vec<_> = guards.into_iter().map(|guard| guard.relay).collect();
    names.sort();
    names
}

#[test]
fn a_clock_that_is_set_back_does_not_shut_the_client_out() {
    let mut world = World::connected(11);
    set_clock(&mut world, 280);
    // All links have been made anew at the wrong time.
    world.run(130 * SECOND);
    let _ = both(&mut world);
    set_clock(&mut world, 0);
    world.run(SECOND);
    let (name, packet) = both(&mut world);
    assert!(name < SOON && packet < SOON, "{name:?}, {packet:?}");
    world.nodes[2].unplugged = true;
    world.run(5 * SECOND);
    world.nodes[2].unplugged = false;
    let online = |world: &World| world.status(2).online;
    assert!(
        world.run_until(10 * SECOND, online),
        "{:#?}",
        world.status(2).guards
    );
    // For eight minutes nothing is lost of what it is for.
    for minute in 0..8 {
        let (name, packet) = both(&mut world);
        assert!(
            name < SOON && packet < SOON,
            "minute {minute}: {name:?}, {packet:?}"
        );
        let down = world
            .status(2)
            .guards
            .into_iter()
            .filter(|g| g.state != "up");
        assert_eq!(down.count(), 0, "minute {minute}");
        world.run(60 * SECOND);
        world.publish_snapshot();
    }
}

#[test]
fn new_sessions_are_opened_after_the_clock_was_set() {
    for (seed, steps) in [
        (12, vec![280, 0]),
        (13, vec![-280, 0]),
        (14, vec![500, 0, -500, 0]),
        (15, vec![3 * 86400, 0]),
        (16, vec![-3 * 86400, 0]),
        (17, vec![200 * 86400, 0]),
    ] {
        let mut world = World::connected(seed);
        let (_, before) = (both(&mut world), guards(&world));
        for step in &steps {
            set_clock(&mut world, *step);
            world.run(90 * SECOND);
            // Whatever the time, the service is asked for a new session.
            world.command(2, Command::HostChanged);
            world.nodes[1].unplugged = true;
            world.run(10 * SECOND);
            world.nodes[1].unplugged = false;
            world.run(30 * SECOND);
            world.publish_snapshot();
        }
        world.run(5 * SECOND);
        let (name, packet) = both(&mut world);
        println!("clock {steps:?}: directory {name:?}, packet {packet:?}");
        assert!(
            name < 2 * SOON && packet < 2 * SOON,
            "{steps:?}: {name:?}, {packet:?}"
        );
        assert_eq!(guards(&world), before, "{steps:?}");
    }
}

#[test]
fn a_service_whose_clock_was_ahead_is_found_again() {
    let mut world = World::connected(18);
    for days in [3, 0] {
        world.nodes[1].clock = days * 86_400_000;
        world.run(60 * SECOND);
        world.publish_snapshot();
    }
    world.run(60 * SECOND);
    let id = world.nodes[1].id;
    let published = &world.store.services[&id];
    let now = world.unix();
    assert!(
        published.expires > now && published.issued <= now,
        "{published:?}"
    );
    assert!(
        published.version <= world.now.unix_ms,
        "no version of the future"
    );
    let packet = first_answer(&mut world);
    assert!(packet < SOON, "{packet:?}");
}

/// A service that publishes itself and a name, with what its disk holds.
fn service_with_a_name(
    world: &mut World,
    key: &IdentityKey,
    disk: Option<&str>,
    clock: i64,
) -> usize {
    let key = IdentityKey::from_seed(*key.seed());
    let lease = world.grant(key.anonymous_id());
    let node = world.add(key, |config| {
        config.accept_sessions = true;
        config.publish = true;
    });
    world.nodes[node].clock = clock * 1000;
    if let Some(disk) = disk {
        let versions = OwnVersions::load(disk).unwrap();
        world.nodes[node].engine.set_own_versions(versions);
    }
    world.command(node, Command::SetLease(Box::new(lease)));
    let name = "freespeech".parse().unwrap();
    let claimed = world.ask(node, Question::ClaimName(name));
    assert!(claimed.is_ok(), "{claimed:?}");
    let published = world.ask(node, Question::Publish);
    assert!(published.is_ok(), "{published:?}");
    node
}

#[test]
fn a_service_that_starts_again_under_a_slow_clock_publishes_at_once() {
    let mut world = World::pair(19);
    let key = world.random_key();
    let mut disk: Option<String> = None;
    // Set back while it is stopped, twice, and right again.
    for (seconds, runs) in [(0, 60), (-280, 1), (-299, 1), (-100, 1), (0, 1)] {
        let node = service_with_a_name(&mut world, &key, disk.as_deref(), seconds);
        world.run(runs * SECOND);
        let id = world.nodes[node].id;
        let told = world.nodes[node].descriptor.clone().unwrap();
        assert_eq!(world.store.services[&id], *told, "{seconds}");
        disk = world.nodes[node].own_versions.clone();
        world.nodes[node].dead = true;
    }
}

#[test]
fn names_are_claimed_again_after_the_clock_was_set_back() {
    let mut world = World::pair(20);
    let claim = |world: &mut World| {
        let name = "freespeech".parse().unwrap();
        world.ask(1, Question::ClaimName(name))
    };
    for seconds in [280, 0, -280] {
        world.nodes[1].clock = seconds * 1000;
        let claimed = claim(&mut world);
        assert!(claimed.is_ok(), "{seconds}: {claimed:?}");
    }
}
