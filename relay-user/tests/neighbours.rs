//! The control plane's neighbours, without sockets: relays that find each other, clients
//! that come, move and go, and the bounds on all of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::identity::{IdentityKey, SIGNATURE, ShortId, X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::probe::{Answer, Probe, lengthen};
use mixline_protocol::link::{
    CellKind, Cookie, DatagramType, Established, InitiationTimes, Initiator, OpenKey, REJECT_AFTER,
    Timestamp, datagram_type, receiver_index,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::rate_limit::Rate;
use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use mixline_protocol::time::UnixTime;
use mixline_relay::testing::{
    CONFIRM_WITHIN, KEEP_MAILBOXES, MAX_UNPROVEN, Neighbours, Output, TO_ONE_ADDRESS, TO_ONE_FIRST,
    TO_ONE_NETWORK,
};
use mixline_relay_engine::messages::{Command, Signal};
use mixline_relay_engine::next_hops::Link;

/// A relay's control plane, and what its workers would know.
struct Node {
    neighbours: Neighbours<OsRandom>,
    descriptor: RelayDescriptor,
    address: SocketAddr,
    sessions: HashMap<u32, (Arc<OpenKey>, u32)>,
    links: HashMap<u32, Link>,
    relays: HashMap<ShortId, Option<u32>>,
    mailboxes: HashMap<MailboxToken, u32>,
    sent: Vec<(Box<Datagram>, SocketAddr)>,
    answers: Vec<Answer>,
}

impl Node {
    fn new(address: &str, now: Instant) -> Self {
        let mut rng = OsRandom::new();
        let (identity, link) = (
            IdentityKey::generate(&mut rng),
            X25519Secret::generate(&mut rng),
        );
        Self::of(&identity, link, address, now)
    }

    /// The relay with these keys, which has just started.
    fn of(identity: &IdentityKey, link: X25519Secret, address: &str, now: Instant) -> Self {
        let rng = OsRandom::new();
        let address: SocketAddr = address.parse().unwrap();
        let descriptor = RelayDescriptor {
            id: identity.relay_id(),
            version: 1,
            issued: UnixTime(1),
            expires: UnixTime(100),
            link: link.public(),
            onion: [(1, X25519Public([1; 32]))].into_iter().collect(),
            addresses: vec![address],
            capacity: 1,
            load: 0,
            family: None,
            name: "relay".into(),
            software: String::new(),
            signature: [0; SIGNATURE],
        };
        let own = identity.relay_id().short();
        let neighbours = Neighbours::new(link, own, 1, (true, true), rng, now);
        Self {
            neighbours,
            descriptor,
            address,
            sessions: HashMap::new(),
            links: HashMap::new(),
            relays: HashMap::new(),
            mailboxes: HashMap::new(),
            sent: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn short(&self) -> ShortId {
        self.descriptor.short_id()
    }

    /// Does what the control plane says.
    fn apply(&mut self) {
        for output in self.neighbours.take_output() {
            match output {
                Output::Send(datagram, to) => self.sent.push((datagram, to)),
                Output::One(worker, command) => {
                    assert_eq!(worker, 0);
                    self.command(command);
                }
                Output::All(command) => self.command(command),
                Output::Answer(answer) => self.answers.push(answer),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Session {
                open, neighbour, ..
            } => {
                self.sessions.insert(open.local_index(), (open, neighbour));
            }
            Command::Forget(index) => {
                self.sessions.remove(&index);
            }
            Command::Link(neighbour, Some(link)) => {
                self.links.insert(neighbour, link);
            }
            Command::Link(neighbour, None) => {
                self.links.remove(&neighbour);
            }
            Command::Relays(relays) => self.relays = relays.iter().copied().collect(),
            Command::Relay(relay, neighbour) => {
                self.relays.insert(relay, neighbour);
            }
            Command::Mailboxes(tokens, Some(neighbour)) => {
                self.mailboxes
                    .extend(tokens.iter().map(|token| (*token, neighbour)));
            }
            Command::Mailboxes(tokens, None) => {
                for token in tokens.iter() {
                    self.mailboxes.remove(token);
                }
            }
            Command::OnionKeys(_)
            | Command::NewPaths(_)
            | Command::MeanDelay(_)
            | Command::Stop => {}
        }
    }

    /// Takes a datagram, as a worker and the control plane would.
    fn take(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) {
        if datagram_type(datagram) != Ok(DatagramType::Data) {
            self.neighbours.handshake(datagram, source, now);
            return self.apply();
        }
        let index = receiver_index(datagram);
        let Some((open, _)) = self.sessions.get(&index) else {
            return;
        };
        let mut datagram = *datagram;
        let kind = open.open(&mut datagram).unwrap();
        self.neighbours.signal(Signal::Heard(index, kind), now);
        if kind == CellKind::Control {
            self.neighbours.message(index, &mut datagram, now);
        }
        self.apply();
    }

    /// The link to a relay.
    fn link_to(&self, other: &Node) -> Option<&Link> {
        self.links.get(&(*self.relays.get(&other.short())?)?)
    }
}

/// Carries datagrams between two relays until none is under way.
fn exchange(a: &mut Node, b: &mut Node, now: Instant) {
    loop {
        let (from_a, from_b) = (std::mem::take(&mut a.sent), std::mem::take(&mut b.sent));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (datagram, to) in from_a {
            assert_eq!(to, b.address);
            b.take(&datagram, a.address, now);
        }
        for (datagram, to) in from_b {
            assert_eq!(to, a.address);
            a.take(&datagram, b.address, now);
        }
    }
}

/// Two relays that know of each other.
fn two(now: Instant) -> (Node, Node) {
    let (mut a, mut b) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.2:7000", now),
    );
    let snapshot = [a.descriptor.clone(), b.descriptor.clone()];
    for node in [&mut a, &mut b] {
        node.neighbours.set_relays(&snapshot, now);
        node.apply();
        // Not itself.
        assert_eq!(node.relays.len(), 1);
    }
    (a, b)
}

/// A client's session with a relay.
struct Client {
    secret: X25519Secret,
    address: SocketAddr,
}

impl Client {
    fn new(address: &str) -> Self {
        Self {
            secret: X25519Secret::generate(&mut OsRandom::new()),
            address: address.parse().unwrap(),
        }
    }

    /// Asks for a session; the answer.
    fn ask(
        &self,
        node: &mut Node,
        cookie: Option<&Cookie>,
        now: Instant,
    ) -> Option<(Initiator, Box<Datagram>)> {
        let at = Timestamp::from(SystemTime::now());
        let key = node.descriptor.link;
        let (initiator, datagram) =
            Initiator::start(&self.secret, &key, 77, at, cookie, &mut OsRandom::new()).unwrap();
        node.take(&datagram, self.address, now);
        let (answer, to) = node.sent.pop()?;
        assert_eq!(to, self.address);
        Some((initiator, answer))
    }

    /// Asks for a session, and goes no further when it has it.
    fn half(&self, node: &mut Node, now: Instant) -> Option<(Initiator, Box<Datagram>)> {
        let (initiator, answer) = self.ask(node, None, now)?;
        if datagram_type(&answer[..]) != Ok(DatagramType::Cookie) {
            return Some((initiator, answer));
        }
        let cookie = initiator.open_cookie(&answer).unwrap();
        self.ask(node, Some(&cookie), now)
    }

    /// A handshake; none if the relay does not answer.
    fn connect(&self, node: &mut Node, now: Instant) -> Option<Established> {
        let (mut initiator, response) = self.half(node, now)?;
        let session = initiator.finish(&response).unwrap();
        // The session was there before the answer went out; it is used only afterwards.
        assert!(node.sessions.contains_key(&session.remote_index));
        self.send(node, &session, &[0; 1368], CellKind::Cover, now);
        Some(session)
    }

    fn send(
        &self,
        node: &mut Node,
        session: &Established,
        cell: &[u8; 1368],
        kind: CellKind,
        now: Instant,
    ) {
        let mut datagram = [0; DATAGRAM];
        datagram[CELL_OFFSET..][..1368].copy_from_slice(cell);
        session.seal.seal(&mut datagram, kind).unwrap();
        node.take(&datagram, self.address, now);
    }

    /// Says something; the answers.
    fn say(
        &self,
        node: &mut Node,
        session: &Established,
        message: &Control,
        now: Instant,
    ) -> Vec<Control> {
        let mut cell = [0; 1368];
        message.encode_into(&mut cell).unwrap();
        self.send(node, session, &cell, CellKind::Control, now);
        let answers = std::mem::take(&mut node.sent).into_iter();
        answers
            .map(|(mut datagram, to)| {
                assert_eq!(to, self.address);
                assert_eq!(session.open.open(&mut datagram), Ok(CellKind::Control));
                Control::decode(datagram[CELL_OFFSET..].first_chunk().unwrap()).unwrap()
            })
            .collect()
    }
}

fn register(tokens: &[(u64, u32)]) -> Control {
    let tokens = tokens
        .iter()
        .map(|(token, life)| (MailboxToken(token.to_be_bytes()), *life))
        .collect();
    Control::Register { request: 3, tokens }
}

#[test]
fn relays_connect_when_one_wants() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(a.link_to(&b).is_none());
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    assert_eq!(a.link_to(&b).unwrap().to, b.address);
    assert_eq!(b.link_to(&a).unwrap().to, a.address);
    let census = a.neighbours.census();
    assert_eq!((census.relays, census.clients), (1, 0));
    // Nobody makes a link to a relay that there is not.
    a.neighbours.signal(Signal::Want(ShortId([9; 8])), now);
    a.apply();
    assert!(a.sent.is_empty());
}

/// Whether `a` gets a link to `b` when it wants one.
fn connects(a: &mut Node, b: &mut Node, now: Instant) -> bool {
    let snapshot = [a.descriptor.clone(), b.descriptor.clone()];
    a.neighbours.set_relays(&snapshot, now);
    a.apply();
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(a, b, now);
    a.link_to(b).is_some()
}

#[test]
fn a_relay_whose_clock_was_ahead_gets_its_links_after_a_restart() {
    let mut now = Instant::now();
    let mut rng = OsRandom::new();
    let (identity, link) = (
        IdentityKey::generate(&mut rng),
        X25519Secret::generate(&mut rng),
    );
    let mut start = |stored: Option<u64>| {
        now += Duration::from_secs(1);
        let mut a = Node::of(&identity, link.clone(), "10.0.0.1:7000", now);
        a.neighbours.set_times(InitiationTimes::new(stored));
        (a, now)
    };
    // Its clock is a year ahead at first: as if times up to then had been used.
    let year = UnixTime::from(SystemTime::now()).plus(365 * 24 * 3600).0;
    let (mut a, at) = start(Some(year));
    let mut b = Node::new("10.0.0.2:7000", at);
    assert!(connects(&mut a, &mut b, at));
    let stored = a.neighbours.time_to_store().unwrap();
    assert!(stored > year);
    // The clock is right again, and what was written down is lost: b refuses what is not newer.
    let (mut a, at) = start(None);
    assert!(!connects(&mut a, &mut b, at));
    // With it, the next time goes on from there, and so does the one after.
    let (mut a, at) = start(Some(stored));
    assert!(connects(&mut a, &mut b, at));
    let stored = a.neighbours.time_to_store().unwrap();
    let (mut a, at) = start(Some(stored));
    assert!(connects(&mut a, &mut b, at));
}

#[test]
fn relays_that_want_at_once_connect_too() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let (a_short, b_short) = (a.short(), b.short());
    for (node, other) in [(&mut a, b_short), (&mut b, a_short)] {
        node.neighbours.signal(Signal::Want(other), now);
        node.apply();
    }
    exchange(&mut a, &mut b, now);
    let (to_b, to_a) = (a.link_to(&b).unwrap(), b.link_to(&a).unwrap());
    // Each receives under what the other sends under.
    assert!(b.sessions.contains_key(&to_b.seal.remote_index()));
    assert!(a.sessions.contains_key(&to_a.seal.remote_index()));
}

#[test]
fn an_unanswered_relay_is_tried_at_its_other_addresses() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let other: SocketAddr = "[fd00::2]:7000".parse().unwrap();
    b.descriptor.addresses.push(other);
    a.neighbours.set_relays(&[b.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.neighbours.tick(now + Duration::from_secs(6));
    a.neighbours.tick(now + Duration::from_secs(12));
    a.apply();
    let tried: Vec<_> = a.sent.iter().map(|(_, to)| *to).collect();
    assert_eq!(tried, [b.address, other, b.address]);
}

#[test]
fn a_relay_is_looked_for_at_its_own_addresses_also_if_another_one_names_its_link_key() {
    // Whatever the order of a table is.
    for round in 0..20 {
        let now = Instant::now();
        let (mut a, mut honest) = (
            Node::new("10.0.0.1:7000", now),
            Node::new("10.0.0.2:7000", now),
        );
        let mut bad = Node::new("10.0.0.66:7000", now);
        bad.descriptor.link = honest.descriptor.link;
        let snapshot = [honest.descriptor.clone(), bad.descriptor.clone()];
        a.neighbours.set_relays(&snapshot, now);
        a.neighbours.signal(Signal::Want(honest.short()), now);
        a.neighbours.set_relays(&snapshot, now);
        for seconds in [6, 12, 18] {
            a.neighbours.tick(now + Duration::from_secs(seconds));
        }
        a.apply();
        let tried: Vec<_> = a.sent.iter().map(|(_, to)| *to).collect();
        assert_eq!(tried, [honest.address; 4], "round {round}");
        // The last one arrives.
        a.sent.drain(..3);
        exchange(&mut a, &mut honest, now + Duration::from_secs(19));
        assert_eq!(a.link_to(&honest).unwrap().to, honest.address);
    }
}

/// A relay that says it is there.
fn claiming(addresses: &[SocketAddr], now: Instant) -> RelayDescriptor {
    let mut descriptor = Node::new("10.0.0.9:7000", now).descriptor;
    descriptor.addresses = addresses.to_vec();
    descriptor
}

/// For so many minutes, wants a link to each of these relays; what is sent to whom in each minute. Nobody
/// answers.
fn want_all(a: &mut Node, relays: &[RelayDescriptor], minutes: u64) -> Vec<Vec<SocketAddr>> {
    let start = Instant::now();
    a.neighbours.set_relays(relays, start);
    let minute = |minute: u64| {
        for second in minute * 60..(minute + 1) * 60 {
            let now = start + Duration::from_secs(second);
            for relay in relays {
                a.neighbours.signal(Signal::Want(relay.short_id()), now);
            }
            a.neighbours.tick(now);
        }
        a.apply();
        let sent = std::mem::take(&mut a.sent).into_iter();
        sent.map(|(_, to)| to).collect()
    };
    (0..minutes).map(minute).collect()
}

#[test]
fn little_is_sent_to_an_address_that_never_answered_whoever_names_it() {
    let now = Instant::now();
    let mut a = Node::new("10.0.0.1:7000", now);
    // Sixty relays, each at an address of its own that it registers from, and at ports of one address.
    let own = |n| SocketAddr::from(([192, 0, n, 2], 7000));
    let victim = |port| SocketAddr::from(([203, 0, 113, 7], port));
    let relays: Vec<_> = (0..60)
        .map(|n| {
            let port = 1000 + u16::from(n);
            claiming(&[own(n), victim(port), victim(port + 1000)], now)
        })
        .collect();
    let per_minute = |rate: Rate| {
        (
            60_000 / rate.interval.as_millis() as usize,
            rate.burst as usize,
        )
    };
    let sent = want_all(&mut a, &relays, 4);
    let to_victim = |sent: &[SocketAddr]| {
        let to = sent.iter().filter(|to| to.ip() == victim(1).ip());
        to.count()
    };
    let (a_minute, burst) = per_minute(TO_ONE_ADDRESS);
    let first = to_victim(&sent[0]);
    assert!((burst..=burst + a_minute).contains(&first), "{first}");
    for later in &sent[1..] {
        let later = to_victim(later);
        assert!((1..=a_minute).contains(&later), "{later}");
    }

    // Nor where it is the first address, as with a directory that does not check: more, but not without end.
    let mut a = Node::new("10.0.0.1:7000", now);
    let relays: Vec<_> = (0..200)
        .map(|n| claiming(&[victim(1000 + n)], now))
        .collect();
    let sent = want_all(&mut a, &relays, 2);
    let (a_minute, burst) = per_minute(TO_ONE_FIRST);
    let (first, second) = (to_victim(&sent[0]), to_victim(&sent[1]));
    assert!((burst..=burst + a_minute).contains(&first), "{first}");
    assert!((1..=a_minute).contains(&second), "{second}");

    // Nor to a network: here all of its addresses are named.
    let mut a = Node::new("10.0.0.1:7000", now);
    let relays: Vec<_> = (0..=255)
        .map(|n| claiming(&[SocketAddr::from(([198, 51, 100, n], 7000))], now))
        .collect();
    let sent = want_all(&mut a, &relays, 2);
    let (a_minute, burst) = per_minute(TO_ONE_NETWORK);
    let (first, second) = (sent[0].len(), sent[1].len());
    assert!((burst + 1..=burst + a_minute).contains(&first), "{first}");
    assert!((1..=a_minute).contains(&second), "{second}");
}

#[test]
fn who_answers_is_not_held_up_by_others_who_name_the_address() {
    let now = Instant::now();
    let (mut a, mut honest) = two(now);
    a.neighbours.signal(Signal::Want(honest.short()), now);
    a.apply();
    exchange(&mut a, &mut honest, now);
    assert!(a.link_to(&honest).is_some());
    // Others name its address; their initiations are nothing that it answers.
    let names: Vec<_> = (0..20)
        .map(|_| claiming(&[honest.address], now))
        .chain([honest.descriptor.clone()])
        .collect();
    a.neighbours.set_relays(&names, now);
    // It restarts again and again, and each time gets its link at the first initiation.
    let mut later = now;
    for _ in 0..30 {
        later += Duration::from_secs(1);
        honest.neighbours.close_all(later);
        honest.apply();
        exchange(&mut a, &mut honest, later);
        assert!(a.link_to(&honest).is_none());
        later += Duration::from_secs(7);
        for relay in &names {
            a.neighbours.signal(Signal::Want(relay.short_id()), later);
        }
        a.apply();
        exchange(&mut a, &mut honest, later);
        assert!(a.link_to(&honest).is_some());
    }
    // Also at the very first time, when they have used up what may be sent to its address.
    let (mut a, mut honest) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.2:7000", now),
    );
    let mut names: Vec<_> = (0..=200)
        .map(|n| {
            let own = SocketAddr::from(([192, 0, n, 2], 7000));
            claiming(&[own, honest.address, own], now)
        })
        .collect();
    want_all(&mut a, &names, 1);
    names.push(honest.descriptor.clone());
    a.neighbours.set_relays(&names, now);
    let at = Instant::now() + Duration::from_secs(61);
    a.neighbours.signal(Signal::Want(honest.short()), at);
    a.apply();
    a.sent.retain(|(_, to)| *to == honest.address);
    exchange(&mut a, &mut honest, at);
    assert!(a.link_to(&honest).is_some());
    // One with an address of somebody else is reached at its own.
    let (mut a, mut other) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.3:7000", now),
    );
    let silent: SocketAddr = "203.0.113.7:1".parse().unwrap();
    let relays: Vec<_> = (0..20).map(|_| claiming(&[silent], now)).collect();
    want_all(&mut a, &relays, 1);
    let mut both = other.descriptor.clone();
    both.addresses.push(silent);
    a.neighbours.set_relays(&[both], now);
    let at = now + Duration::from_secs(61);
    a.neighbours.signal(Signal::Want(other.short()), at);
    a.apply();
    a.sent.retain(|(_, to)| *to != silent);
    exchange(&mut a, &mut other, at + Duration::from_secs(6));
    for _ in 0..2 {
        a.neighbours.tick(at + Duration::from_secs(6));
        a.apply();
        a.sent.retain(|(_, to)| *to != silent);
        exchange(&mut a, &mut other, at + Duration::from_secs(6));
    }
    assert_eq!(a.link_to(&other).unwrap().to, other.address);
}

#[test]
fn a_relay_that_leaves_the_snapshot_stays_while_it_is_linked() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let stranger = Node::new("10.0.0.3:7000", now);
    a.neighbours
        .set_relays(&[b.descriptor.clone(), stranger.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.link_to(&b).is_some());
    assert!(!a.relays.contains_key(&stranger.short()));
    b.neighbours.close_all(now);
    b.apply();
    exchange(&mut a, &mut b, now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty());
}

#[test]
fn ever_new_relays_with_one_link_leave_one_behind() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(connects(&mut b, &mut a, now));
    for _ in 0..20 {
        let mut another = Node::new("10.0.0.2:7000", now).descriptor;
        another.link = b.descriptor.link;
        a.neighbours.set_relays(&[another], now);
        a.apply();
        assert!(a.relays.len() <= 2, "{}", a.relays.len());
    }
    assert!(a.link_to(&b).is_some());
}

#[test]
fn a_relay_with_a_new_link_key_is_another_neighbour() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    let mut changed = b.descriptor.clone();
    changed.link = X25519Secret::generate(&mut OsRandom::new()).public();
    a.neighbours.set_relays(&[changed], now);
    a.apply();
    // Nothing goes to the old key any more in the relay's name.
    assert_eq!(a.relays[&b.short()], None);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty());
}

#[test]
fn links_end_with_their_time_and_with_close() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    // Nothing goes over it: it is not renewed, and ends.
    let mut later = now;
    while later < now + REJECT_AFTER + Duration::from_secs(70) {
        later += Duration::from_secs(1);
        for node in [&mut a, &mut b] {
            node.neighbours.tick(later);
            node.apply();
        }
        exchange(&mut a, &mut b, later);
    }
    assert!(a.links.is_empty() && a.sessions.is_empty() && b.sessions.is_empty());
    assert_eq!(a.relays[&b.short()], None);
    // And comes again when wanted; and ends at once when the other one goes.
    a.neighbours.signal(Signal::Want(b.short()), later);
    a.apply();
    exchange(&mut a, &mut b, later);
    assert!(a.link_to(&b).is_some());
    b.neighbours.close_all(later);
    b.apply();
    exchange(&mut a, &mut b, later);
    assert!(a.link_to(&b).is_none() && a.sessions.is_empty());
}

#[test]
fn clients_register_mailboxes() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let (first, second) = (Client::new("192.0.2.1:1"), Client::new("198.51.100.1:1"));
    let one = first.connect(&mut node, now).unwrap();
    let two = second.connect(&mut node, now).unwrap();
    let done = first.say(&mut node, &one, &register(&[(7, 600), (8, 600)]), now);
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![]
        }]
    );
    // Not another's.
    let done = second.say(&mut node, &two, &register(&[(8, 600), (9, 600)]), now);
    let eight = MailboxToken(8_u64.to_be_bytes());
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![eight]
        }]
    );
    assert_eq!(node.mailboxes.len(), 3);
    let owner = node.mailboxes[&eight];
    assert_eq!(node.links[&owner].to, first.address);
    assert_eq!(
        first.say(&mut node, &one, &Control::Ping(5), now),
        [Control::Pong(5)]
    );

    // A new session of the same key, from elsewhere: the mailboxes go along.
    let moved = Client {
        address: "203.0.113.9:5".parse().unwrap(),
        ..first
    };
    let one = moved
        .connect(&mut node, now + Duration::from_secs(2))
        .unwrap();
    assert_eq!(node.mailboxes[&eight], owner);
    assert_eq!(node.links[&owner].to, moved.address);

    // Who goes leaves nothing.
    moved.say(&mut node, &one, &Control::Close, now);
    assert_eq!(node.mailboxes.len(), 1);
    assert!(!node.links.contains_key(&owner));
    let done = second.say(&mut node, &two, &register(&[(8, 600)]), now);
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![]
        }]
    );
    // A registration ends by itself, too.
    node.neighbours.tick(now + Duration::from_secs(601));
    node.apply();
    assert!(node.mailboxes.is_empty());
}

/// Registers so many new tokens; how many the relay takes.
fn fill(
    client: &Client,
    node: &mut Node,
    session: &Established,
    first: u64,
    count: u64,
    now: Instant,
) -> usize {
    let tokens: Vec<_> = (first..first + count)
        .map(|token| (token, 90_000))
        .collect();
    let mut taken = 0;
    for tokens in tokens.chunks(100) {
        let said = client.say(node, session, &register(tokens), now);
        let [Control::Registered { refused, .. }] = &said[..] else {
            panic!("{said:?}");
        };
        taken += tokens.len() - refused.len();
    }
    taken
}

#[test]
fn the_keys_of_one_address_do_not_take_all_mailboxes() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let mut taken = 0;
    for n in 0..64 {
        let client = Client::new(&format!("192.0.2.1:{}", n + 1));
        let session = client.connect(&mut node, now).unwrap();
        taken += fill(&client, &mut node, &session, n * 4096, 4096, now);
    }
    assert!(taken >= 16_384, "{taken}");
    assert_eq!(node.neighbours.census().mailboxes, taken);
    for (n, ip) in ["198.51.100.1:1", "192.0.2.2:1", "192.0.2.1:99"]
        .into_iter()
        .enumerate()
    {
        let client = Client::new(ip);
        let session = client.connect(&mut node, now).unwrap();
        let first = 1_000_000 * (n as u64 + 1);
        assert_eq!(
            fill(&client, &mut node, &session, first, 100, now),
            100,
            "{ip}"
        );
    }
    // Whoever left has none any more, although they were registered for a day.
    pass(
        &mut node,
        &mut now,
        REJECT_AFTER + KEEP_MAILBOXES + Duration::from_secs(2),
    );
    assert_eq!(node.neighbours.census().mailboxes, 0);
    assert!(node.mailboxes.is_empty());
}

#[test]
fn mailboxes_outlast_an_outage_of_their_clients_line() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let client = Client::new("192.0.2.1:1");
    let session = client.connect(&mut node, now).unwrap();
    assert_eq!(fill(&client, &mut node, &session, 7, 3, now), 3);
    pass(
        &mut node,
        &mut now,
        REJECT_AFTER + KEEP_MAILBOXES - Duration::from_secs(2),
    );
    assert_eq!(node.mailboxes.len(), 3);
    let session = client.connect(&mut node, now).unwrap();
    pass(&mut node, &mut now, Duration::from_secs(60));
    assert_eq!(node.mailboxes.len(), 3);
    client.say(&mut node, &session, &Control::Close, now);
    assert!(node.mailboxes.is_empty());
}

#[test]
fn a_client_behind_a_nat_moves() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let client = Client::new("192.0.2.1:1");
    let session = client.connect(&mut node, now).unwrap();
    let elsewhere: SocketAddr = "192.0.2.200:999".parse().unwrap();
    let number = node.sessions[&session.remote_index].1;
    node.neighbours
        .signal(Signal::Moved(session.remote_index, elsewhere), now);
    node.apply();
    assert_eq!(node.links[&number].to, elsewhere);
    // An initiation that somebody sends on from elsewhere moves nobody: only who uses the
    // session does.
    let at = Timestamp::from(SystemTime::now() + Duration::from_secs(1));
    let key = node.descriptor.link;
    let (_, datagram) =
        Initiator::start(&client.secret, &key, 5, at, None, &mut OsRandom::new()).unwrap();
    let far: SocketAddr = "203.0.113.66:6".parse().unwrap();
    node.take(&datagram, far, now + Duration::from_secs(5));
    assert_eq!(node.sent.pop().unwrap().1, far);
    assert_eq!(node.links[&number].to, elsewhere);
}

/// Time passes as the control plane sees it.
fn pass(node: &mut Node, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now = end.min(*now + Duration::from_secs(1));
        node.neighbours.tick(*now);
        node.apply();
        node.sent.clear();
    }
}

/// Initiations under ever other keys at a rate, for a time; `source` of each. Whoever sends them sees no answer.
fn forge(
    node: &mut Node,
    now: &mut Instant,
    rate: f64,
    time: Duration,
    source: impl Fn(u32) -> SocketAddr,
) {
    let (begin, mut rng) = (*now, OsRandom::new());
    let end = begin + time;
    for n in 0.. {
        let at = begin + Duration::from_secs_f64(f64::from(n) / rate);
        if at > end {
            pass(node, now, end - *now);
            return node.sent.clear();
        }
        pass(node, now, at - *now);
        let secret = X25519Secret::generate(&mut rng);
        let key = node.descriptor.link;
        let stamp = Timestamp::from(SystemTime::now());
        let (_, datagram) = Initiator::start(&secret, &key, 1, stamp, None, &mut rng).unwrap();
        node.take(&datagram, source(n), at);
    }
}

/// An address in each of 10,000 networks.
fn anywhere(n: u32) -> SocketAddr {
    let network = n % 10_000;
    let [.., a, b] = network.to_be_bytes();
    SocketAddr::from(([20 + a, b, a ^ b, 9], 4000))
}

#[test]
fn forged_initiations_from_everywhere_keep_nobody_out() {
    let mut now = Instant::now();
    let (mut a, mut b) = two(now);
    let clients: Vec<_> = (0..8)
        .map(|n| Client::new(&format!("198.51.{n}.1:5")))
        .collect();
    for client in &clients {
        pass(&mut a, &mut now, Duration::from_millis(10));
        assert!(client.connect(&mut a, now).is_some());
    }
    for round in 0..3 {
        forge(&mut a, &mut now, 150.0, Duration::from_secs(10), anywhere);
        // The sessions of clients, and of what is forged no more than its bound.
        assert!(a.sessions.len() <= MAX_UNPROVEN + 3 * (clients.len() + round + 1));
        assert!(a.sessions.len() >= MAX_UNPROVEN, "no flood");
        for client in &clients {
            pass(&mut a, &mut now, Duration::from_millis(50));
            let session = client.connect(&mut a, now).unwrap();
            let said = client.say(&mut a, &session, &Control::Ping(5), now);
            assert_eq!(said, [Control::Pong(5)]);
        }
        // Also one that is new, whether it comes from where forged ones come from or not.
        for ip in [format!("203.0.{round}.1:5"), format!("20.7.7.{round}:5")] {
            assert!(Client::new(&ip).connect(&mut a, now).is_some(), "{ip}");
        }
    }
    assert_eq!(a.neighbours.census().clients, clients.len() + 6);
    // Links of relays come up from both ends.
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    assert!(a.link_to(&b).is_some());
    let mut other = Node::new("10.0.0.3:7000", now);
    let snapshot = [b.descriptor.clone(), other.descriptor.clone()];
    a.neighbours.set_relays(&snapshot, now);
    a.apply();
    assert!(connects(&mut other, &mut a, now));
    assert_eq!(a.neighbours.census().relays, 2);
    assert_eq!(a.neighbours.census().refused, 0);
    // What nobody has confirmed is gone seconds later.
    pass(&mut a, &mut now, CONFIRM_WITHIN + Duration::from_secs(1));
    assert!(a.sessions.len() <= 3 * (clients.len() + 8));
}

#[test]
fn forged_initiations_from_a_clients_network_do_not_keep_it_out() {
    let mut now = Instant::now();
    let victim = |n: u32| format!("192.0.2.77:{}", 1000 + n);
    for (rate, time) in [(2.2, 240), (190.0, 20)] {
        let mut node = Node::new("10.0.0.1:7000", now);
        let before = Client::new(&victim(0));
        assert!(before.connect(&mut node, now).is_some());
        let time = Duration::from_secs(time);
        // From each of its network's addresses, its own among them.
        forge(&mut node, &mut now, rate, time, |n| {
            SocketAddr::from(([192, 0, 2, n.to_be_bytes()[3]], 4000))
        });
        assert!(node.neighbours.census().clients <= 1);
        // It starts again, with another link key.
        for n in 1..5 {
            let again = Client::new(&victim(n));
            let session = again.connect(&mut node, now).unwrap();
            let said = again.say(&mut node, &session, &Control::Ping(5), now);
            assert_eq!(said, [Control::Pong(5)]);
        }
        assert_eq!(node.neighbours.census().refused, 0);
    }
}

#[test]
fn one_corner_does_not_fill_a_relay() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    // They return cookies, so they are where they say, and confirm nothing.
    let mut held = 0;
    for n in 0..1900 {
        pass(&mut node, &mut now, Duration::from_millis(6));
        let client = Client::new(&format!("192.0.2.{}:{}", n % 250, n + 1));
        held += usize::from(client.half(&mut node, now).is_some());
    }
    assert!(held >= 700, "{held}");
    for ip in [
        "192.0.2.254:9",
        "192.0.3.1:9",
        "198.51.100.1:1",
        "[2001:db8::1]:1",
    ] {
        assert!(Client::new(ip).connect(&mut node, now).is_some(), "{ip}");
    }
    assert_eq!(node.neighbours.census().clients, 4);
    // When they are gone for good, nothing is left of them.
    pass(&mut node, &mut now, REJECT_AFTER + Duration::from_secs(61));
    assert_eq!(node.neighbours.census().clients, 0);
    assert!(node.sessions.is_empty() && node.links.is_empty());
    assert!(Client::new("192.0.2.1:1").connect(&mut node, now).is_some());
}

#[test]
fn a_relay_that_leaves_the_snapshot_is_a_client_from_then_on() {
    let mut now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(connects(&mut b, &mut a, now));
    assert_eq!(a.neighbours.census().relays, 1);
    // It registers another link key: who has the former one is anybody.
    let mut changed = b.descriptor.clone();
    changed.link = X25519Secret::generate(&mut OsRandom::new()).public();
    a.neighbours.set_relays(&[changed.clone()], now);
    a.apply();
    let census = a.neighbours.census();
    assert_eq!((census.relays, census.clients), (0, 1));
    // A link that is not up is no link of anybody's.
    pass(&mut a, &mut now, REJECT_AFTER);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty() && a.links.is_empty());
}

#[test]
fn under_load_a_source_proves_its_address_first() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let mut cookies = 0;
    for n in 0..300 {
        let client = Client::new(&format!("10.{}.{}.1:5", n / 250, n % 250));
        let key = node.descriptor.link;
        let at = Timestamp::from(SystemTime::now());
        let (_, datagram) =
            Initiator::start(&client.secret, &key, 1, at, None, &mut OsRandom::new()).unwrap();
        node.take(&datagram, client.address, now);
        let (answer, to) = node.sent.pop().unwrap();
        assert_eq!(to, client.address);
        cookies += usize::from(datagram_type(&answer[..]) == Ok(DatagramType::Cookie));
    }
    assert_eq!(cookies, 100);
    // Nothing was kept of sources that got a cookie.
    assert_eq!(node.sessions.len(), 200);
}

#[test]
fn probes_are_answered_now_and_later() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let source: SocketAddr = "192.0.2.9:1234".parse().unwrap();
    let ask = |node: &mut Node, delay| {
        let probe = Probe {
            number: 5,
            answer: 64,
            delay,
        };
        let sent = probe.encode(200, &node.descriptor.link).unwrap();
        let mut datagram = [0; DATAGRAM];
        datagram[..200].copy_from_slice(&sent.bytes);
        assert!(lengthen(&mut datagram, 200));
        node.take(&datagram, source, now);
        sent
    };
    let sent = ask(&mut node, 0);
    let answer = node.answers.pop().unwrap();
    assert_eq!((answer.to, answer.bytes.len()), (source, 64));
    let said = sent.answered(&answer.bytes).unwrap();
    assert_eq!((said.seen, said.length), (source, 200));
    let later = ask(&mut node, 3);
    for (seconds, answers) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        node.neighbours.tick(now + Duration::from_secs(seconds));
        node.apply();
        assert_eq!(node.answers.len(), answers);
    }
    assert!(later.answered(&node.answers[0].bytes).is_ok());
    // No neighbour comes of it.
    assert_eq!(node.neighbours.census().clients, 0);
    assert!(node.sessions.is_empty() && node.links.is_empty());
}
