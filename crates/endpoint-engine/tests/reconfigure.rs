//! Settings that change while an endpoint runs: nothing that works is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashSet;
use std::time::Duration;

use mixline_endpoint_engine::command::{Answer, Command, Question};
use mixline_endpoint_engine::status::SessionStatus;
use mixline_endpoint_engine::testing::*;
use mixline_endpoint_engine::{Config, PathPolicy, PolicyRule, QueryError};
use mixline_protocol::path::TailId;

const SECOND: Duration = Duration::from_secs(1);
/// Between two packets of a flow.
const PACE: Duration = Duration::from_millis(20);
const SERVICE: usize = 1;
const CLIENT: usize = 2;

fn reconfigure(world: &mut World, node: usize, change: impl FnOnce(&mut Config)) {
    let mut config = Config::default();
    change(&mut config);
    config.check().unwrap();
    world.command(node, Command::Reconfigure(Box::new(config)));
}

fn published(config: &mut Config) {
    config.accept_sessions = true;
    config.publish = true;
}

/// A flow in both directions, between the client and the service.
#[derive(Default)]
struct Flow {
    number: u16,
    there: usize,
    back: usize,
}

impl Flow {
    /// Lets it go on for so long, and counts what arrives.
    fn go_on(&mut self, world: &mut World, time: Duration) {
        let (client, service) = (world.ipv6(CLIENT), world.ipv6(SERVICE));
        let until = world.now.instant + time;
        while world.now.instant < until {
            self.number += 1;
            let content = self.number.to_be_bytes();
            world.send(CLIENT, &[udp(client, service, (7000, 80), &content)]);
            world.send(SERVICE, &[udp(service, client, (80, 7000), &content)]);
            world.run(PACE);
            self.there += world.take(SERVICE).len();
            self.back += world.take(CLIENT).len();
        }
    }

    /// Makes sure that all packets have arrived, once each.
    fn finish(mut self, world: &mut World) {
        world.run(SECOND);
        self.there += world.take(SERVICE).len();
        self.back += world.take(CLIENT).len();
        let sent = usize::from(self.number);
        assert_eq!((self.there, self.back), (sent, sent));
    }
}

/// Whether somebody who knows nobody yet reaches a node.
fn is_found(world: &mut World, node: usize) -> bool {
    let stranger = world.client(|_| {});
    let (from, to) = (world.ipv6(stranger), world.ipv6(node));
    let packet = udp(from, to, (9, 9), b"anybody there?");
    world.send(stranger, std::slice::from_ref(&packet));
    let arrives = |world: &World| world.nodes[node].received.contains(&packet);
    let found = world.run_until(15 * SECOND, arrives);
    world.nodes[node].received.retain(|other| *other != packet);
    found
}

fn tails_at_the_directory(world: &World, node: usize) -> Option<usize> {
    let id = world.nodes[node].id;
    world.store.services.get(&id).map(|found| found.tails.len())
}

fn tail_ids(world: &World, node: usize) -> HashSet<TailId> {
    let found = &world.store.services[&world.nodes[node].id];
    found.tails.iter().map(|offer| offer.tail.id()).collect()
}

fn session(world: &World) -> SessionStatus {
    world.session(CLIENT, SERVICE)
}

#[test]
fn a_client_can_be_found_from_now_on_and_its_sessions_go_on() {
    let mut world = World::connected(71);
    assert!(!is_found(&mut world, CLIENT));
    let before = session(&world);
    let mut flow = Flow::default();
    flow.go_on(&mut world, SECOND);
    reconfigure(&mut world, CLIENT, published);
    flow.go_on(&mut world, 3 * SECOND);
    assert_eq!(tails_at_the_directory(&world, CLIENT), Some(4));
    assert!(is_found(&mut world, CLIENT));

    // And back: it is told at once, and what there is goes on.
    reconfigure(&mut world, CLIENT, |_| {});
    flow.go_on(&mut world, SECOND);
    assert_eq!(tails_at_the_directory(&world, CLIENT), Some(0));
    assert_eq!(world.status(CLIENT).tails.public, 0);
    assert!(!is_found(&mut world, CLIENT));
    // As often as one likes.
    reconfigure(&mut world, CLIENT, published);
    flow.go_on(&mut world, 3 * SECOND);
    assert!(is_found(&mut world, CLIENT));
    let after = session(&world);
    assert!(after.age_s > before.age_s, "it is the same session");
    flow.finish(&mut world);
}

#[test]
fn a_service_that_withdraws_goes_on_with_those_who_are_there() {
    let mut world = World::connected(72);
    let mut flow = Flow::default();
    flow.go_on(&mut world, SECOND);
    reconfigure(&mut world, SERVICE, |_| {});
    flow.go_on(&mut world, 10 * SECOND);
    assert_eq!(tails_at_the_directory(&world, SERVICE), Some(0));
    assert!(!is_found(&mut world, SERVICE));
    reconfigure(&mut world, SERVICE, published);
    flow.go_on(&mut world, 5 * SECOND);
    assert_eq!(tails_at_the_directory(&world, SERVICE), Some(4));
    assert!(is_found(&mut world, SERVICE));
    flow.finish(&mut world);
}

#[test]
fn a_publication_that_is_asked_for_means_tails_and_none_is_made_while_nobody_is_accepted() {
    let mut world = World::pair(73);
    for length in [2, 4, 3] {
        reconfigure(&mut world, CLIENT, |config| {
            published(config);
            config.tail_length = length;
        });
        // At once, before there are tails of that length.
        let answer = world.ask(CLIENT, Question::Publish);
        assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
        assert_eq!(tails_at_the_directory(&world, CLIENT), Some(4));
        reconfigure(&mut world, CLIENT, |_| {});
        let answer = world.ask(CLIENT, Question::Publish);
        assert!(matches!(answer, Err(QueryError::Refused(_))), "{answer:?}");
        world.run(SECOND);
        assert_eq!(tails_at_the_directory(&world, CLIENT), Some(0));
    }
}

#[test]
fn who_waits_for_a_publication_hears_of_its_end() {
    let mut world = World::pair(74);
    reconfigure(&mut world, CLIENT, published);
    let asked = mixline_endpoint_engine::command::RequestNumber(900);
    world.command(CLIENT, Command::Ask(asked, Question::Publish));
    reconfigure(&mut world, CLIENT, |_| {});
    let answer = world.nodes[CLIENT].answers.remove(&asked);
    assert!(
        matches!(answer, Some(Err(QueryError::Refused(_)))),
        "{answer:?}"
    );
    // What may have reached the directory meanwhile is taken back.
    world.run(5 * SECOND);
    assert_ne!(tails_at_the_directory(&world, CLIENT), Some(4));
}

#[test]
fn a_withdrawal_waits_for_the_directory() {
    let mut world = World::connected(75);
    world.nodes[0].unplugged = true;
    reconfigure(&mut world, SERVICE, |_| {});
    world.run(40 * SECOND);
    assert_eq!(tails_at_the_directory(&world, SERVICE), Some(4));
    world.nodes[0].unplugged = false;
    assert!(world.run_until(90 * SECOND, |world| {
        tails_at_the_directory(world, SERVICE) == Some(0)
    }));
}

#[test]
fn lengths_of_paths_change_under_a_flow() {
    let mut world = World::connected(76);
    let mut flow = Flow::default();
    let heads = |world: &World| -> HashSet<usize> {
        let paths = session(world).paths;
        paths.iter().map(|path| path.head.len()).collect()
    };
    assert_eq!(heads(&world), HashSet::from([3]));
    for length in [4, 2] {
        let before = tail_ids(&world, SERVICE);
        reconfigure(&mut world, CLIENT, |config| {
            config.head_length = length;
            config.tail_length = length;
        });
        reconfigure(&mut world, SERVICE, |config| {
            published(config);
            config.tail_length = length;
            config.public_tails = 2;
        });
        flow.go_on(&mut world, 12 * SECOND);
        assert_eq!(heads(&world), HashSet::from([length]));
        let after = tail_ids(&world, SERVICE);
        assert!(after.len() == 2 && after.is_disjoint(&before));
    }
    // Heads alone.
    reconfigure(&mut world, CLIENT, |config| {
        config.head_length = 3;
        config.tail_length = 2;
    });
    flow.go_on(&mut world, 12 * SECOND);
    assert_eq!(heads(&world), HashSet::from([3]));
    flow.finish(&mut world);
}

#[test]
fn fewer_guards_are_used_and_the_same_ones_again_later() {
    let mut world = World::connected(77);
    let guards = |world: &World| -> Vec<String> {
        let guards = world.status(CLIENT).guards;
        guards.into_iter().map(|guard| guard.relay).collect()
    };
    let before = guards(&world);
    assert_eq!(before.len(), 3);
    let mut flow = Flow::default();
    reconfigure(&mut world, CLIENT, |config| config.guards = 1);
    flow.go_on(&mut world, 150 * SECOND);
    assert_eq!(guards(&world), before[..1]);
    for path in session(&world).paths {
        let relay = world.relay_named(&path.head[0]);
        assert_eq!(world.relays[relay].short.to_string(), before[0]);
    }
    reconfigure(&mut world, CLIENT, |_| {});
    flow.go_on(&mut world, 5 * SECOND);
    assert_eq!(guards(&world), before);
    flow.finish(&mut world);
}

#[test]
fn policies_count_for_flows_that_there_are() {
    let mut world = World::connected(78);
    let cells = |world: &World| {
        session(world)
            .paths
            .iter()
            .map(|path| path.cells)
            .sum::<u64>()
    };
    let mut flow = Flow::default();
    flow.go_on(&mut world, SECOND);
    let one = {
        let before = cells(&world);
        flow.go_on(&mut world, SECOND);
        cells(&world) - before
    };
    reconfigure(&mut world, CLIENT, |config| {
        config.policies = vec![PolicyRule {
            id: None,
            to: None,
            port: Some(80),
            policy: PathPolicy::Duplicate(2),
        }];
    });
    let two = {
        let before = cells(&world);
        flow.go_on(&mut world, SECOND);
        cells(&world) - before
    };
    assert!(two > one + 40, "{one} and {two} cells");
    flow.finish(&mut world);
}
