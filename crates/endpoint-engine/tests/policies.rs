//! Per flow, per packet, duplicate.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::testing::relay::Malice;
use mixline_endpoint_engine::testing::*;
use mixline_endpoint_engine::{PathPolicy, PolicyRule};

const SECOND: Duration = Duration::from_secs(1);

/// Service (1) and client (2) with a rule for port 9; all paths are proven.
fn with(policy: PathPolicy, seed: u64) -> World {
    let mut world = World::settled(12, seed);
    world.service();
    world.client(|config| {
        config.policies = vec![PolicyRule {
            id: None,
            to: None,
            port: Some(9),
            policy,
        }];
    });
    world.run(4 * SECOND);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.send(2, &[udp(client, service, (1, 1), b"hello")]);
    world.run(3 * SECOND);
    assert_eq!(world.take(1).len(), 1);
    world
}

/// Cells per path that a hundred packets of a flow have taken.
fn cells(world: &mut World, port: u16) -> Vec<u64> {
    let count = |world: &World| -> std::collections::BTreeMap<Vec<String>, u64> {
        world
            .session(2, 1)
            .paths
            .into_iter()
            .map(|path| (path.head, path.cells))
            .collect()
    };
    let before = count(world);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    for _ in 0..100 {
        world.send(2, &[udp(client, service, (1000, port), b"x")]);
    }
    let after = count(world);
    world.run(SECOND);
    assert_eq!(world.take(1).len(), 100);
    after
        .into_iter()
        .map(|(head, cells)| cells - before.get(&head).unwrap_or(&0))
        .collect()
}

#[test]
fn a_flow_keeps_to_its_path_and_flows_spread() {
    let mut world = with(PathPolicy::PerPacket, 1);
    let mut used = [0; 4];
    for port in 10..50 {
        let cells = cells(&mut world, port);
        assert_eq!(cells.len(), 4);
        assert_eq!(
            cells.iter().filter(|cells| **cells == 100).count(),
            1,
            "{cells:?}"
        );
        let at = cells.iter().position(|cells| *cells == 100).unwrap();
        used[at] += 1;
    }
    assert!(used.iter().all(|flows| *flows > 0), "{used:?}");
}

#[test]
fn per_packet_uses_all_paths() {
    let mut world = with(PathPolicy::PerPacket, 2);
    let cells = cells(&mut world, 9);
    assert_eq!(cells.iter().sum::<u64>(), 100);
    assert!(
        cells.iter().all(|cells| (20..=30).contains(cells)),
        "{cells:?}"
    );
}

#[test]
fn duplicates_go_over_different_paths_and_arrive_once() {
    for copies in [2, 3, 4] {
        let mut world = with(PathPolicy::Duplicate(copies), 3);
        world.run(2 * SECOND);
        let cells = cells(&mut world, 9);
        let copied = cells.iter().filter(|cells| **cells == 100).count();
        assert_eq!(copied, copies, "{cells:?}");
        let seen = world.status(1).counters.duplicates;
        assert!(seen >= 100 * (copies as u64 - 1), "{seen} duplicates");
        let replays: u64 = world.relays.iter().map(|relay| relay.replays).sum();
        assert_eq!(replays, 0, "no relay saw a cell twice");
    }
}

/// A relay that is in one of the client's heads and tails only, and in none of the places of tails that their
/// sender does not see.
fn in_one_path_only(world: &mut World) -> Option<usize> {
    let paths = world.session(2, 1).paths;
    let client_id = world.nodes[2].id;
    let hidden = world.nodes[1].engine.next_to_guards_in_tails(&client_id);
    let hidden = |name: &String| {
        let relay = &world.relays[world.relay_named(name)];
        let mut guards = world.status(1).guards.into_iter();
        hidden.contains(&relay.short) || guards.any(|guard| guard.name == *name)
    };
    let others = |name: &String| {
        paths
            .iter()
            .filter(|path| path.head.contains(name) || path.tail == *name)
            .count()
    };
    let mut relays = paths.iter().flat_map(|path| &path.head[1..]);
    let victim = relays.find(|name| others(name) == 1 && !hidden(name));
    victim.map(|name| world.relay_named(name))
}

#[test]
fn with_duplicates_a_dying_relay_costs_no_packet() {
    let mut worlds = (4..).map(|seed| with(PathPolicy::Duplicate(2), seed));
    let found = worlds.find_map(|mut world| {
        let relay = in_one_path_only(&mut world)?;
        Some((world, relay))
    });
    let (mut world, at) = found.unwrap();
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.relays[at].malice = Malice::Dead;
    for _ in 0..300 {
        world.send(2, &[udp(client, service, (1000, 9), b"x")]);
        world.run(Duration::from_millis(10));
    }
    world.run(SECOND);
    assert_eq!(world.take(1).len(), 300);
}

#[test]
fn no_two_junctions_see_equal_payloads() {
    let mut world = with(PathPolicy::Duplicate(4), 6);
    for relay in &mut world.relays {
        relay.payloads = Some(Vec::new());
    }
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    for _ in 0..200 {
        // Copies of packets, of control frames, and of the directory's messages.
        world.send(2, &[udp(client, service, (1000, 9), b"x")]);
        world.run(Duration::from_millis(20));
    }
    world.run(SECOND);
    assert_eq!(world.take(1).len(), 200, "each once");
    assert!(world.status(1).counters.duplicates > 200);
    let mut seen = std::collections::HashMap::new();
    for (relay, payload) in world.relays.iter().enumerate().flat_map(|(at, relay)| {
        let payloads = relay.payloads.iter().flatten();
        payloads.map(move |payload| (at, payload))
    }) {
        if let Some(other) = seen.insert(payload, relay) {
            panic!("relays {other} and {relay} see the same payload");
        }
    }
    assert!(seen.len() > 800, "{} payloads", seen.len());
}
