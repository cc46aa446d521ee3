//! Services with a list of clients.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::access::Access;
use mixline_endpoint_engine::command::{Answer, Command, Question};
use mixline_endpoint_engine::testing::*;
use mixline_protocol::authorisation::ENTRIES;
use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::name::Label;

const SECOND: Duration = Duration::from_secs(1);
const SERVICE: usize = 1;
const CLIENT: usize = 2;
const STRANGER: usize = 3;
const SYN: u8 = 0x02;

/// A service, a client that has its key, and a stranger with another one; whom the service lets in.
struct Listed {
    world: World,
    keys: [X25519Public; 2],
}

impl Listed {
    fn new(seed: u64) -> Self {
        let mut world = World::pair(seed);
        assert_eq!(world.client(|_| ()), STRANGER);
        let service = world.nodes[SERVICE].id;
        let keys = [CLIENT, STRANGER].map(|node| {
            let secret = X25519Secret::generate(world.rng());
            let key = secret.public();
            let access = Access {
                clients: None,
                services: vec![(service, secret)],
            };
            world.command(node, Command::SetAccess(Box::new(access)));
            key
        });
        let label = Label::new("listed").unwrap();
        world.ask(SERVICE, Question::ClaimName(label)).unwrap();
        let mut listed = Self { world, keys };
        listed.let_in(Some(&[0]));
        listed
    }

    fn let_in(&mut self, which: Option<&[usize]>) {
        let access = Access {
            clients: which.map(|which| which.iter().map(|at| self.keys[*at]).collect()),
            services: Vec::new(),
        };
        self.world
            .command(SERVICE, Command::SetAccess(Box::new(access)));
        self.world.run(3 * SECOND);
    }

    /// Whether a packet from a node reaches the service.
    fn reaches(&mut self, node: usize) -> bool {
        self.world.take(SERVICE);
        let (from, to) = (self.world.ipv6(node), self.world.ipv6(SERVICE));
        let packet = udp(from, to, (1000, 2000), b"let me in");
        self.world.send(node, std::slice::from_ref(&packet));
        self.world.run(6 * SECOND);
        self.world.take(SERVICE).contains(&packet)
    }

    /// What the directory says to a node, asked in each way: whether it tells where the service is reached.
    fn finds(&mut self, node: usize) -> [bool; 4] {
        let (id, label) = (self.world.nodes[SERVICE].id, Label::new("listed").unwrap());
        let addresses = [
            self.world.ipv4(SERVICE).into(),
            self.world.ipv6(SERVICE).into(),
        ];
        let mut found = |question| match self.world.ask(node, question) {
            Ok(Answer::Descriptor(found)) => found.is_some(),
            Ok(Answer::Named(named)) => named.expect("the name").descriptor.is_some(),
            other => panic!("{other:?}"),
        };
        [
            found(Question::LookupId(id)),
            found(Question::LookupName(label)),
            found(Question::LookupAddress(addresses[1])),
            found(Question::LookupAddress(addresses[0])),
        ]
    }
}

#[test]
fn who_is_on_the_list_is_let_in_and_nobody_else_hears_of_the_service() {
    let mut listed = Listed::new(1);
    // Whose an IPv4 address is, nobody is told: a program has it from the name.
    assert_eq!(listed.finds(CLIENT), [true, true, true, false]);
    assert_eq!(listed.finds(STRANGER), [false; 4]);
    assert!(listed.reaches(CLIENT));
    assert!(!listed.reaches(STRANGER));
    // Who asks as if there were no list hears the same.
    listed
        .world
        .command(STRANGER, Command::SetAccess(Box::default()));
    assert_eq!(listed.finds(STRANGER), [false; 4]);
    assert!(!listed.reaches(STRANGER));
}

#[test]
fn who_knows_the_tails_is_not_answered() {
    let mut listed = Listed::new(2);
    let descriptor = listed.world.nodes[SERVICE].descriptor.clone().unwrap();
    assert!(descriptor.clients.is_some());
    let before = listed.world.status(SERVICE).counters;
    listed
        .world
        .command(STRANGER, Command::Learn(Box::new((*descriptor).clone())));
    assert!(!listed.reaches(STRANGER));
    let after = listed.world.status(SERVICE).counters;
    assert!(after.unauthorised_initiations > before.unauthorised_initiations);
    let stranger = listed.world.nodes[STRANGER].id.to_string();
    let sessions = listed.world.status(SERVICE).sessions;
    assert!(sessions.iter().all(|session| session.peer != stranger));
    // Being let in later is enough. The first packet finds that there was no way a moment ago.
    listed.let_in(Some(&[0, 1]));
    assert!(listed.reaches(STRANGER) || listed.reaches(STRANGER));
}

#[test]
fn who_is_denied_loses_the_session_and_others_keep_theirs() {
    let mut listed = Listed::new(3);
    listed.let_in(Some(&[0, 1]));
    assert!(listed.reaches(CLIENT) && listed.reaches(STRANGER));
    let client = listed.world.nodes[CLIENT].id.to_string();
    let age = |world: &World| {
        let all = world.status(SERVICE).sessions;
        all.iter().find(|it| it.peer == client).map(|it| it.age_s)
    };
    let before = age(&listed.world).unwrap();
    listed.let_in(Some(&[0]));
    assert!(!listed.reaches(STRANGER));
    assert!(listed.reaches(CLIENT));
    assert!(age(&listed.world).unwrap() > before, "another session");
    // New keys need the proof, too.
    listed.world.run(1000 * SECOND);
    assert!(listed.reaches(CLIENT));
    listed.let_in(Some(&[]));
    assert!(!listed.reaches(CLIENT));
    listed.let_in(None);
    assert!(listed.reaches(CLIENT) && listed.reaches(STRANGER));
}

#[test]
fn a_restricted_service_opens_sessions_with_whom_it_wants() {
    let mut listed = Listed::new(4);
    let open = listed.world.service();
    listed.world.run(10 * SECOND);
    let (from, to) = (listed.world.ipv6(SERVICE), listed.world.ipv6(open));
    let question = udp(from, to, (1000, 2000), b"question");
    let answer = udp(to, from, (2000, 1000), b"answer");
    listed.world.send(SERVICE, std::slice::from_ref(&question));
    assert!(
        listed
            .world
            .run_until(6 * SECOND, |world| !world.nodes[open].received.is_empty())
    );
    for _ in 0..3 {
        listed.world.send(open, std::slice::from_ref(&answer));
        listed.world.run(SECOND);
        assert!(listed.world.take(SERVICE).contains(&answer));
        // Answers, and nothing else.
        for other in [
            tcp(to, from, (2000, 22), SYN, 1, 0),
            udp(to, from, (2000, 1001), b"more"),
            udp(to, from, (2001, 1000), b"more"),
        ] {
            listed.world.send(open, std::slice::from_ref(&other));
            listed.world.run(SECOND);
            assert!(!listed.world.take(SERVICE).contains(&other));
        }
        // Whoever makes the next keys.
        listed.world.run(1000 * SECOND);
        listed.world.send(SERVICE, std::slice::from_ref(&question));
        listed.world.run(SECOND);
    }
}

#[test]
fn a_client_to_whom_the_service_goes_shows_that_it_is_one() {
    let mut listed = Listed::new(6);
    let world = &mut listed.world;
    // It can be found by the service.
    let config = mixline_endpoint_engine::Config {
        accept_sessions: true,
        publish: true,
        ..Default::default()
    };
    world.command(CLIENT, Command::Reconfigure(Box::new(config)));
    world.run(10 * SECOND);
    let (service, client) = (world.ipv6(SERVICE), world.ipv6(CLIENT));
    world.take(CLIENT);
    let packet = udp(service, client, (1000, 2000), b"are you there");
    world.send(SERVICE, std::slice::from_ref(&packet));
    world.run(5 * SECOND);
    assert!(world.take(CLIENT).contains(&packet));
    assert!(listed.reaches(CLIENT));
}

#[test]
fn who_is_away_and_is_denied_does_not_come_back() {
    for allowed in [&[0][..], &[1], &[0, 1]] {
        let mut listed = Listed::new(7);
        let world = &mut listed.world;
        let (client, service) = (world.ipv6(CLIENT), world.ipv6(SERVICE));
        let segments = [(CLIENT, SYN), (SERVICE, 0x12), (CLIENT, 0x10)];
        for (node, flags) in segments {
            let packet = match node {
                CLIENT => tcp(client, service, (5000, 22), flags, 1000, 2000),
                _ => tcp(service, client, (22, 5000), flags, 2000, 1000),
            };
            world.send(node, std::slice::from_ref(&packet));
            world.run(2 * SECOND);
        }
        world.nodes[CLIENT].unplugged = true;
        world.run(60 * SECOND);
        world.take(SERVICE);
        listed.let_in(Some(allowed));
        let resets = listed.world.take(SERVICE);
        let stays = allowed.contains(&0);
        assert_eq!(resets.is_empty(), stays, "{allowed:?}: {resets:?}");
    }
}

#[test]
fn the_descriptor_does_not_say_how_many_clients_there_are() {
    let mut listed = Listed::new(5);
    let mut before: Option<Vec<_>> = None;
    for which in [&[][..], &[0], &[0, 1], &[0, 1]] {
        listed.let_in(Some(which));
        let descriptor = listed.world.nodes[SERVICE].descriptor.clone().unwrap();
        let clients = descriptor.clients.clone().unwrap();
        assert_eq!(clients.len(), ENTRIES);
        // Another client, and all that is nobody's is what it was.
        if let Some(before) = &before {
            let kept = clients.iter().filter(|it| before.contains(*it)).count();
            assert!(kept >= ENTRIES - 2, "{kept} are as they were");
        }
        before = Some(clients);
    }
    let first = listed.world.nodes[SERVICE].descriptor.clone().unwrap();
    listed.world.run(4000 * SECOND);
    let later = listed.world.nodes[SERVICE].descriptor.clone().unwrap();
    assert!(later.version > first.version);
    let days = [first.issued.0, later.issued.0].map(|at| (at - 900) / 86400);
    if days[0] == days[1] {
        assert_eq!(later.clients, first.clients, "what stays is not told apart");
    }
}
