//! Two neighbours, the network between them and a clock.
#![allow(dead_code, reason = "each file of tests uses its part")]

use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::{Action, Peer, Upkeep};
use mixline_protocol::link::{
    Admission, CellKind, DatagramType, OpenKey, Responder, SealKey, Timestamp, Window, counter,
    datagram_type, receiver_index,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the other one is.
pub const THERE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)),
    7000,
);

/// One end: what a relay or an endpoint keeps for one neighbour.
pub struct Node {
    pub secret: X25519Secret,
    pub responder: Responder,
    pub peer: Peer,
    /// By local index: the key and window of a worker, or nothing for a handshake in flight.
    pub indices: HashMap<u32, Option<(Arc<OpenKey>, Window)>>,
    pub next_index: u32,
    pub seal: Option<Arc<SealKey>>,
    pub out: Vec<Datagram>,
    pub under_load: bool,
    pub initiations: usize,
    /// Made for initiations.
    pub hashes: u64,
    pub cover: usize,
    pub pings: usize,
    pub unreachable: usize,
    /// What has arrived in cells.
    pub received: Vec<u64>,
    pub start: Instant,
}

impl Node {
    pub fn new(secret: X25519Secret, other: &X25519Secret, upkeep: Upkeep, now: Instant) -> Self {
        Self {
            responder: Responder::new(&secret, now, &mut OsRandom::new()),
            peer: Peer::new(secret.public(), other.public(), upkeep, now),
            secret,
            indices: HashMap::new(),
            next_index: 1,
            seal: None,
            out: Vec::new(),
            under_load: false,
            initiations: 0,
            hashes: 0,
            cover: 0,
            pings: 0,
            unreachable: 0,
            received: Vec::new(),
            start: now,
        }
    }

    pub fn index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    pub fn pump(&mut self, now: Instant) {
        self.act(now);
        while self.peer.is_solving() {
            let solved = self.peer.solve(100, now);
            self.out.extend(solved.map(|(made, _)| *made));
            self.hashes += 100;
            self.act(now);
        }
        assert_eq!(self.seal.is_some(), self.peer.is_up());
        let sessions = self.indices.values().flatten().count();
        assert!(
            sessions <= 3 && self.indices.len() <= 4,
            "indices are not given back"
        );
    }

    fn act(&mut self, now: Instant) {
        while let Some(action) = self.peer.poll(now) {
            match action {
                Action::Initiate => {
                    let index = self.index();
                    // A wall clock of whole seconds, which stands still between two initiations.
                    let seconds = 1_000_000 + (now - self.start).as_secs();
                    let at = Timestamp { seconds, nanos: 0 };
                    let rng = &mut OsRandom::new();
                    let made = self.peer.initiate(&self.secret, index, THERE, at, now, rng);
                    self.out.extend(made.unwrap().map(|made| *made));
                    assert!(self.indices.insert(index, None).is_none());
                    self.initiations += 1;
                }
                Action::Install(key) => {
                    self.indices
                        .insert(key.local_index(), Some((key, Window::new())));
                }
                Action::Use(key) => self.seal = Some(key),
                Action::Silence => self.seal = None,
                Action::Remove(index) => {
                    assert!(
                        self.indices.remove(&index).is_some(),
                        "{index} was not in use"
                    );
                }
                Action::KeepAlive => {
                    self.cover += 1;
                    let mut datagram = [0; DATAGRAM];
                    self.seal
                        .as_ref()
                        .unwrap()
                        .seal(&mut datagram, CellKind::Cover)
                        .unwrap();
                    self.out.push(datagram);
                }
                Action::Ping => {
                    self.pings += 1;
                    self.control(&Control::Ping(7));
                }
                Action::Unreachable => self.unreachable += 1,
            }
        }
    }

    pub fn control(&mut self, message: &Control) {
        let mut datagram = [0; DATAGRAM];
        let cell = datagram[CELL_OFFSET..].first_chunk_mut().unwrap();
        message.encode_into(cell).unwrap();
        self.seal
            .as_ref()
            .unwrap()
            .seal(&mut datagram, CellKind::Control)
            .unwrap();
        self.out.push(datagram);
    }

    /// Sends a cell that says `number`, if there is a key.
    pub fn send(&mut self, number: u64, now: Instant) -> bool {
        let Some(seal) = &self.seal else {
            self.peer.want();
            self.pump(now);
            return false;
        };
        let mut datagram = [0; DATAGRAM];
        datagram[CELL_OFFSET..CELL_OFFSET + 8].copy_from_slice(&number.to_be_bytes());
        seal.seal(&mut datagram, CellKind::Cell).unwrap();
        self.out.push(datagram);
        true
    }

    pub fn receive(&mut self, datagram: &Datagram, now: Instant) {
        let index = receiver_index(datagram);
        match datagram_type(datagram.as_slice()).unwrap() {
            DatagramType::Initiation => {
                let source: SocketAddr = "192.0.2.1:7000".parse().unwrap();
                match self
                    .responder
                    .check_macs(datagram, source, self.under_load)
                    .unwrap()
                {
                    Admission::SendCookie(answer) => self.out.push(*answer),
                    Admission::Process => {
                        let index = self.index();
                        let rng = &mut OsRandom::new();
                        let Ok((established, response)) =
                            self.responder.respond(datagram, index, rng)
                        else {
                            return;
                        };
                        if self.peer.accept(established, now).is_ok() {
                            self.pump(now);
                            self.out.push(*response);
                        }
                    }
                }
            }
            DatagramType::Probe => {}
            DatagramType::Response => {
                if self.indices.contains_key(&index) {
                    let _ = self.peer.response(datagram, now);
                }
            }
            DatagramType::Cookie => {
                if self.indices.contains_key(&index) {
                    let _ = self.peer.cookie(datagram, now);
                }
            }
            DatagramType::Data => self.data(datagram, index, now),
        }
        self.pump(now);
    }

    pub fn data(&mut self, datagram: &Datagram, index: u32, now: Instant) {
        let Some(Some((key, window))) = self.indices.get_mut(&index) else {
            return;
        };
        let (mut datagram, counter) = (*datagram, counter(datagram));
        if !window.check(counter) {
            return;
        }
        let Ok(kind) = key.open(&mut datagram) else {
            return;
        };
        window.accept(counter).unwrap();
        self.peer.heard(index, kind, now);
        self.pump(now);
        let cell = datagram[CELL_OFFSET..].first_chunk().unwrap();
        match kind {
            CellKind::Cell => {
                self.received
                    .push(u64::from_be_bytes(*cell.first_chunk().unwrap()));
            }
            CellKind::Cover => {}
            CellKind::Control => match Control::decode(cell).unwrap() {
                Control::Ping(n) => self.control(&Control::Pong(n)),
                Control::Close => self.peer.close(now),
                _ => {}
            },
        }
    }

    pub fn sessions(&self) -> usize {
        self.indices.values().flatten().count()
    }
}

/// Two nodes and a clock.
pub struct World {
    pub a: Node,
    pub b: Node,
    pub now: Instant,
}

impl World {
    /// `a` has the smaller public key if `a_first`.
    pub fn new(a: Upkeep, b: Upkeep, a_first: bool) -> Self {
        let rng = &mut OsRandom::new();
        let (one, two) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
        let swap = (one.public() < two.public()) != a_first;
        let (x, y) = if swap { (two, one) } else { (one, two) };
        let now = Instant::now();
        let node_a = Node::new(x.clone(), &y, a, now);
        Self {
            a: node_a,
            b: Node::new(y, &x, b, now),
            now,
        }
    }

    /// Delivers until nobody has anything to say.
    pub fn settle(&mut self) {
        self.a.pump(self.now);
        self.b.pump(self.now);
        for _ in 0..100 {
            let (to_b, to_a) = (
                std::mem::take(&mut self.a.out),
                std::mem::take(&mut self.b.out),
            );
            if to_a.is_empty() && to_b.is_empty() {
                return;
            }
            to_b.iter().for_each(|d| self.b.receive(d, self.now));
            to_a.iter().for_each(|d| self.a.receive(d, self.now));
        }
        panic!("they never stop");
    }

    /// Passes time in steps of `ms`, polling and delivering.
    pub fn pass(&mut self, time: Duration, ms: u64) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(ms));
            self.settle();
        }
    }

    /// As `pass`, while nothing gets through.
    pub fn pass_cut(&mut self, time: Duration, ms: u64) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(ms));
            self.a.pump(self.now);
            self.b.pump(self.now);
            self.a.out.clear();
            self.b.out.clear();
        }
    }

    pub fn connect(&mut self) {
        assert!(!self.a.send(0, self.now));
        self.settle();
        assert!(self.a.peer.is_up() && self.b.peer.is_up());
    }

    /// Both directions work now.
    pub fn works(&mut self) {
        for number in [u64::MAX - 1, u64::MAX] {
            assert!(self.a.send(number, self.now), "a has no key");
            assert!(self.b.send(number, self.now), "b has no key");
            self.settle();
            assert_eq!(self.a.received.pop(), Some(number), "b to a");
            assert_eq!(self.b.received.pop(), Some(number), "a to b");
        }
    }

    /// Both send under the same session.
    pub fn agree(&self) {
        let (a, b) = (self.a.seal.as_ref().unwrap(), self.b.seal.as_ref().unwrap());
        let a_knows = self.a.indices.contains_key(&b.remote_index());
        let b_knows = self.b.indices.contains_key(&a.remote_index());
        assert!(a_knows && b_knows);
    }
}

pub fn on_demand() -> World {
    World::new(Upkeep::OnDemand, Upkeep::OnDemand, true)
}

pub const SECOND: Duration = Duration::from_secs(1);
