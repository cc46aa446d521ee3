//! What is an answer, and what is none.

use std::time::Duration;

use mixline_protocol::link::MAX_EFFORT;

use super::world::{Manner, TestRelay, World, address, low_order};
use crate::proving::{Described, State, Trouble, Why};

const A: &str = "192.0.2.1:7000";
const B: &str = "[2001:db8::1]:7000";

#[test]
fn a_relay_that_answers_at_each_address_is_proven_and_its_sessions_are_closed() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A, B]);
    world.settle(&relay);
    let first = world.want(&relay);
    assert_eq!(first, State::Unproven(Why::Waiting(address(A))));
    world.pass(Duration::from_secs(1));
    assert!(world.is_proven(&relay));
    for at in [A, B] {
        let host = world.host(at);
        assert_eq!(
            (host.asked, host.closed, host.open_sessions()),
            (1, 1, 0),
            "{at}"
        );
    }
    let [change] = world.changes[..] else {
        panic!("{:?}", world.changes)
    };
    assert_eq!(
        (change.relay, change.link),
        (relay.id, relay.secret.public())
    );
    assert!(change.state.is_proven());
    // To register again costs nothing.
    assert!(world.want(&relay).is_proven());
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.host(A).asked, 1);
}

#[test]
fn a_relay_that_does_not_answer_at_one_address_is_told_which() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A, B]);
    world.settle(&relay);
    world.hosts.remove(&address(B));
    let state = world.outcome(&relay);
    let trouble = Trouble::Silent { sent: 4 };
    assert_eq!(state, State::Unproven(Why::Failed(address(B), trouble)));
    let text = state.to_string();
    let start = "the directory cannot reach you at [2001:db8::1]:7000: no answer to 4 handshakes";
    assert!(text.starts_with(start), "{text}");
    assert_eq!(world.changes.last().unwrap().state, state);
    // When it is there it is found.
    world.settle(&relay);
    world.pass(Duration::from_secs(60));
    assert!(world.is_proven(&relay));
}

#[test]
fn whoever_is_there_with_another_key_proves_nothing() {
    let mut world = World::new();
    let (liar, honest) = (TestRelay::new(&[A]), TestRelay::new(&[A]));
    world.settle(&honest);
    let state = world.outcome(&liar);
    assert!(matches!(
        state,
        State::Unproven(Why::Failed(_, Trouble::Silent { .. }))
    ));
    assert!(world.outcome(&honest).is_proven());
}

#[test]
fn an_answer_from_elsewhere_proves_nothing() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    world.settle(&relay);
    let elsewhere = address("192.0.2.9:7000");
    world.host(A).manner = Manner::From(elsewhere);
    let state = world.outcome(&relay);
    let why = Why::Failed(address(A), Trouble::Elsewhere(elsewhere));
    assert_eq!(state, State::Unproven(why));
}

#[test]
fn replayed_and_bent_answers_prove_nothing() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    world.settle(&relay);
    // There is an answer to be replayed.
    assert!(world.outcome(&relay).is_proven());
    for manner in [Manner::Replays, Manner::Bent] {
        world.host(A).manner = manner;
        world.proving.forget(&relay.id);
        assert!(!world.outcome(&relay).is_proven(), "{manner:?}");
    }
}

#[test]
fn of_lossy_lines_nearly_all_are_proven_at_once_and_all_soon() {
    let mut world = World::new();
    let relays: Vec<_> = (0..40)
        .map(|n| TestRelay::new(&[&format!("192.{n}.2.1:7000")]))
        .collect();
    for relay in &relays {
        world.settle(relay);
        world.hosts.get_mut(&relay.addresses[0]).unwrap().loss = 20;
        world.want(relay);
    }
    let proven = |world: &World| relays.iter().filter(|it| world.is_proven(it)).count();
    world.pass(Duration::from_secs(15));
    assert!(proven(&world) >= 34, "{}", proven(&world));
    world.pass(Duration::from_secs(600));
    assert_eq!(proven(&world), 40);
}

#[test]
fn a_busy_relay_gets_its_cookie_back_and_the_effort_that_it_asks_for() {
    for effort in [0, 1 << 12] {
        let mut world = World::new();
        let relay = TestRelay::new(&[A]);
        world.settle(&relay);
        world.host(A).manner = Manner::Busy(effort);
        assert!(world.outcome(&relay).is_proven(), "{effort}");
        assert!(world.host(A).asked <= 2);
    }
}

#[test]
fn who_asks_for_effort_for_ever_keeps_nobody_else_waiting() {
    let mut world = World::new();
    let liars: Vec<_> = (0..6)
        .map(|n| TestRelay::new(&[&format!("192.0.2.{n}:7000")]))
        .collect();
    for liar in &liars {
        world.settle(liar);
        let host = world.hosts.get_mut(&liar.addresses[0]).unwrap();
        host.manner = Manner::CookiesOnly(MAX_EFFORT);
        world.want(liar);
    }
    let honest = TestRelay::new(&["192.0.2.99:7000"]);
    world.settle(&honest);
    world.host("192.0.2.99:7000").manner = Manner::Busy(1 << 10);
    world.want(&honest);
    world.pass(Duration::from_secs(5));
    assert!(world.is_proven(&honest));
    world.pass(Duration::from_secs(45));
    for liar in &liars {
        let why = Why::Failed(liar.addresses[0], Trouble::Busy);
        assert_eq!(world.state(liar), State::Unproven(why));
        assert!(world.hosts[&liar.addresses[0]].asked <= 8);
    }
}

#[test]
fn cookies_without_an_end_are_no_answer() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    world.settle(&relay);
    world.host(A).manner = Manner::CookiesOnly(0);
    let why = Why::Failed(address(A), Trouble::Busy);
    assert_eq!(world.outcome(&relay), State::Unproven(why));
    assert!(world.host(A).asked <= 8);
}

#[test]
fn a_key_that_is_none_is_said_to_be_none() {
    let mut world = World::new();
    let relay = TestRelay::new(&[A]);
    let described = Described {
        link: low_order(),
        addresses: &relay.addresses,
    };
    let now = world.now;
    world.proving.wanted(relay.id, described, relay.source, now);
    world.pass(Duration::from_secs(1));
    let why = Why::Failed(address(A), Trouble::BadKey);
    let state = world.proving.state(&relay.id, described, world.now);
    assert_eq!(state, State::Unproven(why));
}

#[test]
fn an_address_that_there_is_no_way_to_counts_neither_for_nor_against_a_relay() {
    let mut world = World::new();
    world.no_way = |to| to.is_ipv6();
    let (both, one) = (TestRelay::new(&[A, B]), TestRelay::new(&[B]));
    world.settle(&both);
    assert!(world.outcome(&both).is_proven());
    assert_eq!(world.outcome(&one), State::CannotTell(address(B)));
    // It is tried again, and a way may have been found.
    world.settle(&one);
    world.no_way = |_| false;
    world.pass(Duration::from_secs(1000));
    assert!(world.is_proven(&one));
    // One that answers nowhere is not proven by an address that nobody can look at.
    world.no_way = |to| to.is_ipv6();
    let nowhere = TestRelay::new(&["192.0.2.5:7000", B]);
    assert!(matches!(
        world.outcome(&nowhere),
        State::Unproven(Why::Failed(..))
    ));
}
