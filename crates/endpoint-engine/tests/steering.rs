//! Peers that lie, in order to see ever other relays next to somebody's guards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mixline_endpoint_engine::testing::internals::bounds::{NEW_HEADS_BURST, NEW_HEADS_PER_HOUR};
use mixline_endpoint_engine::testing::internals::relays::{
    CHANGES_BURST, CHANGES_PER_HOUR, KeyChanges, Network, SECOND,
};
use mixline_endpoint_engine::testing::*;
use mixline_protocol::identity::ShortId;
use mixline_protocol::session::Control;

const SECONDS: Duration = Duration::from_secs(1);
/// Guards that each node has.
const GUARDS: usize = 3;

/// Junctions that one peer can make an endpoint use in ten minutes.
const MOST_JUNCTIONS: usize = (NEW_HEADS_BURST + NEW_HEADS_PER_HOUR / 6) as usize;

/// A large network with a service (1) and a client (2) that talk.
fn large(seed: u64) -> World {
    let mut world = World::settled(60, seed);
    world.service();
    world.client(|_| {});
    world.run(5 * SECONDS);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.send(2, &[udp(client, service, (1, 1), b"hello")]);
    world.run(2 * SECONDS);
    assert_eq!(world.take(1).len(), 1);
    world
}

/// Packets both ways, so that both ends probe.
fn talk(world: &mut World) {
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.send(1, &[udp(service, client, (1, 2), b"down")]);
    world.send(2, &[udp(client, service, (2, 1), b"up")]);
}

/// Ten minutes in which `liar` does something each second; the relays that were seen next to the
/// guards of `victim`, and those at the ends of its heads.
fn ten_minutes(
    world: &mut World,
    victim: usize,
    mut lie: impl FnMut(&mut World, u32),
) -> (HashSet<ShortId>, HashSet<String>) {
    world.next_to_guards.clear();
    let mut junctions = HashSet::new();
    for second in 0..600 {
        if second % 60 == 0 {
            world.publish_snapshot();
        }
        lie(world, second);
        talk(world);
        world.run(SECONDS);
        let paths = world.session(victim, 3 - victim).paths;
        junctions.extend(
            paths
                .into_iter()
                .filter_map(|path| path.head.last().cloned()),
        );
    }
    (world.next_to_guards[&victim].clone(), junctions)
}

#[test]
fn a_peer_that_answers_over_one_path_sees_the_second_layer_only() {
    for (victim, liar) in [(1, 2), (2, 1)] {
        let mut world = large(1);
        let before = world.status(victim).counters.paths_lost;
        world.nodes[liar].answers_one_path_of = Some(victim);
        let (seen, junctions) = ten_minutes(&mut world, victim, |_, _| {});
        assert!(seen.len() <= SECOND.size, "{} relays", seen.len());
        assert!(junctions.len() <= MOST_JUNCTIONS, "{junctions:?}");
        // It is not for want of trying.
        let lost = world.status(victim).counters.paths_lost - before;
        assert!(lost > 200, "{lost} paths lost");
    }
}

#[test]
fn a_peer_with_ever_other_tails_sees_the_second_layer_only() {
    for (victim, liar) in [(1, 2), (2, 1)] {
        let mut world = large(2);
        let (seen, junctions) = ten_minutes(&mut world, victim, |world, second| {
            if second % 5 == 0 {
                world.nodes[liar].engine.renew_private_tails();
            }
        });
        assert!(seen.len() <= SECOND.size, "{} relays", seen.len());
        assert!(junctions.len() <= MOST_JUNCTIONS, "{junctions:?}");
    }
}

#[test]
fn a_peer_that_calls_tails_broken_sees_the_second_layer_only() {
    for (victim, liar) in [(1, 2), (2, 1)] {
        let mut world = large(3);
        let (seen, junctions) = ten_minutes(&mut world, victim, |world, _| {
            let (now, engine) = (world.now, &mut world.nodes[liar].engine);
            let broken = engine.tails_of_peers().into_iter().map(|tail| {
                let broken = Control::TailBroken { tail };
                broken.encode().unwrap()
            });
            let broken: Vec<Vec<u8>> = broken.collect();
            engine.inject_controls(&broken, now);
            engine.finish_batch(now);
            world.drain(liar);
        });
        assert!(seen.len() <= SECOND.size, "{} relays", seen.len());
        assert!(junctions.len() <= MOST_JUNCTIONS, "{junctions:?}");
    }
}

#[test]
fn the_second_layer_is_the_same_after_a_restart_and_for_every_new_session() {
    let mut world = large(4);
    world.next_to_guards.clear();
    for _ in 0..20 {
        let stranger = world.client(|_| {});
        world.run(2 * SECONDS);
        let (from, to) = (world.ipv4(stranger), world.ipv4(1));
        world.send(stranger, &[udp(from, to, (1, 1), b"hello")]);
        world.run(2 * SECONDS);
        assert_eq!(world.take(1).len(), 1);
        world.nodes[stranger].dead = true;
    }
    let before = world.next_to_guards[&1].clone();
    assert!(before.len() <= SECOND.size, "{} relays", before.len());
    let stored = world.nodes[1].guards.clone().unwrap();
    let guards = mixline_endpoint_engine::Guards::load(GUARDS, &stored).unwrap();
    assert_eq!(guards.save(), stored);
    // Another node with the same disk.
    world.nodes[1].dead = true;
    let key = world.random_key();
    let again = world.add_with(key, Some(guards), |config| {
        config.accept_sessions = true;
        config.publish = true;
    });
    world.run(60 * SECONDS);
    assert!(world.nodes[again].descriptor.is_some());
    let after = &world.next_to_guards[&again];
    assert!(after.is_subset(&before), "{after:?}");
}

/// Which relay stands next to the guard in how many of a node's heads to others, and of its tails for them.
fn shares(world: &World, node: usize, others: &[usize]) -> [HashMap<String, usize>; 2] {
    let [mut heads, mut tails] = [HashMap::new(), HashMap::new()];
    for other in others {
        for path in world.session(node, *other).paths {
            *heads.entry(path.head[1].clone()).or_default() += 1;
        }
        let (engine, peer) = (&world.nodes[node].engine, &world.nodes[*other].id);
        for relay in engine.next_to_guards_in_tails(peer) {
            *tails.entry(relay.to_string()).or_default() += 1;
        }
    }
    [heads, tails]
}

#[test]
fn a_peer_that_answers_over_one_relay_does_not_draw_the_other_sessions_there() {
    // The service is steered by a stranger, the client by a service that it has chosen.
    for (victim, liar) in [(1, 2), (2, 1)] {
        let (mut most, mut all) = ([0; 2], [0; 2]);
        for seed in 5..11 {
            let mut world = large(seed);
            world.nodes[liar].answers_one_path_of = Some(victim);
            for _ in 0..90 {
                talk(&mut world);
                world.run(SECONDS);
            }
            let others: Vec<usize> = (0..6).map(|_| world.service()).collect();
            world.run(5 * SECONDS);
            for other in &others {
                let (from, to) = if victim == 1 {
                    (*other, 1)
                } else {
                    (2, *other)
                };
                let packet = udp(world.ipv4(from), world.ipv4(to), (1, 1), b"hello");
                world.send(from, &[packet]);
                talk(&mut world);
                world.run(2 * SECONDS);
            }
            let shares = shares(&world, victim, &others);
            for (kind, shares) in shares.iter().enumerate() {
                most[kind] += shares.values().max().unwrap();
                all[kind] += shares.values().sum::<usize>();
            }
        }
        for (most, all) in most.into_iter().zip(all) {
            assert!(100 * most <= 45 * all, "{most:?} of {all:?} over one relay");
        }
    }
}

/// A relay that has started anew is why paths over it have failed: one that says so again and again is not
/// excused for ever.
#[test]
fn other_keys_explain_a_few_failures_an_hour() {
    let mut world = World::new(4, 9);
    let relay = world.relays[0].short;
    let mut changes = KeyChanges::default();
    let mut before = Network::new(world.snapshot());
    let mut change = |world: &mut World| {
        world.restart(0);
        let after = Network::new(world.snapshot());
        changes.follow(&before, &after, world.now.instant);
        before = after;
        let others = |other: &SimRelay| other.short == relay || changes.explain(&other.short);
        assert!(world.relays.iter().all(others));
        changes.explain(&relay)
    };
    let explained = (0..100).filter(|_| change(&mut world)).count();
    assert_eq!(explained, CHANGES_BURST as usize);
    world.run(Duration::from_secs(3600) / CHANGES_PER_HOUR);
    assert!(change(&mut world));
    assert!(!change(&mut world));
}
