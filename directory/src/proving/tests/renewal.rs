//! For how long it holds, and what begins anew.

use std::time::Duration;

use mixline_protocol::identity::X25519Secret;
use mixline_protocol::random::OsRandom;

use super::world::{TestRelay, World, address};
use crate::proving::{LIFE, LIFE_AFTER_RESTART, State, Why};

const A: &str = "192.0.2.1:7000";
const B: &str = "198.51.100.1:7000";

fn proven(addresses: &[&str]) -> (World, TestRelay) {
    let mut world = World::new();
    let relay = TestRelay::new(addresses);
    world.settle(&relay);
    assert!(world.outcome(&relay).is_proven());
    (world, relay)
}

#[test]
fn what_was_proven_is_proven_again_before_it_ends() {
    let (mut world, relay) = proven(&[A]);
    let since = world.state(&relay);
    world.pass(LIFE / 2 - Duration::from_secs(60));
    assert_eq!(world.host(A).asked, 1);
    world.pass(LIFE / 3 + Duration::from_secs(60));
    assert_eq!(world.host(A).asked, 2);
    world.pass(5 * LIFE);
    assert!((8..=13).contains(&world.host(A).asked));
    assert_eq!(world.state(&relay), since);
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn an_outage_of_hours_costs_nothing_and_a_longer_one_the_place() {
    let (mut world, relay) = proven(&[A]);
    let host = world.hosts.remove(&address(A)).unwrap();
    world.pass(LIFE - Duration::from_secs(60));
    assert!(world.is_proven(&relay));
    world.pass(Duration::from_secs(120));
    assert!(matches!(
        world.state(&relay),
        State::Unproven(Why::Failed(..))
    ));
    assert_eq!(world.changes.len(), 2);
    assert!(!world.changes[1].state.is_proven());
    world.hosts.insert(address(A), host);
    world.pass(Duration::from_secs(800));
    assert!(world.is_proven(&relay));
}

#[test]
fn what_fails_is_tried_ever_later() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    world.want(&relay);
    let hour = Duration::from_secs(3600);
    world.pass(hour);
    let first = world.sent[&address(A)];
    assert!((20..=48).contains(&first), "{first}");
    // Registrations in between bring nothing forward.
    for _ in 0..180 {
        world.want(&relay);
        world.pass(hour / 180);
    }
    let second = world.sent[&address(A)] - first;
    assert!((16..=32).contains(&second), "{second}");
}

#[test]
fn another_link_key_is_proven_at_once_and_another_address() {
    let (mut world, mut relay) = proven(&[A]);
    let old = relay.clone();
    relay.secret = X25519Secret::generate(&mut OsRandom::new());
    assert!(!world.want(&relay).is_proven());
    // What is known of the former key is not known of a relay that has another one.
    assert_eq!(world.state(&old), State::Unproven(Why::Unasked));
    world.settle(&relay);
    world.pass(Duration::from_secs(5));
    assert!(world.is_proven(&relay));

    relay.addresses.push(address(B));
    world.settle(&relay);
    assert_eq!(
        world.want(&relay),
        State::Unproven(Why::Waiting(address(B)))
    );
    world.pass(Duration::from_secs(1));
    assert!(world.is_proven(&relay));
    // Where it was proven already it was left alone.
    assert_eq!(world.host(A).asked, 0);
    // In another order it is the same relay, and with fewer addresses as well.
    relay.addresses.reverse();
    assert!(world.want(&relay).is_proven());
    relay.addresses.pop();
    assert!(world.want(&relay).is_proven());
}

#[test]
fn a_relay_that_registers_from_elsewhere_is_proven_as_before() {
    let (mut world, mut relay) = proven(&[A, B]);
    relay.source = Some(relay.addresses[1].ip());
    assert!(world.want(&relay).is_proven());
    relay.source = None;
    assert!(world.want(&relay).is_proven());
    world.pass(Duration::from_secs(10));
    assert_eq!(world.host(A).asked, 1);
}

#[test]
fn after_a_restart_those_that_were_listed_are_proven_again_within_the_hour() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    let gone = TestRelay::new(&[B]);
    world.settle(&relay);
    for it in [&relay, &gone] {
        let (described, now) = (it.described(), world.now);
        assert!(world.proving.restore(it.id, described, it.source, now));
        assert!(!world.proving.restore(it.id, described, it.source, now));
        assert!(world.is_proven(it));
        assert!(world.want(it).is_proven());
    }
    world.pass(LIFE_AFTER_RESTART + Duration::from_secs(60));
    assert!(world.is_proven(&relay) && !world.is_proven(&gone));
    assert_eq!(world.host(A).asked, 1);
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn a_relay_that_is_forgotten_leaves_nothing_behind() {
    let mut world = World::new();
    for (n, at) in [A, B].into_iter().enumerate() {
        let relay = TestRelay::new(&[at]);
        world.want(&relay);
        world.pass(Duration::from_millis(500 * n as u64));
        world.proving.forget(&relay.id);
        assert_eq!(world.state(&relay), State::Unproven(Why::Unasked));
        assert!(world.proving.is_empty());
    }
}
