//! Floods: everything that an outsider can make grow has an end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mixline_endpoint_engine::command::{Command, Question, RequestNumber};
use mixline_endpoint_engine::outbox::OUTBOX;
use mixline_endpoint_engine::testing::internals::bounds::{
    ANSWERS_BURST, ANSWERS_PER_SECOND, InitiationReplayCache, MAX_UNCONFIRMED, MAX_UNREACHABLE,
    TRIES_BURST,
};
use mixline_endpoint_engine::testing::internals::packets::{
    BURST, LOOKUPS_BURST, LOOKUPS_PER_SECOND, MAX_HELD, MAX_LOOKUPS, PER_SECOND,
};
use mixline_endpoint_engine::testing::internals::tails::private;
use mixline_endpoint_engine::testing::*;
use mixline_endpoint_engine::{MAX_QUERIES, PacketBatch, QueryError};
use mixline_protocol::directory::RequestBody;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::session::{Control, TIMESTAMP_TOLERANCE_MS};
use mixline_protocol::size::{DATAGRAM, PAYLOAD, Payload};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn garbage_from_the_network_is_counted_and_answered_by_nothing() {
    let mut world = World::connected(1);
    let before = world.sent;
    let sessions = world.status(1).sessions.len();
    for number in 0..3000u32 {
        let mut datagram = [0; DATAGRAM];
        for (at, byte) in datagram.iter_mut().enumerate() {
            *byte = (number as usize * 31 + at * 17) as u8;
        }
        // All types, plausible headers among them.
        datagram[0] = (number % 6) as u8;
        datagram[1..4].fill(0);
        world.nodes[1]
            .engine
            .handle_datagram(&mut datagram, world.now);
    }
    world.nodes[1].engine.finish_batch(world.now);
    world.drain(1);
    assert!(world.status(1).counters.bad_datagrams >= 2500);
    assert!(world.sent - before < 50);
    assert_eq!(world.status(1).sessions.len(), sessions);
}

#[test]
fn a_scan_of_the_virtual_network_is_not_a_flood_of_questions() {
    let mut world = World::pair(2);
    let client = world.ipv6(2);
    for round in 0..200u16 {
        let packets: Vec<Vec<u8>> = (0..20u16)
            .map(|n| {
                let nobody = Ipv6Addr::new(0xfd77, round, n, 0, 0, 0, 0, 1);
                udp(client, nobody, (1, 2), &[1; 900])
            })
            .collect();
        world.send(2, &packets);
        world.run(Duration::from_millis(20));
    }
    let asked = world
        .store
        .log
        .iter()
        .filter(|(_, body)| matches!(body, RequestBody::LookupAddress(_)))
        .count();
    // 4 s; each question may have been repeated.
    let most = (LOOKUPS_BURST + 5 * LOOKUPS_PER_SECOND) as usize;
    assert!(
        (MAX_LOOKUPS..2 * most).contains(&asked),
        "{asked} questions"
    );
    assert!(world.status(2).directory.pending <= MAX_LOOKUPS);
    // And the answers are bounded, too.
    let answers = world.take(2).len();
    assert!(
        answers <= (BURST + 5 * PER_SECOND) as usize,
        "{answers} answers"
    );
    assert!(world.status(2).counters.unreachable >= 3000);
    const { assert!(MAX_UNREACHABLE < 4000) };
}

#[test]
fn packets_that_wait_are_few() {
    let mut world = World::pair(3);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.nodes[1].dead = true;
    for n in 0..1000u16 {
        world.send(2, &[udp(client, service, (1, n), &[1; 100])]);
    }
    world.run(6 * SECOND);
    let counters = world.status(2).counters;
    assert!(counters.overflow >= 1000 - MAX_HELD as u64);
    assert!(world.take(2).len() <= MAX_HELD + 10);
}

#[test]
fn questions_have_a_bound() {
    let mut world = World::pair(4);
    world.nodes[0].dead = true;
    let count = MAX_QUERIES as u64 + 50;
    for n in 0..count {
        let question = Question::LookupId(AnonymousId([n as u8; 32]));
        let command = Command::Ask(RequestNumber(n), question);
        world.nodes[2].engine.handle_command(command, world.now);
    }
    world.drain(2);
    let answers = &world.nodes[2].answers;
    let busy = answers
        .values()
        .filter(|outcome| matches!(outcome, Err(QueryError::Busy)))
        .count();
    assert!((50..60).contains(&busy), "{busy}");
    // Packets to an address that cannot be asked for are rejected; none waits for ever.
    let stranger: Ipv6Addr = "fd00::1234".parse().unwrap();
    let packet = udp(world.ipv6(2), stranger, (1, 2), &[1; 100]);
    for _ in 0..2 {
        world.send(2, std::slice::from_ref(&packet));
        let answers = world.take(2);
        assert_eq!(answers.len(), 1, "an ICMP error");
        assert_eq!(kind_of(&answers[0]).0, 58);
    }
    world.run(15 * SECOND);
    // All have ended by now, in one way or the other.
    assert_eq!(world.nodes[2].answers.len() as u64, count);
}

/// Handshake payloads of strangers, who never say anything more.
fn strangers(world: &mut World, count: usize) -> Vec<Payload> {
    world.initiations(count, 1, 0)
}

#[test]
fn strangers_who_never_come_back_are_forgotten() {
    let mut world = World::connected(5);
    let service = world.nodes[1].descriptor.clone().unwrap();
    let before = world.status(1);
    let count = 300;
    let payloads = strangers(&mut world, count);
    for (n, payload) in payloads.iter().enumerate() {
        world.inject(payload, &service.tails[n % service.tails.len()].tail);
        // Faster than it is willing to answer.
        world.run(Duration::from_millis(5));
        let waiting = world
            .status(1)
            .sessions
            .iter()
            .filter(|s| s.state == "answering")
            .count();
        assert!(waiting <= MAX_UNCONFIRMED);
    }
    let status = world.status(1);
    let answered = ANSWERS_BURST + 2 * ANSWERS_PER_SECOND;
    assert!(
        status.counters.refused_initiations - before.counters.refused_initiations
            + status.effort.waiting as u64
            >= u64::from(count as u32 - answered),
        "{status:#?}"
    );
    // Who was there is still served.
    let (client, there) = (world.ipv4(2), world.ipv4(1));
    world.take(1);
    world.send(2, &[udp(client, there, (1, 2), b"still here")]);
    world.run(SECOND);
    assert_eq!(world.take(1).len(), 1);
    world.run(15 * SECOND);
    assert_eq!(
        world
            .status(1)
            .sessions
            .iter()
            .filter(|s| s.state == "answering")
            .count(),
        0
    );
    let tails = world.status(1).tails;
    assert!(tails.private <= 8, "{tails:?}");
}

#[test]
fn a_flood_through_a_public_tail_costs_a_bounded_number_of_tries() {
    let mut world = World::connected(6);
    let service = world.nodes[1].descriptor.clone().unwrap();
    for n in 0..1000u32 {
        let mut payload = [0; PAYLOAD];
        payload[..4].copy_from_slice(&n.to_be_bytes());
        world.inject(&payload, &service.tails[0].tail);
    }
    world.run(Duration::from_millis(200));
    let counters = world.status(1).counters;
    assert!(counters.refused_initiations >= 1000, "{counters:#?}");
    const { assert!(TRIES_BURST < 200) };
    assert!(world.status(1).sessions.len() <= 4);
}

#[test]
fn an_initiation_is_answered_once() {
    let mut world = World::connected(7);
    let service = world.nodes[1].descriptor.clone().unwrap();
    let payload = strangers(&mut world, 1).remove(0);
    let refused = |world: &World| world.status(1).counters.refused_initiations;
    let before = refused(&world);
    world.inject(&payload, &service.tails[0].tail);
    world.run(Duration::from_millis(100));
    assert_eq!(refused(&world), before);
    // The same through another tail, where no relay has seen it; and later, when the session
    // that it made is forgotten.
    for wait in [Duration::ZERO, 30 * SECOND] {
        world.run(wait);
        let tails = world.nodes[1].descriptor.clone().unwrap().tails.clone();
        world.inject(&payload, &tails[1].tail);
        world.run(Duration::from_millis(100));
        for relay in &mut world.relays {
            relay.forget_replays();
        }
    }
    assert_eq!(refused(&world), before + 2);
}

#[test]
fn timestamps_are_remembered_as_long_as_they_are_good() {
    let world = World::new(1, 8);
    let mut now = world.now;
    let mut initiation_replays = InitiationReplayCache::default();
    let id = AnonymousId([1; 32]);
    assert!(initiation_replays.admit(id, now.unix_ms, now));
    assert!(!initiation_replays.admit(id, now.unix_ms, now));
    assert!(!initiation_replays.admit(id, now.unix_ms - 1, now));
    assert!(initiation_replays.admit(id, now.unix_ms + 1, now));
    let first = now.unix_ms + 1;
    // Others come and go until the timestamp is too old to be accepted by anybody.
    for minute in 0..11 {
        assert!(
            !initiation_replays.admit(id, first, now),
            "after {minute} minutes"
        );
        now.unix_ms += 60_000;
        now.instant += 60 * SECOND;
        if now.unix_ms > first + TIMESTAMP_TOLERANCE_MS {
            break;
        }
    }
}

#[test]
fn a_peer_cannot_make_us_answer_more_than_so_many_probes() {
    let mut world = World::connected(9);
    let before = world.status(1).counters.cells_out;
    let body = |id| Control::Probe { id }.encode().unwrap();
    // A hundred probes a cell, and two hundred cells.
    for n in 0..200u32 {
        let probes: Vec<Vec<u8>> = (0..100).map(|m| body(1_000_000 + n * 100 + m)).collect();
        world.nodes[2].engine.inject_controls(&probes, world.now);
        world.nodes[2].engine.finish_batch(world.now);
        world.drain(2);
        world.run(Duration::from_millis(5));
    }
    let cells = world.status(1).counters.cells_out - before;
    assert!(cells < 500, "{cells} cells in answer to 20000 probes");
}

#[test]
fn what_the_sockets_do_not_take_is_dropped() {
    let mut world = World::connected(10);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let mut batch = PacketBatch::new();
    while batch.push(&udp(client, service, (1, 2), &[1; 1000])) {}
    let engine = &mut world.nodes[2].engine;
    // The driver would not do this: it empties the outbox first.
    let mut at = engine.handle_packets(&batch, 0, world.now);
    assert!(at < batch.len(), "it asks for the outbox to be emptied");
    for _ in 0..1000 {
        at = engine
            .handle_packets(&batch, at, world.now)
            .min(batch.len() - 1);
        engine.finish_batch(world.now);
    }
    assert!(engine.outbox().waiting().count() <= OUTBOX);
}

#[test]
fn a_broadcast_of_addresses_is_not_mistaken_for_a_peer() {
    let mut world = World::connected(11);
    // From addresses of all kinds to all kinds: nothing of it comes out anywhere.
    let addresses: Vec<IpAddr> = vec![
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        world.ipv4(1).into(),
        "10.0.0.53".parse().unwrap(),
        "10.0.0.0".parse().unwrap(),
        "169.254.0.1".parse().unwrap(),
    ];
    for from in &addresses {
        for to in &addresses {
            world.send(2, &[udp(*from, *to, (1, 2), b"x")]);
        }
    }
    world.send(
        2,
        &[
            vec![],
            vec![0x45],
            vec![0x60; 39],
            vec![0xff; 100],
            vec![0x4f; 40],
        ],
    );
    world.run(SECOND);
    assert!(world.take(1).is_empty());
}

#[test]
fn a_flood_through_public_tails_takes_nothing_from_what_was_begun_here_or_from_peers() {
    let mut world = World::connected(12);
    let others: Vec<usize> = (0..8).map(|_| world.service()).collect();
    world.run(5 * SECOND);
    let (flooded, client) = (1, 2);
    let tails = world.nodes[flooded]
        .descriptor
        .clone()
        .unwrap()
        .tails
        .clone();
    let rekeyed = world.nodes[client].engine.keyed(&world.nodes[flooded].id);
    // Four thousand in a second.
    let flood = |world: &mut World, time: Duration| {
        for step in 0..time.as_millis() / 5 {
            let tail = &tails[usize::try_from(step).unwrap() % tails.len()].tail;
            world.flood(20, tail);
            world.run(Duration::from_millis(5));
        }
    };
    flood(&mut world, SECOND / 2);
    // It opens sessions, and asks the directory whose addresses those are.
    let from = world.ipv4(flooded);
    let mut reached = 0;
    for other in &others {
        let to = world.ipv4(*other);
        world.send(flooded, &[udp(from, to, (1, 1), b"hello")]);
        flood(&mut world, Duration::from_millis(800));
        reached += world.take(*other).len();
    }
    assert!(reached >= 7, "{reached} of {} sessions", others.len());
    // And its peer makes new keys.
    world.nodes[client].engine.rekey_soon();
    flood(&mut world, 7 * SECOND);
    let now = world.nodes[client].engine.keyed(&world.nodes[flooded].id);
    assert!(now > rekeyed, "no new keys");
}

#[test]
fn a_flood_of_valid_initiations_keeps_nobody_out_below_what_is_answered() {
    let mut world = World::connected(13);
    let (flooded, client) = (1, 2);
    let tails = world.nodes[flooded].descriptor.clone().unwrap();
    let tails = tails.tails.clone();
    // So many in a second, each of an ID of its own.
    let flood = |world: &mut World, rate: u32, time: Duration| {
        let every = SECOND / rate;
        for step in 0..time.as_millis() / every.as_millis() {
            let tail = &tails[usize::try_from(step).unwrap() % tails.len()].tail;
            let payload = strangers(world, 1).remove(0);
            world.inject(&payload, tail);
            world.run(every);
        }
    };
    let newcomers: Vec<usize> = (0..5).map(|_| world.client(|_| {})).collect();
    world.run(2 * SECOND);
    let to = world.ipv4(flooded);
    world.take(flooded);
    for newcomer in newcomers {
        let from = world.ipv4(newcomer);
        world.send(newcomer, &[udp(from, to, (1, 1), b"hello")]);
        flood(&mut world, ANSWERS_PER_SECOND * 4 / 5, 2 * SECOND);
        assert_eq!(world.take(flooded).len(), 1);
    }
    // Above that they are drawn by arrival. Peers and what was begun here have budgets of their own.
    let rekeyed = world.nodes[client].engine.keyed(&world.nodes[flooded].id);
    flood(&mut world, ANSWERS_PER_SECOND * 4, SECOND);
    world.nodes[client].engine.rekey_soon();
    flood(&mut world, ANSWERS_PER_SECOND * 4, 6 * SECOND);
    let now = world.nodes[client].engine.keyed(&world.nodes[flooded].id);
    assert!(now > rekeyed, "no new keys");
    let waiting = world.status(flooded).sessions;
    let waiting = waiting.iter().filter(|it| it.state == "answering").count();
    assert!(waiting <= MAX_UNCONFIRMED);
}

/// Who begins, and is not heard of any more, takes no place of those who are there.
#[test]
fn initiations_alone_take_no_place() {
    let mut world = World::settled(8, 14);
    let places = 12;
    world.client(|config| {
        config.accept_sessions = true;
        config.publish = true;
        config.max_sessions = places;
    });
    world.run(5 * SECOND);
    let clients: Vec<usize> = (0..places - 1).map(|_| world.client(|_| {})).collect();
    world.run(2 * SECOND);
    let to = world.ipv4(1);
    for client in &clients {
        let from = world.ipv4(*client);
        world.send(*client, &[udp(from, to, (1, 1), b"hello")]);
    }
    world.run(3 * SECOND);
    assert_eq!(world.take(1).len(), clients.len());
    let tails = world.nodes[1].descriptor.clone().unwrap().tails.clone();
    for (n, payload) in strangers(&mut world, 40).iter().enumerate() {
        world.inject(payload, &tails[n % tails.len()].tail);
        world.run(Duration::from_millis(50));
    }
    let sessions = world.status(1).sessions;
    let waiting = sessions.iter().filter(|it| it.state == "answering").count();
    assert!(waiting > 20, "{waiting}");
    for client in clients {
        let id = world.nodes[client].id.to_string();
        let there = sessions.iter().find(|it| it.peer == id);
        assert!(there.is_some_and(|it| it.state == "established"));
    }
}

#[test]
fn what_authenticates_alone_speaks_for_the_relays_of_a_tail() {
    let mut world = World::connected(31);
    // Over its own tails: a guard that sees mailboxes could do the same.
    for number in 0..4 {
        // Keys are not new, and nobody looks for the peer.
        world.run(6 * SECOND);
        (world.nodes[0].unplugged, world.nodes[2].unplugged) = (true, true);
        world.run(SECOND / 5);
        let tail = private(&world.nodes[1].engine)[number].0;
        let before = world.status(1).counters.bad_cells;
        let began = world.now.instant;
        let came = |world: &World| world.status(1).counters.bad_cells > before;
        // A relay passes nothing to itself, and the one in front may be the tail's first.
        let arrived = (0..4).any(|number| {
            world.inject(&[number; PAYLOAD], &tail);
            world.run_until(SECOND / 8, came)
        });
        assert!(arrived);
        let heard = private(&world.nodes[1].engine);
        let (_, at) = heard
            .iter()
            .find(|(it, _)| it.id() == tail.id())
            .expect("the tail is there");
        assert!(at.is_none_or(|at| at < began), "garbage was heard");
        (world.nodes[0].unplugged, world.nodes[2].unplugged) = (false, false);
    }
    // Packets of the peer's are heard.
    let began = world.now.instant;
    for _ in 0..20 {
        let packet = udp(world.ipv4(2), world.ipv4(1), (7, 7), b"heard");
        world.send(2, &[packet]);
        world.run(SECOND / 4);
    }
    let heard = private(&world.nodes[1].engine);
    assert!(heard.iter().any(|(_, at)| at.is_some_and(|at| at > began)));
}
