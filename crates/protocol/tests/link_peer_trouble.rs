//! Neighbours over a simulated network: crossing and replayed initiations, cookies, loss.
#![expect(clippy::unwrap_used, reason = "tests")]

mod link_world;

use link_world::{Node, SECOND, World, on_demand};
use mixline_protocol::Error;
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::peer::Upkeep;
use mixline_protocol::link::{Admission, DatagramType, Responder, datagram_type};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::Datagram;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn initiations_at_the_same_time_end_in_one_session() {
    for a_first in [true, false] {
        let mut world = World::new(Upkeep::OnDemand, Upkeep::OnDemand, a_first);
        world.a.send(0, world.now);
        world.b.send(0, world.now);
        world.settle();
        assert_eq!((world.a.initiations, world.b.initiations), (1, 1));
        world.works();
        world.agree();
        assert_eq!(world.a.peer.age(world.now), world.b.peer.age(world.now));
        // The one with the smaller key has initiated the session that both use: it alone rekeys.
        for n in 0..130 {
            assert!(world.a.send(n, world.now) && world.b.send(n, world.now));
            world.pass(SECOND, 1000);
        }
        let expected = if a_first { (2, 1) } else { (1, 2) };
        assert_eq!((world.a.initiations, world.b.initiations), expected);
        world.works();
    }
}

#[test]
fn initiations_that_cross_in_any_order_work_out() {
    // Each message of both handshakes, delivered in every order that the network may choose.
    for order in 0..64u32 {
        let mut world = World::new(Upkeep::OnDemand, Upkeep::OnDemand, order % 2 == 0);
        world.a.send(0, world.now);
        world.b.send(0, world.now);
        let mut choice = order;
        for _ in 0..12 {
            let from_a = choice & 1 == 0;
            choice = (choice >> 1) | ((choice & 1) << 5);
            let (from, to) = if from_a {
                (&mut world.a, &mut world.b)
            } else {
                (&mut world.b, &mut world.a)
            };
            if !from.out.is_empty() {
                let datagram = from.out.remove(0);
                to.receive(&datagram, world.now);
            }
        }
        world.settle();
        world.works();
        world.works();
        world.agree();
    }
}

#[test]
fn a_replayed_initiation_disturbs_nothing() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let old = *world.a.out.last().unwrap();
    world.settle();
    world.works();
    world.pass(SECOND, 1000);
    let before = world.b.seal.clone().unwrap();
    // The responder remembers it.
    world.b.receive(&old, world.now);
    assert!(world.b.out.is_empty(), "answered");
    // It has been made to forget: the peer remembers.
    world.b.responder = Responder::new(&world.b.secret, world.now, &mut OsRandom::new());
    world.b.receive(&old, world.now);
    assert!(world.b.out.is_empty(), "answered");
    assert_eq!(world.b.sessions(), 1);
    assert!(Arc::ptr_eq(&before, world.b.seal.as_ref().unwrap()));
    world.works();
    // All is forgotten, as after a restart: a session that nobody can use, and the true one
    // comes all the same.
    world.b = Node::new(
        world.b.secret.clone(),
        &world.a.secret,
        Upkeep::OnDemand,
        world.now,
    );
    world.b.receive(&old, world.now);
    assert!(!world.b.peer.is_up());
    for _ in 0..30 {
        world.a.send(1, world.now);
        world.pass(SECOND, 1000);
    }
    world.works();
    world.agree();
}

#[test]
fn initiations_of_a_neighbour_are_limited() {
    let mut world = on_demand();
    let mut made = Vec::new();
    for n in 1..10u64 {
        let mut other = Node::new(
            world.a.secret.clone(),
            &world.b.secret,
            Upkeep::OnDemand,
            world.now - SECOND * 20 + SECOND * n as u32,
        );
        // Later starts have smaller clocks in `pump`, so that the last is the oldest.
        other.send(0, world.now);
        made.push(other.out.remove(0));
    }
    made.reverse();
    for initiation in &made {
        world.b.receive(initiation, world.now);
    }
    assert_eq!(world.b.out.len(), 1, "nine initiations in no time");
    assert_eq!(world.b.sessions(), 1);
}

#[test]
fn a_cookie_is_returned_at_once() {
    let mut world = on_demand();
    world.b.under_load = true;
    world.a.send(0, world.now);
    world.settle();
    assert_eq!(world.a.initiations, 2);
    world.works();
    // It is good for the next handshake too.
    for n in 0..119 {
        world.a.send(n, world.now);
        world.pass(SECOND, 1000);
    }
    world.a.send(1, world.now);
    world.pass(SECOND * 5, 1000);
    world.works();
}

/// Somebody on the path answers each initiation with so many cookies, before the responder does or after
/// it. How many initiations there were when the link was up.
fn connect_past_a_forger(forged: usize, first: bool) -> usize {
    let mut world = on_demand();
    world.b.under_load = true;
    // The key that cookies are sealed under is public, so this could be anybody.
    let forge = |world: &World, initiation: &Datagram| {
        let secret = &world.b.secret;
        let stranger = Responder::new(secret, world.now, &mut OsRandom::new());
        let source = "192.0.2.1:7000".parse().unwrap();
        match stranger.check_macs(initiation, source, true) {
            Ok(Admission::SendCookie(cookie)) => cookie,
            _ => panic!("no cookie"),
        }
    };
    while !world.a.peer.is_up() {
        world.a.send(0, world.now);
        for _ in 0..10 {
            for datagram in std::mem::take(&mut world.a.out) {
                let initiation = datagram_type(&datagram[..]) == Ok(DatagramType::Initiation);
                let cookies = |world: &mut World| {
                    for _ in 0..if initiation { forged } else { 0 } {
                        let cookie = forge(world, &datagram);
                        world.a.receive(&cookie, world.now);
                    }
                };
                if first {
                    cookies(&mut world);
                }
                world.b.receive(&datagram, world.now);
                for answer in std::mem::take(&mut world.b.out) {
                    world.a.receive(&answer, world.now);
                }
                if !first {
                    cookies(&mut world);
                }
            }
        }
        world.now += SECOND;
        assert!(world.a.initiations < 1000, "never");
    }
    world.settle();
    world.works();
    world.a.initiations
}

#[test]
fn who_answers_initiations_first_keeps_no_link_from_coming_up() {
    for first in [true, false] {
        for forged in 0..2 {
            let initiations = connect_past_a_forger(forged, first);
            assert!(
                initiations <= 2 + 2 * forged,
                "{initiations}, {forged} forged for each"
            );
        }
        // With more it takes longer, and comes up.
        let initiations: usize = (0..20).map(|_| connect_past_a_forger(5, first)).sum();
        assert!(initiations < 20 * 18, "{initiations}");
    }
}

#[test]
fn effort_is_made_when_it_is_asked_for_and_only_then() {
    let mut world = on_demand();
    world.connect();
    world.works();
    assert_eq!(world.a.hashes, 0);
    let mut world = World::new(Upkeep::Always, Upkeep::Never, true);
    world.b.under_load = true;
    world.b.responder.suggest(1 << 13);
    world.a.send(0, world.now);
    world.settle();
    assert_eq!(world.a.initiations, 2);
    assert!(world.a.hashes > 0);
    world.works();
    // Who may be known tries without first: another relay, and whoever has a session.
    let hashes = world.a.hashes;
    world.pass(Duration::from_secs(140), 500);
    assert!(world.a.initiations > 2);
    assert_eq!(world.a.hashes, hashes);
    let mut world = on_demand();
    world.b.under_load = true;
    world.b.responder.suggest(1 << 13);
    world.a.send(0, world.now);
    world.settle();
    assert_eq!((world.a.initiations, world.a.hashes), (2, 0));
    world.works();
    // What is asked for by somebody who never answers costs so much, and no more.
    let mut world = on_demand();
    world.b.under_load = true;
    world.b.responder.suggest(1 << 12);
    for _ in 0..30 {
        world.a.send(0, world.now);
        let secret = &world.b.secret;
        world.b.responder = Responder::new(secret, world.now, &mut OsRandom::new());
        world.b.responder.suggest(1 << 12);
        world.settle();
        world.now += SECOND;
    }
    assert!(world.a.hashes < 64 << 12, "{}", world.a.hashes);
}

#[test]
fn cookies_do_not_make_a_loop() {
    let mut world = on_demand();
    world.b.under_load = true;
    // A responder whose cookies are never good.
    for _ in 0..100 {
        world.b.responder = Responder::new(&world.b.secret, world.now, &mut OsRandom::new());
        world.a.send(0, world.now);
        for datagram in std::mem::take(&mut world.a.out) {
            world.b.receive(&datagram, world.now);
        }
        for datagram in std::mem::take(&mut world.b.out) {
            world.a.receive(&datagram, world.now);
        }
        world.now += Duration::from_millis(100);
    }
    assert!(
        world.a.initiations <= 4,
        "{} in ten seconds",
        world.a.initiations
    );
}

#[test]
fn somebody_elses_session_is_not_accepted() {
    let mut world = on_demand();
    let rng = &mut OsRandom::new();
    let stranger = X25519Secret::generate(rng);
    let mut node = Node::new(stranger, &world.b.secret, Upkeep::OnDemand, world.now);
    node.send(0, world.now);
    let (established, _) = world.b.responder.respond(&node.out[0], 5, rng).unwrap();
    assert!(matches!(
        world.b.peer.accept(established, world.now),
        Err(Error::Malformed { .. })
    ));
    assert!(world.b.peer.is_idle());
}

/// Failing cases are printed and not written to a file.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(24))]

    /// Whatever the network does for ten minutes, some seconds later the link works.
    #[test]
    fn after_any_weather_the_link_works(
        seed: u64,
        loss in 0u64..100,
        roles in prop::sample::select(vec![
            (Upkeep::OnDemand, Upkeep::OnDemand),
            (Upkeep::Always, Upkeep::Never),
            (Upkeep::Always, Upkeep::OnDemand),
        ]),
        a_first: bool,
    ) {
        let mut world = World::new(roles.0, roles.1, a_first);
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 8
        };
        let mut way: Vec<(bool, Datagram)> = Vec::new();
        for _ in 0..1200 {
            world.now += Duration::from_millis(500);
            if random() % 4 == 0 {
                world.a.send(1, world.now);
            }
            if random() % 4 == 0 {
                world.b.send(1, world.now);
            }
            world.a.pump(world.now);
            world.b.pump(world.now);
            way.extend(world.a.out.drain(..).map(|d| (true, d)));
            way.extend(world.b.out.drain(..).map(|d| (false, d)));
            for _ in 0..random() % 12 {
                if way.is_empty() {
                    break;
                }
                let (to_b, datagram) = way.swap_remove(random() as usize % way.len());
                if random() % 100 < loss {
                    continue;
                }
                if random() % 10 == 0 {
                    // Twice.
                    way.push((to_b, datagram));
                }
                let node = if to_b { &mut world.b } else { &mut world.a };
                node.receive(&datagram, world.now);
            }
            way.truncate(50);
        }
        for _ in 0..30 {
            world.a.send(1, world.now);
            if roles.1 != Upkeep::Never {
                world.b.send(1, world.now);
            }
            world.pass(SECOND, 500);
        }
        world.works();
        world.agree();
    }
}
