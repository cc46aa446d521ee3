//! Client and service over eight relays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashSet;
use std::time::Duration;

use mixline_endpoint_engine::QueryError;
use mixline_endpoint_engine::command::{Answer, Command, Question};
use mixline_endpoint_engine::status::Event;
use mixline_endpoint_engine::testing::*;
use mixline_protocol::directory::RequestBody;
use mixline_protocol::name::Label;
use mixline_protocol::records::Lease;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_packet_goes_there_and_back() {
    let mut world = World::pair(1);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let there = udp(client, service, (1000, 2000), b"ping");
    world.send(2, std::slice::from_ref(&there));
    assert!(
        world.run_until(2 * SECOND, |world| !world.nodes[1].received.is_empty()),
        "{:#?}",
        world.status(2)
    );
    assert_eq!(world.take(1), [there]);
    let back = udp(service, client, (2000, 1000), b"pong");
    world.send(1, std::slice::from_ref(&back));
    world.run(SECOND);
    assert_eq!(world.take(2), [back]);

    let (client, service) = (world.ipv6(2), world.ipv6(1));
    let there = udp(client, service, (1000, 2000), &[7; 1400]);
    world.send(2, std::slice::from_ref(&there));
    world.run(SECOND);
    assert_eq!(world.take(1), [there]);
}

#[test]
fn packets_of_all_sizes_arrive_whole_and_in_order() {
    let mut world = World::connected(2);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let lengths = [0, 1, 500, 980, 1008, 1009, 1010, 1472, 4000, 8972, 20_000];
    let packets: Vec<Vec<u8>> = lengths
        .iter()
        .map(|l| udp(client, service, (9, 9), &vec![*l as u8; *l]))
        .collect();
    world.send(2, &packets);
    world.run(SECOND);
    assert_eq!(world.take(1), packets);
}

#[test]
fn bad_weather_costs_packets_and_corrupts_none() {
    let mut world = World::connected(3);
    world.weather = Weather {
        loss: 0.005,
        repeat: 0.05,
        jitter: Duration::from_millis(20),
        ..Weather::default()
    };
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let mut sent = HashSet::new();
    for round in 0..100u16 {
        let packets: Vec<Vec<u8>> = (0..5u16)
            .map(|n| udp(client, service, (round, n), &[round as u8; 1400]))
            .collect();
        sent.extend(packets.iter().cloned());
        world.send(2, &packets);
        world.run(Duration::from_millis(20));
    }
    world.run(SECOND);
    let got = world.take(1);
    let different: HashSet<_> = got.iter().cloned().collect();
    assert_eq!(different.len(), got.len(), "no packet twice");
    assert!(different.is_subset(&sent), "no packet that was not sent");
    // Each takes one to two cells over seven wires.
    assert!(got.len() > 350, "{} of 500", got.len());
    assert!(world.status(1).counters.duplicates + world.status(1).counters.link_replays > 0);
    assert!(world.relays.iter().map(|relay| relay.replays).sum::<u64>() > 0);
}

#[test]
fn a_malicious_relay_delivers_nothing_wrong() {
    for malice in [relay::Malice::Flip, relay::Malice::Replay] {
        let mut world = World::connected(4);
        // One that is in the middle of a path.
        let name = world.session(2, 1).paths[0].head[1].clone();
        let at = world.relay_named(&name);
        world.relays[at].malice = malice;
        let (client, service) = (world.ipv4(2), world.ipv4(1));
        let mut sent = HashSet::new();
        for round in 0..400u16 {
            let packet = udp(client, service, (round, 5), &[3; 600]);
            sent.insert(packet.clone());
            world.send(2, &[packet]);
            world.run(Duration::from_millis(10));
        }
        world.run(SECOND);
        let got = world.take(1);
        let different: HashSet<_> = got.iter().cloned().collect();
        assert_eq!(different.len(), got.len(), "no packet twice");
        assert!(different.is_subset(&sent), "no packet that was not sent");
        let counters = world.status(1).counters;
        let seen_again: u64 = world.relays.iter().map(|relay| relay.replays).sum();
        match malice {
            relay::Malice::Flip => {
                // What it touches becomes noise, and the paths through it die.
                assert!(counters.bad_cells > 0);
                assert!(world.status(2).counters.paths_lost > 0);
                assert!(got.len() > 200, "{}", got.len());
            }
            _ => {
                assert!(seen_again + counters.duplicates > 100);
                assert_eq!(got.len(), 400, "replays harm nobody");
            }
        }
    }
}

#[test]
fn an_address_of_nobody_is_refused_at_once() {
    let mut world = World::pair(5);
    let client = world.ipv4(2);
    let nobody: std::net::Ipv4Addr = "10.200.1.1".parse().unwrap();
    let packet = udp(client, nobody, (1, 2), b"?");
    world.send(2, std::slice::from_ref(&packet));
    assert!(world.run_until(2 * SECOND, |world| !world.nodes[2].received.is_empty()));
    let answer = world.take(2).remove(0);
    assert_eq!(kind_of(&answer), (1, Some((3, 1))));
    assert_eq!(
        &answer[28..28 + packet.len()],
        &packet[..],
        "it quotes the packet"
    );
    let asked = |world: &World| {
        let asks = |body: &RequestBody| matches!(body, RequestBody::LookupAddress(_));
        world
            .store
            .log
            .iter()
            .filter(|(_, body)| asks(body))
            .count()
    };
    assert_eq!(asked(&world), 1);
    // The second one at once, and without a question.
    world.send(2, std::slice::from_ref(&packet));
    assert_eq!(world.take(2).len(), 1);

    let client = world.ipv6(2);
    let nobody: std::net::Ipv6Addr = "fd12::1".parse().unwrap();
    world.send(2, &[udp(client, nobody, (1, 2), b"?")]);
    assert!(world.run_until(2 * SECOND, |world| !world.nodes[2].received.is_empty()));
    assert_eq!(kind_of(&world.take(2)[0]), (58, Some((1, 3))));
    assert_eq!(asked(&world), 2);

    // Not even a question for what is not virtual, or is for many.
    let quad: std::net::Ipv4Addr = "192.0.2.1".parse().unwrap();
    world.send(2, &[udp(world.ipv4(2), quad, (1, 2), b"?")]);
    assert_eq!(kind_of(&world.take(2)[0]), (1, Some((3, 1))));
    for many in ["224.0.0.251", "10.255.255.255", "255.255.255.255"] {
        let many: std::net::Ipv4Addr = many.parse().unwrap();
        world.send(2, &[udp(world.ipv4(2), many, (1, 2), b"?")]);
    }
    let many: std::net::Ipv6Addr = "ff02::2".parse().unwrap();
    world.send(2, &[udp(world.ipv6(2), many, (1, 2), b"?")]);
    world.run(SECOND);
    assert!(world.take(2).is_empty());
    assert_eq!(asked(&world), 2);
}

#[test]
fn a_packet_from_a_foreign_address_does_not_leave() {
    let mut world = World::connected(6);
    let (service, foreign) = (
        world.ipv4(1),
        "10.1.2.3".parse::<std::net::Ipv4Addr>().unwrap(),
    );
    world.send(2, &[udp(foreign, service, (1, 2), b"x")]);
    assert_eq!(kind_of(&world.take(2)[0]), (1, Some((3, 13))));
    world.run(SECOND);
    assert!(world.take(1).is_empty());
}

#[test]
fn a_peer_can_use_no_address_but_its_own() {
    let mut world = World::connected(7);
    let (service, own) = (world.ipv4(1), world.ipv4(2));
    // The client gets another lease, of which the service has not heard.
    let id = world.nodes[2].id;
    let other: std::net::Ipv4Addr = "10.77.77.77".parse().unwrap();
    let lease = Lease::grant(other, id, world.unix().plus(9000), &world.directory_key);
    world.command(2, Command::SetLease(Box::new(lease)));
    world.send(
        2,
        &[udp(
            other,
            service,
            (1, 2),
            b"from an address that it does not know",
        )],
    );
    world.run(Duration::from_millis(100));
    assert!(world.take(1).is_empty());
    assert_eq!(world.status(1).counters.spoofed, 1);
    assert_ne!(own, other);
    // It hears of it by a new handshake.
    world.run(10 * SECOND);
    let packet = udp(other, service, (1, 2), b"now it does");
    world.send(2, std::slice::from_ref(&packet));
    world.run(SECOND);
    assert_eq!(world.take(1), [packet]);
}

#[test]
fn a_forged_lease_opens_nothing() {
    let mut world = World::pair(8);
    let (service, id) = (world.ipv4(1), world.nodes[2].id);
    let victim = "10.9.9.9".parse().unwrap();
    let forger = world.random_key();
    let forged = Lease::grant(victim, id, world.unix().plus(9000), &forger);
    world.command(2, Command::SetLease(Box::new(forged)));
    world.send(2, &[udp(victim, service, (1, 2), b"x")]);
    world.run(6 * SECOND);
    assert!(world.take(1).is_empty());
    assert!(
        world
            .status(1)
            .sessions
            .iter()
            .all(|session| session.peer != id.to_string())
    );
    assert!(world.status(1).counters.refused_initiations > 0);
    assert_eq!(
        kind_of(&world.take(2)[0]),
        (1, Some((3, 1))),
        "and the client is told"
    );
}

#[test]
fn questions_to_the_directory() {
    let mut world = World::pair(9);
    let label = Label::new("freespeech").unwrap();
    assert!(matches!(
        world.ask(2, Question::LookupName(label)),
        Ok(Answer::Named(None))
    ));
    world.ask(1, Question::ClaimName(label)).unwrap();
    let service = world.nodes[1].id;
    let Ok(Answer::Named(Some(found))) = world.ask(2, Question::LookupName(label)) else {
        panic!("the name is not found");
    };
    assert_eq!(
        (found.name.id, found.descriptor.as_ref().map(|d| d.id)),
        (service, Some(service))
    );
    let taken = world.ask(2, Question::ClaimName(label));
    assert_eq!(
        taken.unwrap_err(),
        QueryError::Refused("it is taken".into())
    );
    let Ok(Answer::NameOf(Some(named))) = world.ask(2, Question::NameOf(service)) else {
        panic!("the ID's name is not found");
    };
    assert_eq!(named.label, label);
    let address = world.ipv6(1).into();
    let Ok(Answer::Descriptor(Some(found))) = world.ask(2, Question::LookupAddress(address)) else {
        panic!("the address is not found");
    };
    assert_eq!(found.id, service);
    let Ok(Answer::Descriptor(Some(found))) = world.ask(2, Question::LookupId(service)) else {
        panic!("the ID is not found");
    };
    assert_eq!(found.id, service);
    let Ok(Answer::Lease(lease)) = world.ask(2, Question::Lease) else {
        panic!("no lease");
    };
    assert_eq!(lease.id, world.nodes[2].id);
    world.ask(1, Question::Publish).unwrap();
    assert!(
        world.ask(2, Question::Publish).is_err(),
        "it accepts no sessions"
    );

    // Nobody asked as itself, and own records are not asked for as others are.
    let own: Vec<_> = world.nodes.iter().map(|node| node.id).collect();
    let publishes = |body: &RequestBody| {
        matches!(
            body,
            RequestBody::Publish(_) | RequestBody::Lease(_) | RequestBody::ClaimName(_)
        )
    };
    let publishers: HashSet<_> = world
        .store
        .log
        .iter()
        .filter(|(_, b)| publishes(b))
        .map(|(id, _)| *id)
        .collect();
    let askers: HashSet<_> = world
        .store
        .log
        .iter()
        .filter(|(_, b)| !publishes(b))
        .map(|(id, _)| *id)
        .collect();
    assert!(publishers.is_disjoint(&askers));
    assert!(
        own.iter()
            .all(|id| !publishers.contains(id) && !askers.contains(id))
    );
}

#[test]
fn questions_survive_loss_and_end_without_a_directory() {
    let mut world = World::pair(10);
    world.weather.loss = 0.03;
    let label = Label::new("nobody").unwrap();
    for _ in 0..5 {
        assert!(matches!(
            world.ask(2, Question::LookupName(label)),
            Ok(Answer::Named(None))
        ));
    }
    world.weather.loss = 0.0;
    world.nodes[0].dead = true;
    let began = world.now.instant;
    let answer = world.ask(2, Question::LookupName(label));
    assert!(matches!(answer, Err(QueryError::Timeout(_))), "{answer:?}");
    assert!(world.now.instant - began < 15 * SECOND);
}

#[test]
fn both_sides_open_at_the_same_time() {
    let mut world = World::settled(8, 11);
    let (a, b) = (world.service(), world.service());
    world.run(4 * SECOND);
    let (ip_a, ip_b) = (world.ipv4(a), world.ipv4(b));
    for round in 0..60 {
        // Long enough for keys that were given up to be forgotten.
        world.send(a, &[udp(ip_a, ip_b, (round, 1), b"from a")]);
        world.send(b, &[udp(ip_b, ip_a, (round, 2), b"from b")]);
        world.run(SECOND);
    }
    assert_eq!((world.take(a).len(), world.take(b).len()), (60, 60));
    assert_eq!(world.status(a).counters.bad_cells, 0);
}

#[test]
fn a_network_that_is_too_small_says_what_is_missing() {
    let mut world = World::new(2, 12);
    world.publish_snapshot();
    world.run(5 * SECOND);
    let status = world.status(0);
    assert!(!status.online);
    let shortage = status.network.shortage.unwrap();
    assert!(shortage.contains("only 2 go together") && shortage.contains("1 more needed"));
    assert!(status.problems.contains(&shortage));
    // More relays help without a restart.
    world.add_relays(2);
    world.publish_snapshot();
    assert!(world.run_until(5 * SECOND, |world| world.status(0).online));
    assert!(world.nodes[0].events.contains(&Event::Online));
}

#[test]
fn a_packet_that_is_too_long_is_answered_with_the_mtu() {
    let mut world = World::connected(13);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    world.nodes[2].received.clear();
    let long = udp(client, service, (1, 2), &[0; 1473]);
    // It may be fragmented: it is carried.
    world.send(2, std::slice::from_ref(&long));
    world.run(SECOND);
    assert_eq!(world.take(1).len(), 1);
    let mut unfragmentable = long;
    unfragmentable[6] |= 0x40;
    world.send(2, &[unfragmentable]);
    let answer = world.take(2).remove(0);
    assert_eq!(kind_of(&answer), (1, Some((3, 4))));
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1500);
    let (client, service) = (world.ipv6(2), world.ipv6(1));
    world.send(2, &[udp(client, service, (1, 2), &[0; 1460])]);
    let answer = world.take(2).remove(0);
    assert_eq!(kind_of(&answer), (58, Some((2, 0))));
    assert_eq!(answer[44..48], 1500u32.to_be_bytes());
}

#[test]
fn nobody_waits_for_ever_for_a_publication() {
    let mut world = World::pair(14);
    // A service whose network never works.
    let late = world.service();
    world.nodes[late].unplugged = true;
    let began = world.now.instant;
    let answer = world.ask(late, Question::Publish);
    assert!(matches!(answer, Err(QueryError::Timeout(_))), "{answer:?}");
    assert!(world.now.instant - began < 15 * SECOND);
}
