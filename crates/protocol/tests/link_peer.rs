//! Neighbours over a simulated network: when a link comes up, is replaced, kept alive, given up.
#![expect(clippy::unwrap_used, reason = "tests")]

mod link_world;

use link_world::{Node, SECOND, World, on_demand};
use mixline_protocol::Error;
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::Upkeep;
use mixline_protocol::link::{
    CellKind, HANDSHAKE_GIVE_UP, HANDSHAKE_RETRY, REJECT_AFTER, receiver_index,
};
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn a_link_comes_up_on_demand() {
    let mut world = on_demand();
    world.pass(SECOND * 60, 1000);
    assert_eq!(
        (world.a.initiations, world.b.initiations),
        (0, 0),
        "nobody asked"
    );
    world.connect();
    assert_eq!((world.a.initiations, world.b.initiations), (1, 0));
    world.works();
    assert_eq!((world.a.sessions(), world.b.sessions()), (1, 1));
}

#[test]
fn the_responder_waits_for_a_sign_of_life() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let initiation = world.a.out.pop().unwrap();
    world.b.receive(&initiation, world.now);
    assert_eq!(world.b.sessions(), 1);
    assert!(
        !world.b.peer.is_up(),
        "it would send to anyone who replayed this"
    );
    assert!(!world.b.send(1, world.now));
    world.settle();
    assert!(world.b.peer.is_up());
}

#[test]
fn sessions_are_replaced_without_loss() {
    let mut world = on_demand();
    world.connect();
    let mut held = Vec::new();
    let mut sent = 0;
    for second in 0..1000u64 {
        world.now += SECOND;
        for _ in 0..3 {
            sent += 1;
            assert!(world.a.send(sent, world.now) && world.b.send(sent, world.now));
            // One in three is held up for two seconds, across a change of keys too.
            if sent % 3 == 0 {
                held.push((
                    second,
                    world.a.out.pop().unwrap(),
                    world.b.out.pop().unwrap(),
                ));
            }
        }
        world.settle();
        while held.first().is_some_and(|(when, ..)| when + 2 <= second) {
            let (_, to_b, to_a) = held.remove(0);
            world.b.receive(&to_b, world.now);
            world.a.receive(&to_a, world.now);
        }
    }
    let all = |node: &Node| node.received.iter().copied().collect::<HashSet<_>>().len();
    assert!(all(&world.a) as u64 >= sent - 3 && all(&world.b) as u64 >= sent - 3);
    let handshakes = world.a.initiations + world.b.initiations;
    assert!(
        (8..=9).contains(&handshakes),
        "{handshakes} in 1000 seconds"
    );
    assert_eq!(world.b.initiations, 0, "both rekey");
}

#[test]
fn if_the_initiator_does_not_rekey_the_responder_does() {
    let mut world = on_demand();
    world.connect();
    world.a.peer.set_upkeep(Upkeep::Never);
    let end = world.now + SECOND * 300;
    while world.now < end {
        world.now += SECOND;
        assert!(
            world.b.send(1, world.now),
            "no key at {:?}",
            world.b.peer.age(world.now)
        );
        world.settle();
    }
    assert_eq!((world.a.initiations, world.b.initiations), (1, 2));
    world.works();
}

#[test]
fn an_idle_link_is_forgotten() {
    let mut world = on_demand();
    world.connect();
    world.works();
    world.pass(REJECT_AFTER - SECOND, 1000);
    assert!(world.a.peer.is_up());
    world.pass(SECOND * 2, 1000);
    assert!(!world.a.peer.is_up() && !world.b.peer.is_up());
    assert!(world.a.peer.is_idle() && world.b.peer.is_idle());
    assert!(world.a.indices.is_empty() && world.b.indices.is_empty());
    assert_eq!((world.a.initiations, world.b.initiations), (1, 0));
    // A few signs of life for the cells of `works`, and no more.
    assert!(world.a.cover + world.b.cover <= 4);
    world.connect();
    world.works();
}

#[test]
fn nothing_is_sealed_under_an_old_session_though_no_new_one_comes() {
    let mut world = on_demand();
    world.connect();
    let since = world.now;
    while world.now < since + REJECT_AFTER {
        assert!(world.a.peer.is_up());
        world.a.send(1, world.now);
        world.pass_cut(SECOND, 1000);
    }
    assert!(
        !world.a.peer.is_up(),
        "a session of {REJECT_AFTER:?} is still in use"
    );
    assert!(!world.b.peer.is_up());
    assert_eq!(world.a.sessions() + world.b.sessions(), 0);
}

#[test]
fn a_lost_handshake_is_made_anew() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let first = world.a.out.pop().unwrap();
    world.b.receive(&first, world.now);
    let late = world.b.out.pop().unwrap();
    world.pass_cut(HANDSHAKE_RETRY - Duration::from_millis(1), 100);
    assert_eq!(world.a.initiations, 1, "too early");
    world.now += Duration::from_millis(400);
    world.a.pump(world.now);
    assert_eq!(world.a.initiations, 2);
    let second = world.a.out.last().unwrap();
    assert_ne!(receiver_index(&first), receiver_index(second));
    assert_ne!(
        first[16..48],
        second[16..48],
        "the same ephemeral key twice"
    );
    // The answer to the first is for an index that is no longer there.
    assert!(!world.a.indices.contains_key(&receiver_index(&late)));
    assert!(matches!(
        world.a.peer.response(&late, world.now),
        Err(Error::Malformed { .. })
    ));
    world.settle();
    world.works();
}

#[test]
fn retries_are_spread() {
    let mut delays = HashSet::new();
    for _ in 0..20 {
        let mut world = on_demand();
        world.a.send(0, world.now);
        let start = world.now;
        while world.a.initiations < 2 {
            world.pass_cut(Duration::from_millis(1), 1);
        }
        let delay = world.now - start;
        assert!(
            delay >= HANDSHAKE_RETRY && delay <= HANDSHAKE_RETRY + SECOND / 2,
            "{delay:?}"
        );
        delays.insert(delay);
    }
    assert!(delays.len() > 5, "{delays:?}");
}

#[test]
fn who_does_not_answer_is_given_up() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    world.pass_cut(HANDSHAKE_GIVE_UP - SECOND, 100);
    assert_eq!(world.a.unreachable, 0);
    world.pass_cut(SECOND * 2, 100);
    assert_eq!(world.a.unreachable, 1);
    assert!(
        (16..=18).contains(&world.a.initiations),
        "{}",
        world.a.initiations
    );
    let initiations = world.a.initiations;
    world.pass_cut(SECOND * 600, 100);
    assert_eq!((world.a.unreachable, world.a.initiations), (1, initiations));
    assert!(world.a.peer.is_idle() && world.a.indices.is_empty());
    world.connect();
    world.works();
}

#[test]
fn a_link_that_is_kept_up_is_always_up() {
    let mut world = World::new(Upkeep::Always, Upkeep::Never, true);
    world.settle();
    world.works();
    for _ in 0..3600 {
        world.pass(SECOND, 1000);
        assert!(world.a.peer.is_up() && world.b.peer.is_up());
    }
    world.works();
    assert_eq!(world.b.initiations, 0);
    assert!(
        (29..=31).contains(&world.a.initiations),
        "{}",
        world.a.initiations
    );
    assert!(
        world.a.pings >= 3600 / 30,
        "a NAT in between has forgotten it"
    );
    // A few signs of life an hour, not one a second.
    let cover = world.a.cover + world.b.cover;
    assert!(cover < 600, "{cover}");
    // The guard goes away for an hour and comes back.
    world.pass_cut(SECOND * 3600, 1000);
    assert!(!world.a.peer.is_up());
    assert!(world.a.unreachable > 30);
    world.pass(SECOND * 12, 1000);
    world.works();
}

#[test]
fn a_neighbour_that_lost_everything_is_noticed() {
    for upkeep in [Upkeep::OnDemand, Upkeep::Always] {
        let mut world = World::new(upkeep, Upkeep::Never, true);
        world.a.peer.want();
        world.settle();
        world.works();
        let fresh = Node::new(
            world.b.secret.clone(),
            &world.a.secret,
            Upkeep::Never,
            world.now,
        );
        world.b = fresh;
        let lost = world.now;
        while !world.b.peer.is_up() {
            if upkeep == Upkeep::OnDemand {
                world.a.send(1, world.now);
            }
            world.pass(SECOND, 1000);
            assert!(world.now - lost < SECOND * 40, "not noticed ({upkeep:?})");
        }
        world.works();
        world.agree();
    }
}

#[test]
fn one_way_traffic_is_answered_with_signs_of_life() {
    let mut world = on_demand();
    world.connect();
    for n in 0..100 {
        assert!(world.a.send(n, world.now));
        world.pass(SECOND, 1000);
    }
    assert_eq!(
        world.a.initiations, 1,
        "took a quiet neighbour for a dead one"
    );
    assert!((8..=12).contains(&world.b.cover), "{}", world.b.cover);
    let cover = world.a.cover;
    world.pass(SECOND * 60, 1000);
    assert_eq!(world.a.cover, cover, "cover was answered with cover");
}

#[test]
fn closing_ends_all_on_both_sides() {
    let mut world = World::new(Upkeep::Always, Upkeep::Never, true);
    world.settle();
    world.works();
    world.b.control(&Control::Close);
    world.b.peer.close(world.now);
    world.b.pump(world.now);
    let to_a = std::mem::take(&mut world.b.out);
    to_a.iter().for_each(|d| world.a.receive(d, world.now));
    assert!(world.a.indices.is_empty() && world.b.indices.is_empty());
    assert!(!world.a.peer.is_up() && !world.b.peer.is_up());
    world.pass(SECOND * 4, 1000);
    assert_eq!(world.a.initiations, 1, "does not leave it in peace");
    world.pass(SECOND * 3, 1000);
    world.works();
}

#[test]
fn signs_under_unknown_indices_mean_nothing() {
    let mut world = on_demand();
    world.connect();
    world.a.peer.heard(999, CellKind::Cell, world.now);
    world.pass(SECOND * 11, 1000);
    assert_eq!(world.a.cover, 1, "only the one that confirmed the session");
}

#[test]
fn an_answer_between_two_polls_is_an_answer() {
    let mut world = World::new(Upkeep::OnDemand, Upkeep::Never, true);
    world.connect();
    world.pass(SECOND, 1000);
    // Sent and answered, and only then is the peer asked what to do.
    assert!(world.a.send(1, world.now) && world.b.send(1, world.now));
    let (to_b, to_a) = (world.a.out.remove(0), world.b.out.remove(0));
    world.a.receive(&to_a, world.now);
    world.b.receive(&to_b, world.now);
    world.pass_cut(SECOND * 60, 1000);
    assert_eq!(
        world.a.initiations, 1,
        "took an answered cell for one that is not"
    );
}
