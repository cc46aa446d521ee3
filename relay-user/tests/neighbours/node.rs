//! A relay's control plane with what its workers would know, and clients of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::identity::{IdentityKey, SIGNATURE, ShortId, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::probe::Answer;
use mixline_protocol::link::{
    CellKind, Cookie, DatagramType, Draft, Established, Initiator, OpenKey, Timestamp,
    datagram_type, receiver_index,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use mixline_protocol::time::UnixTime;
use mixline_relay::testing::{Neighbours, Output};
use mixline_relay_engine::messages::{Command, Signal};
use mixline_relay_engine::next_hops::Link;

/// A relay's control plane, and what its workers would know.
pub struct Node {
    pub neighbours: Neighbours<OsRandom>,
    pub descriptor: RelayDescriptor,
    pub address: SocketAddr,
    pub sessions: HashMap<u32, (Arc<OpenKey>, u32)>,
    pub links: HashMap<u32, Link>,
    pub relays: HashMap<ShortId, Option<u32>>,
    pub mailboxes: HashMap<MailboxToken, u32>,
    pub sent: Vec<(Box<Datagram>, SocketAddr)>,
    pub answers: Vec<Answer>,
}

impl Node {
    pub fn new(address: &str, now: Instant) -> Self {
        let mut rng = OsRandom::new();
        let (identity, link) = (
            IdentityKey::generate(&mut rng),
            X25519Secret::generate(&mut rng),
        );
        Self::of(&identity, link, address, now)
    }

    /// The same on a host with these address families.
    pub fn with_families(address: &str, families: (bool, bool), now: Instant) -> Self {
        let mut node = Self::new(address, now);
        let (secret, rng) = (
            X25519Secret::generate(&mut OsRandom::new()),
            OsRandom::new(),
        );
        node.descriptor.link = secret.public();
        node.neighbours = Neighbours::new(secret, node.short(), 1, families, rng, now);
        node
    }

    /// The relay with these keys, which has just started.
    pub fn of(identity: &IdentityKey, link: X25519Secret, address: &str, now: Instant) -> Self {
        let rng = OsRandom::new();
        let address: SocketAddr = address.parse().unwrap();
        let descriptor = RelayDescriptor {
            id: identity.relay_id(),
            version: 1,
            issued: UnixTime(1),
            expires: UnixTime(100),
            link: link.public(),
            addresses: vec![address],
            capacity: 1,
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

    pub fn short(&self) -> ShortId {
        self.descriptor.short_id()
    }

    /// Does what the control plane says.
    pub fn apply(&mut self) {
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

    pub fn command(&mut self, command: Command) {
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
            Command::RelayAddresses(_)
            | Command::OnionKeys(_)
            | Command::NewPaths(_)
            | Command::MeanDelay(_)
            | Command::Stop => {}
        }
    }

    /// Takes a datagram, as a worker and the control plane would.
    pub fn take(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) {
        if datagram_type(datagram) != Ok(DatagramType::Data) {
            self.neighbours.handshake(datagram, source, now);
            self.neighbours.serve(now);
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
    pub fn link_to(&self, other: &Node) -> Option<&Link> {
        self.links.get(&(*self.relays.get(&other.short())?)?)
    }
}

/// Carries datagrams between two relays until none is under way.
pub fn exchange(a: &mut Node, b: &mut Node, now: Instant) {
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
pub fn two(now: Instant) -> (Node, Node) {
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
pub struct Client {
    pub secret: X25519Secret,
    pub address: SocketAddr,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self {
            secret: X25519Secret::generate(&mut OsRandom::new()),
            address: address.parse().unwrap(),
        }
    }

    /// Asks for a session; the answer.
    pub fn ask(
        &self,
        node: &mut Node,
        cookie: Option<&Cookie>,
        now: Instant,
    ) -> Option<(Initiator, Box<Datagram>)> {
        let (initiator, datagram) = self.initiation(node, cookie, cookie.map_or(0, Cookie::effort));
        node.take(&datagram, self.address, now);
        // Others that have waited may be answered too.
        let at = node.sent.iter().rposition(|(_, to)| *to == self.address)?;
        Some((initiator, node.sent.remove(at).0))
    }

    /// An initiation with so much effort, if there is a cookie.
    pub fn initiation(
        &self,
        node: &Node,
        cookie: Option<&Cookie>,
        effort: u32,
    ) -> (Initiator, Box<Datagram>) {
        let at = Timestamp::from(SystemTime::now());
        let (key, rng) = (node.descriptor.link, &mut OsRandom::new());
        let draft = Draft::new(&self.secret, &key, 77, at, rng).unwrap();
        let solution = cookie.filter(|_| effort > 0).map(|cookie| {
            let mut search = draft.puzzle(cookie).search(effort, [0; 16]);
            search.go_on(u32::MAX).unwrap()
        });
        draft.finish(cookie, &solution.unwrap_or_default())
    }

    /// Asks without a cookie, and gets one.
    pub fn cookie(&self, node: &mut Node, now: Instant) -> Cookie {
        let (initiator, answer) = self.ask(node, None, now).unwrap();
        initiator.open_cookie(&answer).unwrap()
    }

    /// Asks for a session, and goes no further when it has it.
    pub fn half(&self, node: &mut Node, now: Instant) -> Option<(Initiator, Box<Datagram>)> {
        let (initiator, answer) = self.ask(node, None, now)?;
        if datagram_type(&answer[..]) != Ok(DatagramType::Cookie) {
            return Some((initiator, answer));
        }
        let cookie = initiator.open_cookie(&answer).unwrap();
        self.ask(node, Some(&cookie), now)
    }

    /// A handshake; none if the relay does not answer.
    pub fn connect(&self, node: &mut Node, now: Instant) -> Option<Established> {
        let (mut initiator, response) = self.half(node, now)?;
        let session = initiator.finish(&response).unwrap();
        // The session was there before the answer went out; it is used only afterwards.
        assert!(node.sessions.contains_key(&session.remote_index));
        self.send(node, &session, &[0; 1368], CellKind::Cover, now);
        Some(session)
    }

    pub fn send(
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
    pub fn say(
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

/// Whether `a` gets a link to `b` when it wants one.
pub fn connects(a: &mut Node, b: &mut Node, now: Instant) -> bool {
    let snapshot = [a.descriptor.clone(), b.descriptor.clone()];
    a.neighbours.set_relays(&snapshot, now);
    a.apply();
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(a, b, now);
    a.link_to(b).is_some()
}

/// Time passes as the control plane sees it.
pub fn pass(node: &mut Node, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now = end.min(*now + Duration::from_secs(1));
        node.neighbours.tick(*now);
        node.apply();
        node.sent.clear();
    }
}
