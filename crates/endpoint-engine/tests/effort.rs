//! Effort before public-key work: floods of initiations through public tails, and who gets a session
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::command::Command;
use mixline_endpoint_engine::testing::internals::bounds::{ANSWERS_PER_SECOND, MAX_UNCONFIRMED};
use mixline_endpoint_engine::testing::internals::effort::{FALLS_AFTER, LEAST};
use mixline_endpoint_engine::testing::*;
use mixline_protocol::effort::{Effort, Solution};
use mixline_protocol::session::effort;
use mixline_protocol::size::{PAYLOAD, Payload};

const SECOND: Duration = Duration::from_secs(1);
const SERVICE: usize = 1;
const STEP: Duration = Duration::from_millis(20);

/// A service, and newcomers who know nothing of it yet.
fn service_and(newcomers: usize, seed: u64) -> (World, Vec<usize>) {
    let mut world = World::pair(seed);
    let newcomers = (0..newcomers).map(|_| world.client(|_| {})).collect();
    world.run(2 * SECOND);
    (world, newcomers)
}

/// Strangers who want a session each, so many in a second, through all tails by turns.
struct Flood {
    rate: u32,
    spent: Effort,
    sent: usize,
}

impl Flood {
    fn new(rate: u32, spent: Effort) -> Self {
        Self {
            rate,
            spent,
            sent: 0,
        }
    }

    fn step(&mut self, world: &mut World) {
        let count = self.rate as usize * STEP.as_millis() as usize / 1000;
        let payloads = world.initiations(count, SERVICE, self.spent);
        let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
        let tail = &tails.tails[self.sent % tails.tails.len()].tail;
        world.inject_all(&payloads, tail);
        self.sent += 1;
        world.run(STEP);
    }

    fn go_on(&mut self, world: &mut World, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step(world);
        }
    }

    /// How long it takes until the service has a packet of a newcomer, meanwhile: at most 5 s.
    fn reached_by(&mut self, world: &mut World, newcomer: usize) -> Option<Duration> {
        let (from, to) = (world.ipv4(newcomer), world.ipv4(SERVICE));
        world.take(SERVICE);
        world.send(newcomer, &[udp(from, to, (1, 1), b"hello")]);
        let begun = world.now.instant;
        while world.now.instant - begun < 5 * SECOND {
            self.step(world);
            if !world.take(SERVICE).is_empty() {
                return Some(world.now.instant - begun);
            }
        }
        None
    }
}

fn suggested(world: &World) -> Effort {
    world.nodes[SERVICE]
        .descriptor
        .as_ref()
        .unwrap()
        .effort
        .suggested
}

fn answering(world: &World) -> Vec<String> {
    let sessions = world.status(SERVICE).sessions;
    let answering = sessions.into_iter().filter(|it| it.state == "answering");
    answering.map(|it| it.peer).collect()
}

#[test]
fn who_spends_something_gets_in_while_a_flood_that_spends_nothing_lasts() {
    let (mut world, newcomers) = service_and(40, 1);
    // More than are read, and eight times as many as are answered.
    let mut flood = Flood::new(ANSWERS_PER_SECOND * 9, 0);
    flood.go_on(&mut world, 2 * SECOND);
    let mut times: Vec<Duration> = Vec::new();
    for newcomer in &newcomers {
        times.extend(flood.reached_by(&mut world, *newcomer));
        flood.go_on(&mut world, SECOND);
    }
    assert!(suggested(&world) >= LEAST);
    assert!(
        times.len() * 100 >= newcomers.len() * 95,
        "{} of {}: {times:?}",
        times.len(),
        newcomers.len()
    );
}

#[test]
fn who_spends_what_is_suggested_gets_in_while_others_spend_too() {
    let (mut world, newcomers) = service_and(20, 2);
    let mut flood = Flood::new(ANSWERS_PER_SECOND * 2, LEAST);
    flood.go_on(&mut world, 5 * SECOND);
    let mut reached = 0;
    for newcomer in &newcomers {
        reached += usize::from(flood.reached_by(&mut world, *newcomer).is_some());
    }
    assert!(suggested(&world) > LEAST, "{}", suggested(&world));
    assert!(reached * 100 >= newcomers.len() * 95, "{reached}");
}

#[test]
fn in_quiet_times_nothing_is_spent_and_nobody_waits() {
    let (mut world, newcomers) = service_and(10, 3);
    for newcomer in newcomers {
        let (from, to) = (world.ipv4(newcomer), world.ipv4(SERVICE));
        world.send(newcomer, &[udp(from, to, (1, 1), b"hello")]);
        world.run(SECOND);
        assert_eq!(world.take(SERVICE).len(), 1);
        assert_eq!(world.nodes[newcomer].hashes, 0);
    }
    let stranger = world.initiations(1, SERVICE, 0);
    let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
    world.inject_all(&stranger, &tails.tails[0].tail);
    // No timer of the service's is waited for: it is answered as soon as it comes.
    let hops = world.nodes[SERVICE].engine.status(world.now).sessions.len();
    assert!(world.run_until(5 * HOP, |world| {
        world.status(SERVICE).sessions.len() > hops
    }));
    let status = world.status(SERVICE);
    assert_eq!((status.effort.suggested, status.effort.waiting), (0, 0));
    assert_eq!(status.counters.outranked_initiations, 0);
}

#[test]
fn who_loses_an_initiation_spends_little_on_the_next() {
    let (mut world, newcomers) = service_and(1, 4);
    let (from, to) = (world.ipv4(newcomers[0]), world.ipv4(SERVICE));
    world.nodes[SERVICE].dead = true;
    world.send(newcomers[0], &[udp(from, to, (1, 1), b"hello")]);
    world.run(5 * SECOND);
    let hashes = world.nodes[newcomers[0]].hashes;
    assert!((1..1_000_000).contains(&hashes), "{hashes}");
    // It fails as soon as it would without.
    let sessions = world.status(newcomers[0]).sessions;
    let peer = world.nodes[SERVICE].id.to_string();
    assert!(sessions.iter().all(|it| it.peer != peer));
}

#[test]
fn claims_cost_a_hash_and_no_budget() {
    let (mut world, newcomers) = service_and(1, 5);
    let seed = world.nodes[SERVICE].descriptor.clone().unwrap().effort.seed;
    let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
    let before = world.status(SERVICE).counters;
    for round in 0..20u8 {
        let forged: Vec<Payload> = (0..100u8)
            .map(|number| {
                let mut payload = [round; PAYLOAD];
                payload[effort::FRONT] = number;
                let claim = Solution {
                    nonce: [number; 16],
                    effort: u32::MAX,
                };
                effort::write(&seed, &claim, &mut payload);
                payload
            })
            .collect();
        world.inject_all(&forged, &tails.tails[0].tail);
        world.run(STEP);
    }
    let (from, to) = (world.ipv4(newcomers[0]), world.ipv4(SERVICE));
    world.send(newcomers[0], &[udp(from, to, (1, 1), b"hello")]);
    world.run(SECOND);
    assert_eq!(world.take(SERVICE).len(), 1);
    assert_eq!(world.nodes[newcomers[0]].hashes, 0);
    let status = world.status(SERVICE);
    assert_eq!(status.effort.suggested, 0);
    let unsolved = status.counters.unsolved_initiations - before.unsolved_initiations;
    assert_eq!(unsolved, 2000);
}

#[test]
fn those_who_have_spent_least_give_way_to_others() {
    let (mut world, _) = service_and(0, 7);
    let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
    let arrive = |world: &mut World, count: usize, spent| {
        let strangers: Vec<Stranger> = (0..count).map(|_| world.stranger()).collect();
        for (number, stranger) in strangers.iter().enumerate() {
            let payload = world.initiation_of(stranger, SERVICE, spent);
            world.inject(&payload, &tails.tails[number % tails.tails.len()].tail);
            world.run(Duration::from_millis(24));
        }
        strangers
            .iter()
            .map(|it| it.key.anonymous_id().to_string())
            .collect::<Vec<_>>()
    };
    arrive(&mut world, MAX_UNCONFIRMED, 0);
    let before = answering(&world);
    assert!(before.len() >= MAX_UNCONFIRMED - 2, "{}", before.len());
    let paid = arrive(&mut world, MAX_UNCONFIRMED / 2, 1 << 8);
    arrive(&mut world, MAX_UNCONFIRMED, 0);
    let after = answering(&world);
    let there = paid.iter().filter(|it| after.contains(*it)).count();
    assert_eq!(there, paid.len(), "all who have spent something");
    assert!(after.len() <= MAX_UNCONFIRMED);
}

/// Places are few, and who has spent what it was asked for keeps its own, also if it was asked for nothing.
#[test]
fn who_has_spent_less_than_was_asked_for_makes_room_for_others() {
    let places = 14;
    let mut world = World::settled(8, 10);
    world.client(|config| {
        config.accept_sessions = true;
        config.publish = true;
        config.max_sessions = places;
    });
    world.run(5 * SECOND);
    let quiet = world.nodes[SERVICE].descriptor.clone().unwrap();
    let stranger = |world: &mut World| {
        let key = world.random_key();
        world.add(key, |_| {})
    };
    let say = |world: &mut World, node: usize| {
        let (from, to) = (world.ipv6(node), world.ipv6(SERVICE));
        world.send(node, &[udp(from, to, (1, 1), b"here")]);
        world.run(SECOND);
    };
    let [early, cheap, paid, late] = [4, 4, 4, 4].map(|count| {
        let nodes: Vec<usize> = (0..count).map(|_| stranger(&mut world)).collect();
        nodes
    });
    world.run(SECOND);
    early.iter().for_each(|node| say(&mut world, *node));
    Flood::new(ANSWERS_PER_SECOND * 2, 0).go_on(&mut world, 6 * SECOND);
    assert!(suggested(&world) > 0);
    world.run(11 * SECOND);
    for node in cheap.iter().copied() {
        world.command(node, Command::Learn(Box::new((*quiet).clone())));
        say(&mut world, node);
    }
    paid.iter()
        .chain(&late)
        .for_each(|node| say(&mut world, *node));
    let sessions = world.status(SERVICE).sessions;
    let there = |nodes: &[usize]| {
        let there = |node: &&usize| {
            let id = world.nodes[**node].id.to_string();
            let session = sessions.iter().find(|it| it.peer == id);
            session.is_some_and(|it| it.state == "established")
        };
        nodes.iter().filter(there).count()
    };
    let counts = [&early, &paid, &late].map(|nodes| there(nodes));
    assert_eq!(counts, [4, 4, 4], "{} cheap ones", there(&cheap));
    assert!(there(&cheap) < 4);
}

#[test]
fn what_is_suggested_rises_with_the_load_and_falls_again() {
    let (mut world, newcomers) = service_and(1, 8);
    assert_eq!(suggested(&world), 0);
    let id = world.nodes[SERVICE].id;
    let published = |world: &World| world.store.services[&id].effort.suggested;
    let mut flood = Flood::new(ANSWERS_PER_SECOND * 2, 0);
    flood.go_on(&mut world, 8 * SECOND);
    assert_eq!(suggested(&world), LEAST, "who spends nothing is outranked");
    assert_eq!(published(&world), LEAST);
    let mut flood = Flood::new(ANSWERS_PER_SECOND * 2, LEAST);
    flood.go_on(&mut world, 8 * SECOND);
    assert!(published(&world) > LEAST);
    world.run(FALLS_AFTER * 4 + 80 * SECOND);
    assert_eq!((suggested(&world), published(&world)), (0, 0));
    // Who has known the descriptor of then spends what it says, and who asks now spends nothing.
    let (from, to) = (world.ipv4(newcomers[0]), world.ipv4(SERVICE));
    world.take(SERVICE);
    world.send(newcomers[0], &[udp(from, to, (1, 1), b"hello")]);
    world.run(SECOND);
    assert_eq!(world.take(SERVICE).len(), 1);
    assert_eq!(world.nodes[newcomers[0]].hashes, 0);
}

/// Who has driven the suggestion up does not keep it there with what costs nothing.
#[test]
fn a_few_who_spend_nothing_now_and_then_do_not_keep_up_what_is_suggested() {
    let (mut world, _) = service_and(0, 11);
    Flood::new(ANSWERS_PER_SECOND * 2, 0).go_on(&mut world, 5 * SECOND);
    Flood::new(ANSWERS_PER_SECOND * 2, LEAST).go_on(&mut world, 5 * SECOND);
    assert!(suggested(&world) > LEAST);
    let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
    let mut waited = 0;
    for _ in 0..10 {
        world.run(FALLS_AFTER - SECOND);
        let burst = world.initiations(16, SERVICE, 0);
        world.inject_all(&burst, &tails.tails[0].tail);
        for _ in 0..50 {
            world.run(STEP);
            waited = waited.max(world.status(SERVICE).effort.waiting);
        }
    }
    assert!(waited > 0, "some have to wait");
    assert!(suggested(&world) <= LEAST, "{}", suggested(&world));
}

/// Nor do those who spend what is suggested, as long as the service has time for all of them.
#[test]
fn visitors_who_are_served_at_once_do_not_keep_each_other_paying() {
    let (mut world, _) = service_and(0, 12);
    Flood::new(ANSWERS_PER_SECOND * 2, 0).go_on(&mut world, 3 * SECOND);
    Flood::new(ANSWERS_PER_SECOND * 2, LEAST).go_on(&mut world, 3 * SECOND);
    let before = suggested(&world);
    assert!(before > LEAST);
    world.run(3 * SECOND);
    let tails = world.nodes[SERVICE].descriptor.clone().unwrap();
    let outranked = world.status(SERVICE).counters.outranked_initiations;
    let (mut waited, end) = (0, world.now.instant + FALLS_AFTER * 6);
    while world.now.instant < end {
        let visitors = world.initiations(16, SERVICE, suggested(&world));
        world.inject_all(&visitors, &tails.tails[0].tail);
        for _ in 0..50 {
            world.run(STEP);
            waited += usize::from(world.status(SERVICE).effort.waiting > 0);
        }
    }
    assert!(waited > 50, "some find others before them: {waited}");
    let after = world.status(SERVICE).counters.outranked_initiations;
    assert_eq!(after, outranked, "all are served");
    assert!(suggested(&world) < before, "{}", suggested(&world));
}

#[test]
fn seeds_change_and_whoever_knows_the_one_before_is_heard() {
    let (mut world, newcomers) = service_and(2, 9);
    let reach = |world: &mut World, newcomer: usize| {
        let (from, to) = (world.ipv4(newcomer), world.ipv4(SERVICE));
        world.take(SERVICE);
        world.send(newcomer, &[udp(from, to, (1, 1), b"hello")]);
        world.run(SECOND);
        world.take(SERVICE).len()
    };
    let first = world.nodes[SERVICE].descriptor.clone().unwrap();
    let late = world.initiations(1, SERVICE, 0);
    for _ in 0..8 {
        world.run(450 * SECOND);
        for node in [SERVICE, newcomers[0], newcomers[1]] {
            world.renew_lease(node);
        }
        world.publish_snapshot();
    }
    world.run(20 * SECOND);
    let second = world.nodes[SERVICE].descriptor.clone().unwrap();
    assert_ne!(first.effort.seed, second.effort.seed);
    let refused = world.status(SERVICE).counters.unsolved_initiations;
    world.inject_all(&late, &second.tails[0].tail);
    world.run(SECOND);
    let after = world.status(SERVICE).counters.unsolved_initiations;
    assert_eq!(after, refused, "it was solved for a seed that is good");
    assert_eq!(reach(&mut world, newcomers[0]), 1);
}
