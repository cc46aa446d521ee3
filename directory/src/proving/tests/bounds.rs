//! What strangers can do to others.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mixline_protocol::random::OsRandom;
use proptest::prelude::*;

use super::world::{TestRelay, World, address, ip};
use crate::proving::{LIFE, PLACES, PLACES_OF_PROVEN, SLOTS, SLOTS_OF_PROVEN, State, Why};

/// Relays at which nobody is, in 200 of the 256 /24 of a /16.
fn crowd(count: u32, network: u32) -> impl Iterator<Item = TestRelay> {
    (0..count).map(move |n| {
        let bits = (network << 16) + ((n % 200) << 8) + n / 200;
        let ip = IpAddr::V4(bits.into());
        TestRelay::nobody(bits, vec![SocketAddr::new(ip, 7000)], ip)
    })
}

#[test]
fn a_flood_from_one_network_keeps_no_relay_of_another_waiting() {
    let mut world = World::new();
    let let_in = crowd(6000, 0x0a01)
        .filter(|relay| world.want(relay) != State::Unproven(Why::NoRoom))
        .count();
    let strangers = PLACES - PLACES_OF_PROVEN;
    assert!(
        (strangers / 4..=strangers / 2).contains(&let_in),
        "{let_in}"
    );
    world.pass(Duration::from_secs(5));
    assert!(world.proving.census(world.now).attempts <= (SLOTS - SLOTS_OF_PROVEN) / 2);
    let elsewhere = TestRelay::new(&["192.0.2.1:7000"]);
    world.settle(&elsewhere);
    world.want(&elsewhere);
    world.pass(Duration::from_millis(100));
    assert!(world.is_proven(&elsewhere));
    // Also one in the crowd's own network, in the place of one that was not reached, and after its like.
    world.pass(Duration::from_secs(30));
    let beside = TestRelay::new(&["10.1.250.1:7000"]);
    world.settle(&beside);
    assert_ne!(world.want(&beside), State::Unproven(Why::NoRoom));
    world.pass(Duration::from_secs(120));
    assert!(world.is_proven(&beside));
}

#[test]
fn a_flood_from_everywhere_keeps_no_renewal_from_its_turn() {
    let mut world = World::new();
    let relay = TestRelay::new(&["192.0.2.1:7000"]);
    world.settle(&relay);
    assert!(world.outcome(&relay).is_proven());
    world.pass(LIFE / 2 - Duration::from_secs(100));
    let mut n = 0;
    for network in 0..600_u32 {
        for stranger in crowd(14, 0x1000 + network) {
            n += usize::from(world.want(&stranger) != State::Unproven(Why::NoRoom));
        }
    }
    // All the places that strangers get: none is one of those that are proven.
    assert!(n > 6000, "{n}");
    world.pass(Duration::from_secs(60));
    let attempts = world.proving.census(world.now).attempts;
    assert!(
        (90..=SLOTS - SLOTS_OF_PROVEN).contains(&attempts),
        "{attempts}"
    );
    let asked = world.host("192.0.2.1:7000").asked;
    world.proving.make_due(&relay.id, world.now);
    // At once, and not when one of the others is done.
    world.pass(Duration::ZERO);
    assert_eq!(world.host("192.0.2.1:7000").asked, asked + 1);
    // One that was never proven waits for its turn among them.
    let new = TestRelay::new(&["192.1.2.1:7000"]);
    world.settle(&new);
    let waits = State::Unproven(Why::Waiting(new.addresses[0]));
    assert_eq!(world.want(&new), waits);
    world.pass(Duration::from_secs(100));
    assert!(world.is_proven(&new));
}

#[test]
fn who_is_named_by_many_is_sent_little_and_its_own_relay_is_proven_all_the_same() {
    let victim = "203.0.113.7:7000";
    let mut world = World::new();
    for network in 0..100_u32 {
        for n in 0..3 {
            let from = IpAddr::V4((((0x2000 + network) << 16) + n).into());
            let named = vec![SocketAddr::new(from, 7000), address(victim)];
            let relay = TestRelay::nobody(network * 3 + n, named, from);
            world.want(&relay);
        }
    }
    // A relay that is there registers from another address, and from there.
    let (mut second, mut first) = (
        TestRelay::new(&["192.0.2.1:7000", victim]),
        TestRelay::new(&["203.0.113.7:8000"]),
    );
    second.secret = first.secret.clone();
    first.source = Some(ip("203.0.113.7"));
    world.settle(&second);
    world.settle(&first);
    world.want(&first);
    // After one of each network: nobody has used up what its own address has.
    world.pass(Duration::from_secs(90));
    assert!(world.is_proven(&first));
    let minutes = 15;
    world.pass(Duration::from_secs(60 * minutes));
    let sent = world.sent[&address(victim)];
    // Eight attempts, and two a minute, of four initiations each.
    assert!(sent as u64 <= 4 * (8 + 2 * minutes + 1), "{sent}");
    world.want(&second);
    world.pass(Duration::from_secs(600));
    assert!(world.is_proven(&second));
}

#[test]
fn many_relays_at_one_address_are_proven_soon_also_where_nobody_checks_sources() {
    for checked in [true, false] {
        let mut world = World::new();
        let relays: Vec<_> = (0..40)
            .map(|n| {
                let mut relay = TestRelay::new(&[&format!("127.0.0.1:{}", 7000 + n)]);
                relay.source = relay.source.filter(|_| checked);
                relay
            })
            .collect();
        for relay in &relays {
            world.settle(relay);
            world.want(relay);
        }
        world.pass(Duration::from_secs(5));
        assert!(
            relays.iter().all(|relay| world.is_proven(relay)),
            "{checked}"
        );
    }
}

/// They cost whoever registers them nothing, not even an attempt.
#[test]
fn relays_that_nobody_can_be_sent_to_give_way() {
    let mut world = World::new();
    world.no_way = |to| to.is_ipv6();
    let nowhere = |network: u32, n: u32| {
        let from = IpAddr::V4(((network << 16) + n).into());
        let named = vec![SocketAddr::new(ip("2001:db8::1"), 1 + n as u16)];
        TestRelay::nobody((network << 16) + n, named, from)
    };
    let let_in = (0..600).flat_map(|network| (0..14).map(move |n| (network, n)));
    let let_in = let_in
        .filter(|(network, n)| world.want(&nowhere(*network, *n)) != State::Unproven(Why::NoRoom))
        .count();
    assert!(let_in > 8000, "{let_in}");
    world.pass(Duration::from_secs(100));
    for n in 0..200 {
        let new = TestRelay::new(&[&format!("203.{n}.2.1:7000")]);
        world.settle(&new);
        assert_ne!(world.want(&new), State::Unproven(Why::NoRoom));
        world.pass(Duration::from_secs(1));
        assert!(world.is_proven(&new), "{n}");
    }
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut world = World::new();
    let relay = TestRelay::new(&["192.0.2.1:7000"]);
    world.want(&relay);
    world.pass(Duration::from_millis(500));
    let rng = &mut OsRandom::new();
    let mut datagram = Box::new([0; 1408]);
    for kind in 0..=7_u8 {
        for _ in 0..500 {
            rng.fill_bytes(&mut datagram[..]);
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            let (now, wall) = (world.now, mixline_protocol::link::Timestamp::default());
            let source = address("192.0.2.1:7000");
            let out = world.proving.received(&datagram, source, now, wall);
            assert!(out.is_empty());
        }
    }
    assert_eq!(
        world.state(&relay),
        State::Unproven(Why::Waiting(relay.addresses[0]))
    );
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Want(u8, u8, bool),
    Forget(u8),
    Come(u8),
    Go(u8),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6, 0_u8..8, any::<bool>()).prop_map(|(who, at, checked)| Step::Want(who, at, checked)),
        1 => (0_u8..6).prop_map(Step::Forget),
        2 => (0_u8..8).prop_map(Step::Come),
        1 => (0_u8..8).prop_map(Step::Go),
        4 => (0_u16..4000).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whichever order, everything is counted, and a relay that is there in the end is proven.
    #[test]
    fn nothing_is_lost_or_left_over(steps in proptest::collection::vec(step(), 0..40)) {
        let mut world = World::new();
        let relays: Vec<_> = (0..6_u32)
            .map(|n| TestRelay::nobody(n, Vec::new(), ip("192.0.2.1")))
            .collect();
        let at = |n: u8| SocketAddr::from(([192, n, 2, 1], 7000));
        for step in steps {
            match step {
                Step::Want(who, first, checked) => {
                    let mut relay = relays[usize::from(who)].clone();
                    relay.addresses = vec![at(first), at(who)];
                    relay.source = checked.then(|| at(first).ip());
                    world.want(&relay);
                }
                Step::Forget(who) => world.proving.forget(&relays[usize::from(who)].id),
                Step::Come(n) => {
                    let mut relay = relays[usize::from(n % 6)].clone();
                    relay.addresses = vec![at(n)];
                    world.settle(&relay);
                }
                Step::Go(n) => {
                    world.hosts.remove(&at(n));
                }
                Step::Pass(seconds) => world.pass(Duration::from_secs(seconds.into())),
            }
        }
        for (n, relay) in (0..).zip(&relays) {
            let mut relay = relay.clone();
            relay.addresses = vec![at(n)];
            world.settle(&relay);
            world.want(&relay);
        }
        world.pass(Duration::from_secs(1000));
        for (n, relay) in (0..).zip(&relays) {
            let mut relay = relay.clone();
            relay.addresses = vec![at(n)];
            prop_assert!(world.is_proven(&relay));
            world.proving.forget(&relay.id);
        }
        prop_assert!(world.proving.is_empty());
    }
}
