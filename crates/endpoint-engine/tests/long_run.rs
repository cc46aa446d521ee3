//! Hours in seconds: keys, tails, paths and links are replaced, and nobody notices.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashSet;
use std::time::Duration;

use mixline_endpoint_engine::status::Event;
use mixline_endpoint_engine::testing::internals::session::{MESSAGES_IDLE, PACKETS_IDLE};
use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);

/// A network whose epochs last ten minutes.
fn short_epochs(seed: u64) -> World {
    let mut world = World::new(8, seed);
    world.parameters.epoch_seconds = 600;
    world.parameters.grace_seconds = 60;
    world.renew_onion_keys_from_scratch();
    world.publish_snapshot();
    world.run(3 * SECOND);
    world.publish_snapshot();
    world.service();
    world.client(|_| {});
    world.run(5 * SECOND);
    world
}

#[test]
fn epochs_pass_without_a_lost_packet() {
    let mut world = short_epochs(1);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.send(2, &[udp(client, service, (1, 2), b"hello")]);
    world.run(3 * SECOND);
    world.take(1);
    let mut lost = Vec::new();
    let mut descriptors = HashSet::new();
    let mut heads = HashSet::new();
    for second in 0..3000u32 {
        if second % 30 == 0 {
            world.publish_snapshot();
        }
        let there = udp(client, service, (7, 7), &second.to_be_bytes());
        let back = udp(service, client, (7, 7), &second.to_be_bytes());
        world.send(2, std::slice::from_ref(&there));
        world.send(1, std::slice::from_ref(&back));
        world.run(SECOND);
        if world.take(1) != [there] || world.take(2) != [back] {
            lost.push(second);
        }
        let descriptor = world.nodes[1].descriptor.clone().unwrap();
        descriptors.insert(descriptor.version);
        let tails_left = descriptor
            .tails
            .iter()
            .map(|t| t.expires.since(world.unix()))
            .min();
        assert!(
            tails_left.unwrap() > 10,
            "after {second} s: a public tail is about to end"
        );
        heads.extend(world.session(2, 1).paths.into_iter().map(|path| path.head));
    }
    assert_eq!(lost, [] as [u32; 0], "{:#?}", world.status(2));
    // The same session all the time, under new keys, over ever new paths.
    let session = world.session(2, 1);
    assert!(session.age_s >= 3000);
    let closed =
        |event: &&Event| matches!(event, Event::SessionClosed(id, _) if *id == world.nodes[1].id);
    assert_eq!(world.nodes[2].events.iter().filter(closed).count(), 0);
    assert!(heads.len() >= 16, "{} heads", heads.len());
    assert!(descriptors.len() >= 5, "{} descriptors", descriptors.len());
    assert_eq!(world.status(1).tails.public, 4);
    let tails = world.status(2).tails;
    assert!(tails.private <= 4 + 8 && tails.spare <= 24, "{tails:?}");
    // Published the whole time: a newcomer finds it at once.
    let newcomer = world.client(|_| {});
    world.run(3 * SECOND);
    let from = world.ipv4(newcomer);
    world.send(newcomer, &[udp(from, service, (1, 2), b"new")]);
    world.run(2 * SECOND);
    assert_eq!(world.take(1).len(), 1);
}

#[test]
fn idle_sessions_end_on_both_sides() {
    let mut world = World::connected(2);
    let (client, service) = (world.nodes[2].id.to_string(), world.nodes[1].id.to_string());
    let has = |world: &World, node: usize, peer: &String| {
        world
            .status(node)
            .sessions
            .iter()
            .any(|session| session.peer == *peer)
    };
    world.run(PACKETS_IDLE - 20 * SECOND);
    assert!(has(&world, 2, &service) && has(&world, 1, &client));
    // Kept ready all the time: the next packet needs no handshake.
    let (from, to) = (world.ipv4(2), world.ipv4(1));
    world.send(2, &[udp(from, to, (1, 2), b"x")]);
    world.run(Duration::from_millis(100));
    assert_eq!(world.take(1).len(), 1);
    world.run(PACKETS_IDLE + SECOND);
    assert!(
        !has(&world, 2, &service) && !has(&world, 1, &client),
        "{:#?}",
        world.status(1)
    );
    assert!(world.take(2).is_empty(), "and no application is told");
    // Sessions with the directory have ended long before.
    assert!(MESSAGES_IDLE < PACKETS_IDLE);
    assert_eq!(world.status(0).sessions.len(), 0);
    assert_eq!(world.status(2).sessions.len(), 0);
    let tails = world.status(2).tails;
    assert_eq!(tails.private, 0);
}

#[test]
fn an_open_connection_keeps_its_session() {
    let mut world = World::connected(3);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.send(2, &[tcp(client, service, (5000, 22), 0x10, 1, 2)]);
    world.run(SECOND);
    world.send(1, &[tcp(service, client, (22, 5000), 0x10, 2, 1)]);
    world.run(SECOND);
    world.run(PACKETS_IDLE + 60 * SECOND);
    // The client is not published: only over its session can the service reach it.
    world.take(2);
    world.send(1, &[tcp(service, client, (22, 5000), 0x18, 2, 1)]);
    world.run(SECOND);
    assert_eq!(world.take(2).len(), 1, "{:#?}", world.status(1));
}

#[test]
fn a_dead_guard_is_noticed_in_time() {
    for seed in 4..8 {
        let mut world = World::settled(8, seed);
        world.client(|_| {});
        world.run(3 * SECOND);
        let guard = world.status(1).guards[0].name.clone();
        let at = world.relay_named(&guard);
        world.relays[at].malice = relay::Malice::Dead;
        let died = world.now.instant;
        let down = |world: &World| world.status(1).guards[0].state != "up";
        assert!(world.run_until(5 * SECOND, down));
        let after = world.now.instant - died;
        assert!(after < 4 * SECOND, "{after:?}");
    }
}
