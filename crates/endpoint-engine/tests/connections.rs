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

#[test]
fn an_idle_connection_is_there_after_hours() {
    let mut world = World::connected(1);
    open(&mut world, 5000);
    hours(&mut world, 8);
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
