//! What is done at once, and in which order, when relays have started anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use mixline_endpoint_engine::command::{Answer, Question};
use mixline_endpoint_engine::testing::relay::Malice;
use mixline_endpoint_engine::testing::*;

use downloads::{Download, MILLISECOND, SECOND};

mod downloads;

const SERVICE: usize = 1;
const CLIENT: usize = 2;

/// A service with a connection, one guard of which has just died, and that guard.
fn without_a_guard(seed: u64) -> (Download, usize) {
    let mut it = Download::connected(seed);
    let name = it.world.status(SERVICE).guards[0].name.clone();
    let guard = it.world.relay_named(&name);
    it.world.relays[guard].malice = Malice::Dead;
    it.run(400 * MILLISECOND);
    it.world.relays[guard].registrations.clear();
    (it, guard)
}

/// Whether a guard has been told of the service's mailboxes, as it is when a link is made anew.
fn is_told(it: &Download, guard: usize) -> bool {
    let told = &it.world.relays[guard].registrations;
    told.contains_key(&it.world.nodes[SERVICE].address)
}

#[test]
fn a_guard_that_the_snapshot_lists_with_other_keys_gets_a_handshake_at_once() {
    let (mut it, guard) = without_a_guard(1);
    it.world.restart(guard);
    it.run(600 * MILLISECOND);
    assert!(!is_told(&it, guard), "it does not know yet");
    it.world.publish_snapshot();
    it.run(100 * MILLISECOND);
    assert!(is_told(&it, guard));
}

#[test]
fn a_guard_that_is_silent_gets_a_handshake_before_it_counts_as_dead() {
    let (mut it, guard) = without_a_guard(2);
    it.world.restart_in_order(guard);
    it.run(1900 * MILLISECOND);
    assert!(is_told(&it, guard));
}

#[test]
fn a_guard_that_is_heard_gets_no_other_handshake() {
    let mut it = Download::connected(3);
    let before: Vec<usize> = efforts(&it);
    // As if all had changed their keys in an orderly way.
    it.world.publish_snapshot();
    it.run(5 * SECOND);
    assert_eq!(efforts(&it), before);
}

/// Handshakes that relays have answered.
fn efforts(it: &Download) -> Vec<usize> {
    let relays = it.world.relays.iter();
    relays.map(|relay| relay.efforts.len()).collect()
}

/// The directory's session has been idle, and what both ends know of one another leads nowhere any more.
#[test]
fn a_question_to_the_directory_is_answered_within_a_second_whatever_has_failed_meanwhile() {
    let mut world = World::connected(4);
    let service = world.nodes[SERVICE].id;
    let asked = world.ask(CLIENT, Question::LookupId(service));
    assert!(matches!(asked, Ok(Answer::Descriptor(Some(_)))));
    world.run(10 * SECOND);
    for node in [0, CLIENT] {
        world.nodes[node].engine.lose_private_tails();
    }
    world.run(SECOND);
    let before = world.now.instant;
    let asked = world.ask(CLIENT, Question::LookupId(service));
    assert!(matches!(asked, Ok(Answer::Descriptor(Some(_)))));
    let took = world.now.instant - before;
    assert!(took < 800 * MILLISECOND, "{took:?}");
}
