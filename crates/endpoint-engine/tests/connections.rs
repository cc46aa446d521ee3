//! TCP connections that are idle for days are neither lost nor cut; those that are over hold nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::testing::internals::session::PACKETS_IDLE;
use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);
const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// A segment from node 2 to node 1, or back.
fn segment(world: &mut World, from: usize, port: u16, flags: u8) -> Vec<u8> {
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let packet = if from == 2 {
        tcp(client, service, (port, 80), flags, 1000, 2000)
    } else {
        tcp(service, client, (80, port), flags, 2000, 1000)
    };
    world.send(from, std::slice::from_ref(&packet));
    world.run(SECOND / 5);
    packet
}

/// Node 2 opens a connection to node 1.
fn open(world: &mut World, port: u16) {
    segment(world, 2, port, SYN);
    segment(world, 1, port, SYN_ACK);
    segment(world, 2, port, ACK);
}

/// Lets hours pass, as the directory and the host see to it.
fn hours(world: &mut World, hours: u32) {
    for _ in 0..hours * 3 {
        world.run(1200 * SECOND);
        world.publish_snapshot();
        world.renew_lease(1);
        world.renew_lease(2);
    }
}

fn has_session(world: &World, node: usize, peer: usize) -> bool {
    let id = world.nodes[peer].id.to_string();
    world.status(node).sessions.iter().any(|s| s.peer == id)
}

/// An idle connection, after so many hours in which both hosts are up.
fn is_there_after(idle: u32) {
    let mut world = World::connected(1);
    open(&mut world, 5000);
    hours(&mut world, idle);
    world.take(1);
    world.take(2);
    // The side that cannot open a session is the one that has something to say: a shell, a mailbox.
    let said = segment(&mut world, 1, 5000, ACK);
    assert_eq!(world.take(2), [said]);
    let answer = segment(&mut world, 2, 5000, ACK);
    assert_eq!(world.take(1), [answer]);
    assert!(world.take(2).is_empty(), "nothing was reset");
}

#[test]
fn an_idle_connection_is_there_after_days() {
    is_there_after(2 * 24);
}

#[test]
fn many_others_do_not_push_an_idle_connection_out() {
    let mut world = World::connected(2);
    open(&mut world, 5000);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    for port in 10_000..12_000 {
        world.send(2, &[udp(client, service, (port, 53), b"question")]);
        if port % 50 == 0 {
            world.run(SECOND / 10);
        }
    }
    world.take(1);
    hours(&mut world, 1);
    assert!(has_session(&world, 2, 1) && has_session(&world, 1, 2));
}

/// After this, nothing is to hold the session any longer than for idle packets.
fn is_over(name: &str, close: impl FnOnce(&mut World)) {
    let mut world = World::connected(3);
    open(&mut world, 5000);
    close(&mut world);
    world.run(PACKETS_IDLE + 5 * SECOND);
    assert!(!has_session(&world, 2, 1), "{name}: the client holds it");
    assert!(!has_session(&world, 1, 2), "{name}: the service holds it");
}

#[test]
fn a_connection_that_is_over_holds_no_session() {
    is_over("closed by the client", |world| {
        segment(world, 2, 5000, FIN);
        segment(world, 1, 5000, FIN);
        // The last acknowledgement, and a late one.
        segment(world, 2, 5000, ACK);
        segment(world, 2, 5000, ACK);
    });
    is_over("closed by the service", |world| {
        segment(world, 1, 5000, FIN);
        segment(world, 2, 5000, ACK);
        segment(world, 2, 5000, FIN);
        segment(world, 1, 5000, ACK);
    });
    is_over("reset by the service", |world| {
        segment(world, 1, 5000, RST);
    });
    is_over("reset by the client", |world| {
        segment(world, 2, 5000, RST);
    });
}

#[test]
fn the_ports_of_a_closed_connection_may_be_used_again() {
    let mut world = World::connected(4);
    open(&mut world, 5000);
    segment(&mut world, 2, 5000, FIN);
    segment(&mut world, 1, 5000, FIN);
    segment(&mut world, 2, 5000, ACK);
    open(&mut world, 5000);
    world.run(PACKETS_IDLE + 5 * SECOND);
    assert!(has_session(&world, 2, 1) && has_session(&world, 1, 2));
}

/// Segments that came out at a node, without ICMP errors; resets among them.
fn arrived(world: &mut World, node: usize) -> (Vec<Vec<u8>>, usize) {
    let packets = world.take(node);
    let of_tcp: Vec<_> = packets.into_iter().filter(|it| it[9] == 6).collect();
    let resets = of_tcp.iter().filter(|it| it[33] & RST != 0).count();
    (of_tcp, resets)
}

/// One side sleeps, while the other repeats what it has said. The connection is there afterwards, in
/// both directions.
fn outlives_a_sleep(seed: u64, sleeper: usize, seconds: u32) {
    let mut world = World::connected(seed);
    open(&mut world, 5000);
    let other = 3 - sleeper;
    world.take(1);
    world.take(2);
    world.nodes[sleeper].frozen = true;
    for _ in 0..seconds / 5 {
        segment(&mut world, other, 5000, ACK);
        world.run(5 * SECOND - SECOND / 5);
    }
    let (_, resets) = arrived(&mut world, other);
    assert_eq!(resets, 0, "{sleeper} asleep for {seconds} s");
    world.wake(sleeper);
    world.publish_snapshot();
    world.run(3 * SECOND);
    // Both say something, and both hear it.
    for from in [other, sleeper] {
        let to = 3 - from;
        world.take(to);
        let mut heard = false;
        for _ in 0..50 {
            let said = segment(&mut world, from, 5000, ACK);
            let (came, resets) = arrived(&mut world, to);
            assert_eq!(resets, 0);
            heard |= came.contains(&said);
            if heard {
                break;
            }
        }
        assert!(heard, "{seconds} s: node {to} hears nothing of {from}");
    }
    let (_, resets) = arrived(&mut world, sleeper);
    assert_eq!(resets, 0);
}

#[test]
fn connections_outlive_a_sleep_of_either_side() {
    for (seed, seconds) in [(11, 10), (12, 70), (13, 600)] {
        outlives_a_sleep(seed, 2, seconds);
        outlives_a_sleep(seed, 1, seconds);
    }
}

/// A login that nobody types at, while one of the hosts sleeps until the morning: then the other speaks.
#[test]
fn an_idle_connection_outlives_a_night() {
    for (seed, sleeper, asleep) in [(21, 1, 1), (22, 2, 1), (23, 1, 9)] {
        let mut world = World::connected(seed);
        open(&mut world, 5000);
        world.nodes[sleeper].frozen = true;
        hours(&mut world, asleep);
        world.wake(sleeper);
        world.publish_snapshot();
        world.run(10 * SECOND);
        world.take(1);
        world.take(2);
        let heard = (0..100).any(|_| {
            let said = segment(&mut world, 3 - sleeper, 5000, ACK);
            let (came, resets) = arrived(&mut world, sleeper);
            assert_eq!(resets, 0);
            came.contains(&said)
        });
        assert!(heard, "node {sleeper} asleep for {asleep} h");
        assert_eq!(arrived(&mut world, 3 - sleeper).1, 0);
    }
}

#[test]
fn a_connection_that_outlived_a_sleep_still_holds_its_session() {
    let mut world = World::connected(14);
    open(&mut world, 5000);
    world.sleep(2, 70 * SECOND);
    segment(&mut world, 2, 5000, ACK);
    world.run(5 * SECOND);
    hours(&mut world, 8);
    world.take(2);
    let said = segment(&mut world, 1, 5000, ACK);
    assert!(world.take(2).contains(&said));
}

#[test]
fn a_transfer_from_a_peer_that_does_not_come_back_ends() {
    let mut world = World::connected(15);
    // A download: the client only acknowledges, and would wait for ever.
    open(&mut world, 5000);
    world.nodes[1].dead = true;
    segment(&mut world, 2, 5000, ACK);
    world.take(2);
    world.run(14 * 60 * SECOND);
    world.publish_snapshot();
    assert_eq!(arrived(&mut world, 2).1, 0, "it was given up too soon");
    world.run(2 * 60 * SECOND);
    assert_eq!(arrived(&mut world, 2).1, 1);
}

#[test]
fn who_came_by_itself_is_not_asked_for_all_the_time() {
    let mut world = World::connected(16);
    open(&mut world, 5000);
    let id = world.nodes[2].id;
    world.store.services.remove(&id);
    world.nodes[2].frozen = true;
    world.run(10 * SECOND);
    world.store.log.clear();
    for _ in 0..120 {
        segment(&mut world, 1, 5000, ACK);
        world.run(SECOND - SECOND / 5);
    }
    let asked = world.store.log.len();
    assert!(
        asked <= 6,
        "{asked} questions in two minutes: {:?}",
        world.store.log
    );
}

/// A download: the service has something to say and cannot open a session, the client can and has
/// nothing to say.
#[test]
fn a_service_that_slept_goes_on_with_a_client_that_only_listens() {
    for (seed, seconds) in [(17, 20), (18, 70)] {
        let mut world = World::connected(seed);
        open(&mut world, 5000);
        world.sleep(1, seconds * SECOND);
        world.take(2);
        let began = world.now.instant;
        let mut heard = false;
        for _ in 0..300 {
            let said = segment(&mut world, 1, 5000, ACK);
            let (came, resets) = arrived(&mut world, 2);
            assert_eq!(resets, 0);
            heard = came.contains(&said);
            if heard {
                break;
            }
        }
        let took = world.now.instant - began;
        println!("asleep for {seconds} s: heard after {took:?}");
        assert!(heard && took < seconds * SECOND, "{seconds} s: {took:?}");
    }
}
