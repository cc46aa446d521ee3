//! Client and service over eight relays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod world;

use std::time::Duration;

use mixline_endpoint::engine::command::Command;
use world::*;

const SECOND: Duration = Duration::from_secs(1);

/// A network with a service (1) and a client (2), both ready.
fn pair(seed: u64) -> World {
    let mut world = World::settled(8, seed);
    world.service();
    world.client(|_| {});
    let id = world.nodes[1].id;
    assert!(
        world.run_until(5 * SECOND, |world| world.store.services.contains_key(&id)),
        "the service publishes itself: {:#?}",
        world.status(1)
    );
    world
}

#[test]
fn a_packet_goes_there_and_back() {
    let mut world = pair(1);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let there = udp(client, service, (1000, 2000), b"ping");
    world.send(2, std::slice::from_ref(&there));
    assert!(
        world.run_until(2 * SECOND, |world| !world.nodes[1].received.is_empty()),
        "{:#?}",
        world.status(2)
    );
    assert_eq!(world.take(1), [there]);
    let back = udp(service, client, (2000, 1000), b"pong");
    world.send(1, std::slice::from_ref(&back));
    world.run(SECOND);
    assert_eq!(world.take(2), [back]);

    let (client, service) = (world.ipv6(2), world.ipv6(1));
    let there = udp(client, service, (1000, 2000), &[7; 1400]);
    world.send(2, std::slice::from_ref(&there));
    world.run(SECOND);
    assert_eq!(world.take(1), [there]);
    let _ = Command::Shutdown;
}
