//! Several directories: a snapshot comes every five minutes, or none for hours.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::testing::internals::tails::receives;
use mixline_endpoint_engine::testing::snapshots::ROUND;
use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);
const SERVICE: usize = 1;
const CLIENT: usize = 2;

/// A network with a service, in which a round has just been published.
fn by_rounds(seed: u64) -> World {
    let mut world = World::new(8, seed);
    world.rounds = true;
    world.publish_snapshot();
    world.run(3 * SECOND);
    world.publish_snapshot();
    world.service();
    world.run(5 * SECOND);
    world
}

/// A client gets a packet through to the service.
fn reaches_the_service(world: &mut World, client: usize) -> bool {
    let (from, to) = (world.ipv6(client), world.ipv6(SERVICE));
    world.send(client, &[udp(from, to, (1, 1), b"hello")]);
    world.run(5 * SECOND);
    !world.take(SERVICE).is_empty()
}

#[test]
fn a_client_that_starts_at_any_time_of_a_round_is_welcome() {
    for after in [0, 100, 200, 290] {
        let mut world = by_rounds(after);
        world.run(Duration::from_secs(after));
        let client = world.client(|_| {});
        assert!(reaches_the_service(&mut world, client), "after {after} s");
    }
}

#[test]
fn a_client_that_starts_while_the_directories_do_not_agree_is_welcome() {
    let mut world = by_rounds(1);
    world.agreed = Some(world.snapshot());
    world.run(40 * 60 * SECOND);
    let client = world.client(|_| {});
    assert!(
        reaches_the_service(&mut world, client),
        "{:#?}",
        world.status(client)
    );
}

#[test]
fn tails_of_a_directory_receive_for_as_long_as_a_snapshot_names_them() {
    let mut world = by_rounds(2);
    let mut replaced = 0;
    let mut named = world.snapshot();
    for second in (10..3 * 3600).step_by(10) {
        world.run(10 * SECOND);
        if second % ROUND == 0 {
            let old = named;
            named = world.snapshot();
            world.publish_snapshot();
            let tails = &named.service().unwrap().tails;
            let before = old.service().unwrap().tails.iter();
            replaced += before.filter(|tail| !tails.contains(tail)).count();
        }
        for offer in &named.service().unwrap().tails {
            let engine = &world.nodes[0].engine;
            assert!(receives(engine, &offer.tail), "after {second} s");
            assert!(offer.alive(world.unix()), "after {second} s");
        }
    }
    assert!(replaced >= 6, "{replaced}");
}

#[test]
fn without_a_directory_in_the_snapshot_questions_wait_and_sessions_go_on() {
    let mut world = by_rounds(3);
    let client = world.client(|_| {});
    assert_eq!(client, CLIENT);
    assert!(reaches_the_service(&mut world, client));
    let mut nobody = (*world.snapshot()).clone();
    nobody.directories.clear();
    world.agreed = Some(nobody.into());
    world.run(Duration::from_secs(ROUND));
    world.publish_snapshot();
    let number = mixline_endpoint_engine::command::RequestNumber(1 << 32);
    let question = mixline_endpoint_engine::command::Question::LookupId(world.nodes[SERVICE].id);
    world.command(
        client,
        mixline_endpoint_engine::command::Command::Ask(number, question),
    );
    world.run(SECOND);
    assert!(reaches_the_service(&mut world, client));
    assert!(!world.nodes[client].answers.contains_key(&number));
    let why = world.status(client).directory.last_error.unwrap();
    assert!(why.contains("how a directory is reached"), "{why}");
    // It is there again.
    world.agreed = None;
    world.publish_snapshot();
    world.run(2 * SECOND);
    assert!(world.nodes[client].answers[&number].is_ok());
}
