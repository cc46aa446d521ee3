//! Sessions are few, and IDs cost nothing: whoever keeps many of them busy keeps nobody out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Sessions that the service holds; two more are its own, with the directory.
const PLACES: usize = 12;
const SERVICE: usize = 1;

/// A service with few places, and strangers without leases who want all of them.
fn crowded(seed: u64) -> (World, Vec<usize>) {
    let mut world = World::settled(8, seed);
    world.client(|config| {
        config.accept_sessions = true;
        config.publish = true;
        config.max_sessions = PLACES;
    });
    world.run(5 * SECOND);
    let strangers: Vec<usize> = (0..PLACES + 4).map(|_| stranger(&mut world)).collect();
    world.run(2 * SECOND);
    for _ in 0..3 {
        all_say(&mut world, &strangers);
        world.run(5 * SECOND);
    }
    (world, strangers)
}

fn stranger(world: &mut World) -> usize {
    let key = world.random_key();
    world.add(key, |_| {})
}

fn say(world: &mut World, node: usize) {
    let (from, to) = (world.ipv6(node), world.ipv6(SERVICE));
    world.send(node, &[udp(from, to, (1, 1), b"here")]);
}

fn all_say(world: &mut World, strangers: &[usize]) {
    for node in strangers {
        say(world, *node);
    }
}

/// Whether a newcomer is heard within five seconds, while the strangers say something every half second: far
/// more often than they have to.
fn gets_in(world: &mut World, newcomer: usize, strangers: &[usize]) -> bool {
    let from = world.ipv6(newcomer).octets();
    for step in 0..25 {
        if step % 2 == 0 {
            all_say(world, strangers);
        }
        say(world, newcomer);
        world.run(200 * MILLISECOND);
        if world.take(SERVICE).iter().any(|it| it[8..24] == from) {
            return true;
        }
    }
    false
}

fn held(world: &World) -> usize {
    let sessions = world.status(SERVICE).sessions;
    sessions
        .iter()
        .filter(|it| it.state == "established")
        .count()
}

#[test]
fn who_keeps_all_places_busy_keeps_nobody_out() {
    let (mut world, strangers) = crowded(1);
    assert_eq!(held(&world), PLACES);
    let newcomers: Vec<usize> = (0..10).map(|_| stranger(&mut world)).collect();
    world.run(2 * SECOND);
    let got_in = newcomers
        .iter()
        .filter(|newcomer| gets_in(&mut world, **newcomer, &strangers))
        .count();
    assert!(got_in >= 9, "{got_in} of 10");
    assert!(held(&world) <= PLACES);
}

#[test]
fn who_has_a_lease_keeps_a_place_among_those_who_have_none() {
    let (mut world, mut strangers) = crowded(2);
    let leased: Vec<usize> = (0..3).map(|_| world.client(|_| {})).collect();
    world.run(2 * SECOND);
    for node in &leased {
        assert!(gets_in(&mut world, *node, &strangers));
    }
    // Ever more of those without do not drive them out, though they say nothing for a while.
    for _ in 0..20 {
        strangers.push(stranger(&mut world));
        world.run(SECOND);
        all_say(&mut world, &strangers);
    }
    let sessions = world.status(SERVICE).sessions;
    for node in &leased {
        let id = world.nodes[*node].id.to_string();
        assert!(sessions.iter().any(|it| it.peer == id && it.age_s > 15));
    }
}

#[test]
fn those_with_a_lease_have_half_of_the_places_and_no_more() {
    let mut world = World::settled(8, 3);
    world.client(|config| {
        config.accept_sessions = true;
        config.publish = true;
        config.max_sessions = PLACES;
    });
    world.run(5 * SECOND);
    let leased: Vec<usize> = (0..PLACES + 4).map(|_| world.client(|_| {})).collect();
    world.run(2 * SECOND);
    all_say(&mut world, &leased);
    world.run(5 * SECOND);
    let newcomer = stranger(&mut world);
    world.run(2 * SECOND);
    assert!(gets_in(&mut world, newcomer, &leased));
    // It stays, though all the others come again and again.
    let id = world.nodes[newcomer].id.to_string();
    for _ in 0..20 {
        all_say(&mut world, &leased);
        say(&mut world, newcomer);
        world.run(SECOND);
    }
    let sessions = world.status(SERVICE).sessions;
    assert!(sessions.iter().any(|it| it.peer == id && it.age_s > 15));
}
