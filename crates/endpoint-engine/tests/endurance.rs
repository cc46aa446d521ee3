//! Budgets must not make it brittle: whatever restarts, a connection goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::status::Event;
use mixline_endpoint_engine::testing::*;
use mixline_protocol::directory::RequestBody;

use downloads::{Download, MILLISECOND, SECOND};

mod downloads;

/// Nobody waits for longer than this whatever restarts, as far as these seeds go: of many, some do
/// (docs/adr/0026, and `examples/stalls.rs`).
const MOST: Duration = Duration::from_secs(4);

#[test]
fn a_connection_outlives_the_death_of_each_relay_in_turn() {
    for seed in [2, 5, 27] {
        let mut it = Download::connected(seed);
        it.kill_in_turn(32, &[]);
        it.check(&format!("seed {seed}"), MOST);
    }
}

#[test]
fn it_outlives_orderly_restarts_of_each_relay_in_turn() {
    for seed in [4, 17] {
        let mut it = Download::connected(seed);
        it.stop_in_turn(32, &[]);
        it.check(&format!("seed {seed}"), MOST);
    }
}

/// Two of the relays next to the client's guards swallow all cells, and answer their neighbours. Nobody can
/// tell which, so what is learnt is by trial.
#[test]
fn so_it_does_when_half_of_the_second_layer_swallows_cells_as_well() {
    for seed in [1, 5, 16] {
        let (mut it, evil) = Download::with_swallowers(seed);
        it.kill_in_turn(32, &evil);
        it.check(&format!("seed {seed}, killed"), MOST);
    }
    let (mut it, evil) = Download::with_swallowers(14);
    it.stop_in_turn(32, &evil);
    it.check("stopped", MOST);
}

#[test]
fn it_notices_nothing_when_the_directory_is_killed_and_starts_again() {
    let mut it = Download::connected(20);
    it.restart_the_directory(5);
    it.check("the directory", 100 * MILLISECOND);
    // New connections are made, too.
    let newcomer = it.world.client(|_| {});
    it.run(5 * SECOND);
    let (from, to) = (it.world.ipv4(newcomer), it.world.ipv4(1));
    it.world.send(newcomer, &[udp(from, to, (1, 1), b"hello")]);
    it.world.run(2 * SECOND);
    let arrived = it.world.take(1);
    assert!(arrived.iter().any(|packet| packet[9] == 17));
}

#[test]
fn it_outlives_addresses_that_change_every_three_seconds() {
    let mut it = Download::connected(19);
    it.roam(20);
    it.check("roaming", 2 * SECOND);
}

#[test]
fn it_outlives_a_minute_without_a_line_of_its_own() {
    let mut it = Download::connected(21);
    it.unplug();
    it.check("unplugged", MOST);
}

#[test]
fn a_silent_peer_is_given_up_after_half_a_minute_of_handshakes_and_not_before() {
    let mut it = Download::new(World::connected(22));
    it.run(2 * SECOND);
    it.world.nodes[1].dead = true;
    let died = it.world.now.instant;
    let peer = it.world.nodes[1].id;
    let closed = |world: &World| {
        let events = world.nodes[2].events.iter();
        events
            .filter(|event| matches!(event, Event::SessionClosed(id, _) if *id == peer))
            .count()
    };
    while closed(&it.world) == 0 {
        it.step();
        assert!(it.world.now.instant - died < 40 * SECOND);
    }
    let after = it.world.now.instant - died;
    assert!((29 * SECOND..33 * SECOND).contains(&after), "{after:?}");
    // All the time it was asked for, and no more often than that.
    let refreshes = it.world.store.log.iter();
    let refreshes = refreshes.filter(|(_, body)| *body == RequestBody::LookupId(peer));
    let refreshes = refreshes.count();
    assert!((4..=16).contains(&refreshes), "{refreshes} questions");
}

/// Over long ways, too: the tails of both ends fail at once, so that neither can tell the other its new ones.
#[test]
fn a_recovery_ends_whatever_the_round_trip() {
    for (milliseconds, seed) in [50, 500, 800, 1500].into_iter().zip(31..) {
        // Head and tail have three relays each: seven wires there, and seven back.
        let trip = milliseconds * MILLISECOND;
        let mut world = World::settled(8, seed);
        world.service();
        world.client(|_| {});
        world.run(5 * SECOND);
        world.weather.delay = trip / 14;
        let (client, service) = (world.ipv4(2), world.ipv4(1));
        world.send(2, &[udp(client, service, (1, 1), b"hello")]);
        world.run(20 * SECOND);
        assert_eq!(world.take(1).len(), 1, "{trip:?}");
        let mut it = Download::new(world);
        it.run(5 * SECOND);
        it.forget();
        for node in [1, 2] {
            it.world.nodes[node].engine.lose_private_tails();
        }
        it.run(40 * SECOND);
        // Trouble is noticed after two round trips; a handshake takes one, and may have to be made twice.
        it.check(&format!("{trip:?}"), 2 * SECOND + 5 * trip);
        // The keys that were made are used from then on.
        let peer = it.world.nodes[1].id;
        let keyed = it.world.nodes[2].engine.keyed(&peer).unwrap();
        let age = it.world.now.instant - keyed;
        assert!(age >= 25 * SECOND, "{trip:?}: keys of {age:?}");
    }
}

#[test]
fn who_answers_handshakes_and_no_probes_is_given_up() {
    let mut it = Download::new(World::connected(23));
    it.run(2 * SECOND);
    it.world.nodes[1].answers_no_probes = true;
    let from = it.world.now.instant;
    let peer = it.world.nodes[1].id;
    let closed = |event: &Event| matches!(event, Event::SessionClosed(id, _) if *id == peer);
    while !it.world.nodes[2].events.iter().any(closed) {
        it.step();
        assert!(
            it.world.now.instant - from < 40 * SECOND,
            "it goes on for ever"
        );
    }
    let after = it.world.now.instant - from;
    assert!((29 * SECOND..34 * SECOND).contains(&after), "{after:?}");
}

#[test]
fn handshakes_with_a_silent_peer_go_on_over_its_private_tails() {
    let mut it = Download::new(World::connected(24));
    it.run(2 * SECOND);
    it.world.nodes[1].dead = true;
    let peer = it.world.nodes[1].id;
    // The directory has been asked meanwhile.
    it.run(5 * SECOND);
    let refreshed = it.world.store.log.iter();
    let refreshed = refreshed.filter(|(_, body)| *body == RequestBody::LookupId(peer));
    assert!(refreshed.count() > 0);
    let now = it.world.now;
    let (public, private) = it.world.nodes[2].engine.opening_targets(&peer, now);
    assert!(
        public > 0 && private > 0,
        "{public} public, {private} private"
    );
}

/// A service does not look for those who came by themselves, and has no room for all that came once.
#[test]
fn who_came_once_is_forgotten_soon() {
    let mut world = World::settled(8, 25);
    world.service();
    world.run(5 * SECOND);
    let service = world.ipv4(1);
    for _ in 0..12 {
        let stranger = world.client(|_| {});
        world.run(2 * SECOND);
        let from = world.ipv4(stranger);
        world.send(stranger, &[udp(from, service, (1, 1), b"hello")]);
        world.run(500 * MILLISECOND);
        assert_eq!(world.take(1).len(), 1);
        // The service has something to say, so that it probes.
        world.send(1, &[udp(service, from, (1, 1), b"hello")]);
        world.nodes[stranger].dead = true;
    }
    world.run(7 * SECOND);
    let mut sessions = world.status(1).sessions;
    // That with the directory is its own.
    sessions.retain(|session| !session.initiated);
    assert!(sessions.is_empty(), "{sessions:#?}");
}

/// While a peer is not there, heads to it are built now and then, and not ten in a second.
#[test]
fn who_is_gone_costs_little() {
    let mut it = Download::new(World::connected(26));
    it.run(2 * SECOND);
    it.world.nodes[1].dead = true;
    it.run(8 * SECOND);
    let lost = |world: &World| world.status(2).counters.paths_lost;
    let before = lost(&it.world);
    it.run(10 * SECOND);
    let heads = lost(&it.world) - before;
    assert!(heads <= 10, "{heads} heads in ten seconds");
}
