//! Neighbours over a simulated network: who initiates when, what overlaps, what is forgotten.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::Error;
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::{Action, Peer, Upkeep};
use mixline_protocol::link::{
    Admission, CellKind, DatagramType, HANDSHAKE_GIVE_UP, HANDSHAKE_RETRY, OpenKey, REJECT_AFTER,
    Responder, SealKey, Timestamp, Window, counter, datagram_type, receiver_index,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One end: what a relay or an endpoint keeps for one neighbour.
struct Node {
    secret: X25519Secret,
    responder: Responder,
    peer: Peer,
    /// By local index: the key and window of a worker, or nothing for a handshake in flight.
    indices: HashMap<u32, Option<(Arc<OpenKey>, Window)>>,
    next_index: u32,
    seal: Option<Arc<SealKey>>,
    out: Vec<Box<Datagram>>,
    under_load: bool,
    initiations: usize,
    cover: usize,
    pings: usize,
    unreachable: usize,
    /// What has arrived in cells.
    received: Vec<u64>,
    start: Instant,
}

impl Node {
    fn new(secret: X25519Secret, other: &X25519Secret, upkeep: Upkeep, now: Instant) -> Self {
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
            cover: 0,
            pings: 0,
            unreachable: 0,
            received: Vec::new(),
            start: now,
        }
    }

    fn index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    fn pump(&mut self, now: Instant) {
        while let Some(action) = self.peer.poll(now) {
            match action {
                Action::Initiate => {
                    let index = self.index();
                    // A wall clock of whole seconds, which stands still between two initiations.
                    let seconds = 1_000_000 + (now - self.start).as_secs();
                    let at = Timestamp { seconds, nanos: 0 };
                    let rng = &mut OsRandom::new();
                    self.out.push(
                        self.peer
                            .initiate(&self.secret, index, at, now, rng)
                            .unwrap(),
                    );
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
                    let mut datagram = Box::new([0; DATAGRAM]);
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
        assert_eq!(self.seal.is_some(), self.peer.is_up());
        let sessions = self.indices.values().flatten().count();
        assert!(
            sessions <= 3 && self.indices.len() <= 4,
            "indices are not given back"
        );
    }

    fn control(&mut self, message: &Control) {
        let mut datagram = Box::new([0; DATAGRAM]);
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
    fn send(&mut self, number: u64, now: Instant) -> bool {
        let Some(seal) = &self.seal else {
            self.peer.want();
            self.pump(now);
            return false;
        };
        let mut datagram = Box::new([0; DATAGRAM]);
        datagram[CELL_OFFSET..CELL_OFFSET + 8].copy_from_slice(&number.to_be_bytes());
        seal.seal(&mut datagram, CellKind::Cell).unwrap();
        self.out.push(datagram);
        true
    }

    fn receive(&mut self, datagram: &Datagram, now: Instant) {
        let index = receiver_index(datagram);
        match datagram_type(datagram.as_slice()).unwrap() {
            DatagramType::Initiation => {
                let source: SocketAddr = "192.0.2.1:7000".parse().unwrap();
                match self
                    .responder
                    .check_macs(datagram, source, self.under_load)
                    .unwrap()
                {
                    Admission::SendCookie(answer) => self.out.push(answer),
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
                            self.out.push(response);
                        }
                    }
                }
            }
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

    fn data(&mut self, datagram: &Datagram, index: u32, now: Instant) {
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

    fn sessions(&self) -> usize {
        self.indices.values().flatten().count()
    }
}

/// Two nodes and a clock.
struct World {
    a: Node,
    b: Node,
    now: Instant,
}

impl World {
    /// `a` has the smaller public key if `a_first`.
    fn new(a: Upkeep, b: Upkeep, a_first: bool) -> Self {
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
    fn settle(&mut self) {
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
    fn pass(&mut self, time: Duration, ms: u64) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(ms));
            self.settle();
        }
    }

    /// As `pass`, while nothing gets through.
    fn pass_cut(&mut self, time: Duration, ms: u64) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(ms));
            self.a.pump(self.now);
            self.b.pump(self.now);
            self.a.out.clear();
            self.b.out.clear();
        }
    }

    fn connect(&mut self) {
        assert!(!self.a.send(0, self.now));
        self.settle();
        assert!(self.a.peer.is_up() && self.b.peer.is_up());
    }

    /// Both directions work now.
    fn works(&mut self) {
        for number in [u64::MAX - 1, u64::MAX] {
            assert!(self.a.send(number, self.now), "a has no key");
            assert!(self.b.send(number, self.now), "b has no key");
            self.settle();
            assert_eq!(self.a.received.pop(), Some(number), "b to a");
            assert_eq!(self.b.received.pop(), Some(number), "a to b");
        }
    }

    /// Both send under the same session.
    fn agree(&self) {
        let (a, b) = (self.a.seal.as_ref().unwrap(), self.b.seal.as_ref().unwrap());
        let a_knows = self.a.indices.contains_key(&b.remote_index());
        let b_knows = self.b.indices.contains_key(&a.remote_index());
        assert!(a_knows && b_knows);
    }
}

fn on_demand() -> World {
    World::new(Upkeep::OnDemand, Upkeep::OnDemand, true)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_comes_up_on_demand() {
    let mut world = on_demand();
    world.pass(SECOND * 60, 1000);
    assert_eq!(
        (world.a.initiations, world.b.initiations),
        (0, 0),
        "nobody asked"
    );
    world.connect();
    assert_eq!((world.a.initiations, world.b.initiations), (1, 0));
    world.works();
    assert_eq!((world.a.sessions(), world.b.sessions()), (1, 1));
}

#[test]
fn the_responder_waits_for_a_sign_of_life() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let initiation = world.a.out.pop().unwrap();
    world.b.receive(&initiation, world.now);
    assert_eq!(world.b.sessions(), 1);
    assert!(
        !world.b.peer.is_up(),
        "it would send to whoever replayed this"
    );
    assert!(!world.b.send(1, world.now));
    world.settle();
    assert!(world.b.peer.is_up());
}

#[test]
fn sessions_are_replaced_without_loss() {
    let mut world = on_demand();
    world.connect();
    let mut held = Vec::new();
    let mut sent = 0;
    for second in 0..1000u64 {
        world.now += SECOND;
        for _ in 0..3 {
            sent += 1;
            assert!(world.a.send(sent, world.now) && world.b.send(sent, world.now));
            // One in three is held up for two seconds, across a change of keys too.
            if sent % 3 == 0 {
                held.push((
                    second,
                    world.a.out.pop().unwrap(),
                    world.b.out.pop().unwrap(),
                ));
            }
        }
        world.settle();
        while held.first().is_some_and(|(when, ..)| when + 2 <= second) {
            let (_, to_b, to_a) = held.remove(0);
            world.b.receive(&to_b, world.now);
            world.a.receive(&to_a, world.now);
        }
    }
    let all = |node: &Node| node.received.iter().copied().collect::<HashSet<_>>().len();
    assert!(all(&world.a) as u64 >= sent - 3 && all(&world.b) as u64 >= sent - 3);
    let handshakes = world.a.initiations + world.b.initiations;
    assert!(
        (8..=9).contains(&handshakes),
        "{handshakes} in 1000 seconds"
    );
    assert_eq!(world.b.initiations, 0, "both rekey");
}

#[test]
fn if_the_initiator_does_not_rekey_the_responder_does() {
    let mut world = on_demand();
    world.connect();
    world.a.peer.set_upkeep(Upkeep::Never);
    let end = world.now + SECOND * 300;
    while world.now < end {
        world.now += SECOND;
        assert!(
            world.b.send(1, world.now),
            "no key at {:?}",
            world.b.peer.age(world.now)
        );
        world.settle();
    }
    assert_eq!((world.a.initiations, world.b.initiations), (1, 2));
    world.works();
}

#[test]
fn an_idle_link_is_forgotten() {
    let mut world = on_demand();
    world.connect();
    world.works();
    world.pass(REJECT_AFTER - SECOND, 1000);
    assert!(world.a.peer.is_up());
    world.pass(SECOND * 2, 1000);
    assert!(!world.a.peer.is_up() && !world.b.peer.is_up());
    assert!(world.a.peer.is_idle() && world.b.peer.is_idle());
    assert!(world.a.indices.is_empty() && world.b.indices.is_empty());
    assert_eq!((world.a.initiations, world.b.initiations), (1, 0));
    // A few signs of life for the cells of `works`, and no more.
    assert!(world.a.cover + world.b.cover <= 4);
    world.connect();
    world.works();
}

#[test]
fn nothing_is_sealed_under_an_old_session_though_no_new_one_comes() {
    let mut world = on_demand();
    world.connect();
    let since = world.now;
    while world.now < since + REJECT_AFTER {
        assert!(world.a.peer.is_up());
        world.a.send(1, world.now);
        world.pass_cut(SECOND, 1000);
    }
    assert!(
        !world.a.peer.is_up(),
        "a session of {REJECT_AFTER:?} is still in use"
    );
    assert!(!world.b.peer.is_up());
    assert_eq!(world.a.sessions() + world.b.sessions(), 0);
}

#[test]
fn a_lost_handshake_is_made_anew() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let first = world.a.out.pop().unwrap();
    world.b.receive(&first, world.now);
    let late = world.b.out.pop().unwrap();
    world.pass_cut(HANDSHAKE_RETRY - Duration::from_millis(1), 100);
    assert_eq!(world.a.initiations, 1, "too early");
    world.now += Duration::from_millis(400);
    world.a.pump(world.now);
    assert_eq!(world.a.initiations, 2);
    let second = world.a.out.last().unwrap();
    assert_ne!(receiver_index(&first), receiver_index(second));
    assert_ne!(
        first[16..48],
        second[16..48],
        "the same ephemeral key twice"
    );
    // The answer to the first is for an index that is no longer there.
    assert!(!world.a.indices.contains_key(&receiver_index(&late)));
    assert!(matches!(
        world.a.peer.response(&late, world.now),
        Err(Error::Malformed { .. })
    ));
    world.settle();
    world.works();
}

#[test]
fn retries_are_spread() {
    let mut delays = HashSet::new();
    for _ in 0..20 {
        let mut world = on_demand();
        world.a.send(0, world.now);
        let start = world.now;
        while world.a.initiations < 2 {
            world.pass_cut(Duration::from_millis(1), 1);
        }
        let delay = world.now - start;
        assert!(
            delay >= HANDSHAKE_RETRY && delay <= HANDSHAKE_RETRY + SECOND / 2,
            "{delay:?}"
        );
        delays.insert(delay);
    }
    assert!(delays.len() > 5, "{delays:?}");
}

#[test]
fn who_does_not_answer_is_given_up() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    world.pass_cut(HANDSHAKE_GIVE_UP - SECOND, 100);
    assert_eq!(world.a.unreachable, 0);
    world.pass_cut(SECOND * 2, 100);
    assert_eq!(world.a.unreachable, 1);
    assert!(
        (16..=18).contains(&world.a.initiations),
        "{}",
        world.a.initiations
    );
    let initiations = world.a.initiations;
    world.pass_cut(SECOND * 600, 100);
    assert_eq!((world.a.unreachable, world.a.initiations), (1, initiations));
    assert!(world.a.peer.is_idle() && world.a.indices.is_empty());
    world.connect();
    world.works();
}

#[test]
fn a_link_that_is_kept_up_is_always_up() {
    let mut world = World::new(Upkeep::Always, Upkeep::Never, true);
    world.settle();
    world.works();
    for _ in 0..3600 {
        world.pass(SECOND, 1000);
        assert!(world.a.peer.is_up() && world.b.peer.is_up());
    }
    world.works();
    assert_eq!(world.b.initiations, 0);
    assert!(
        (29..=31).contains(&world.a.initiations),
        "{}",
        world.a.initiations
    );
    assert!(
        world.a.pings >= 3600 / 30,
        "a NAT in between has forgotten it"
    );
    // A few signs of life an hour, not one a second.
    let cover = world.a.cover + world.b.cover;
    assert!(cover < 600, "{cover}");
    // The guard goes away for an hour and comes back.
    world.pass_cut(SECOND * 3600, 1000);
    assert!(!world.a.peer.is_up());
    assert!(world.a.unreachable > 30);
    world.pass(SECOND * 12, 1000);
    world.works();
}

#[test]
fn a_neighbour_that_lost_everything_is_noticed() {
    for upkeep in [Upkeep::OnDemand, Upkeep::Always] {
        let mut world = World::new(upkeep, Upkeep::Never, true);
        world.a.peer.want();
        world.settle();
        world.works();
        let fresh = Node::new(
            world.b.secret.clone(),
            &world.a.secret,
            Upkeep::Never,
            world.now,
        );
        world.b = fresh;
        let lost = world.now;
        while !world.b.peer.is_up() {
            if upkeep == Upkeep::OnDemand {
                world.a.send(1, world.now);
            }
            world.pass(SECOND, 1000);
            assert!(world.now - lost < SECOND * 40, "not noticed ({upkeep:?})");
        }
        world.works();
        world.agree();
    }
}

#[test]
fn one_way_traffic_is_answered_with_signs_of_life() {
    let mut world = on_demand();
    world.connect();
    for n in 0..100 {
        assert!(world.a.send(n, world.now));
        world.pass(SECOND, 1000);
    }
    assert_eq!(
        world.a.initiations, 1,
        "took a quiet neighbour for a dead one"
    );
    assert!((8..=12).contains(&world.b.cover), "{}", world.b.cover);
    let cover = world.a.cover;
    world.pass(SECOND * 60, 1000);
    assert_eq!(world.a.cover, cover, "cover was answered with cover");
}

#[test]
fn initiations_at_the_same_time_end_in_one_session() {
    for a_first in [true, false] {
        let mut world = World::new(Upkeep::OnDemand, Upkeep::OnDemand, a_first);
        world.a.send(0, world.now);
        world.b.send(0, world.now);
        world.settle();
        assert_eq!((world.a.initiations, world.b.initiations), (1, 1));
        world.works();
        world.agree();
        assert_eq!(world.a.peer.age(world.now), world.b.peer.age(world.now));
        // The one with the smaller key has initiated the session that both use: it alone rekeys.
        for n in 0..130 {
            assert!(world.a.send(n, world.now) && world.b.send(n, world.now));
            world.pass(SECOND, 1000);
        }
        let expected = if a_first { (2, 1) } else { (1, 2) };
        assert_eq!((world.a.initiations, world.b.initiations), expected);
        world.works();
    }
}

#[test]
fn initiations_that_cross_in_any_order_work_out() {
    // Each message of both handshakes, delivered in every order that the network may choose.
    for order in 0..64u32 {
        let mut world = World::new(Upkeep::OnDemand, Upkeep::OnDemand, order % 2 == 0);
        world.a.send(0, world.now);
        world.b.send(0, world.now);
        let mut choice = order;
        for _ in 0..12 {
            let from_a = choice & 1 == 0;
            choice = (choice >> 1) | ((choice & 1) << 5);
            let (from, to) = if from_a {
                (&mut world.a, &mut world.b)
            } else {
                (&mut world.b, &mut world.a)
            };
            if !from.out.is_empty() {
                let datagram = from.out.remove(0);
                to.receive(&datagram, world.now);
            }
        }
        world.settle();
        world.works();
        world.works();
        world.agree();
    }
}

#[test]
fn a_replayed_initiation_disturbs_nothing() {
    let mut world = on_demand();
    world.a.send(0, world.now);
    let old = world.a.out.last().unwrap().clone();
    world.settle();
    world.works();
    world.pass(SECOND, 1000);
    let before = world.b.seal.clone().unwrap();
    // The responder remembers it.
    world.b.receive(&old, world.now);
    assert!(world.b.out.is_empty(), "answered");
    // It has been made to forget: the peer remembers.
    world.b.responder = Responder::new(&world.b.secret, world.now, &mut OsRandom::new());
    world.b.receive(&old, world.now);
    assert!(world.b.out.is_empty(), "answered");
    assert_eq!(world.b.sessions(), 1);
    assert!(Arc::ptr_eq(&before, world.b.seal.as_ref().unwrap()));
    world.works();
    // All is forgotten, as after a restart: a session that nobody can use, and the true one
    // comes all the same.
    world.b = Node::new(
        world.b.secret.clone(),
        &world.a.secret,
        Upkeep::OnDemand,
        world.now,
    );
    world.b.receive(&old, world.now);
    assert!(!world.b.peer.is_up());
    for _ in 0..30 {
        world.a.send(1, world.now);
        world.pass(SECOND, 1000);
    }
    world.works();
    world.agree();
}

#[test]
fn initiations_of_a_neighbour_are_limited() {
    let mut world = on_demand();
    let mut made = Vec::new();
    for n in 1..10u64 {
        let mut other = Node::new(
            world.a.secret.clone(),
            &world.b.secret,
            Upkeep::OnDemand,
            world.now - SECOND * 20 + SECOND * n as u32,
        );
        // Later starts have smaller clocks in `pump`, so that the last is the oldest.
        other.send(0, world.now);
        made.push(other.out.remove(0));
    }
    made.reverse();
    for initiation in &made {
        world.b.receive(initiation, world.now);
    }
    assert_eq!(world.b.out.len(), 1, "nine initiations in no time");
    assert_eq!(world.b.sessions(), 1);
}

#[test]
fn a_cookie_is_returned_at_once() {
    let mut world = on_demand();
    world.b.under_load = true;
    world.a.send(0, world.now);
    world.settle();
    assert_eq!(world.a.initiations, 2);
    world.works();
    // It is good for the next handshake too.
    for n in 0..119 {
        world.a.send(n, world.now);
        world.pass(SECOND, 1000);
    }
    world.a.send(1, world.now);
    world.pass(SECOND * 5, 1000);
    world.works();
}

#[test]
fn cookies_do_not_make_a_loop() {
    let mut world = on_demand();
    world.b.under_load = true;
    // A responder whose cookies are never good.
    for _ in 0..100 {
        world.b.responder = Responder::new(&world.b.secret, world.now, &mut OsRandom::new());
        world.a.send(0, world.now);
        for datagram in std::mem::take(&mut world.a.out) {
            world.b.receive(&datagram, world.now);
        }
        for datagram in std::mem::take(&mut world.b.out) {
            world.a.receive(&datagram, world.now);
        }
        world.now += Duration::from_millis(100);
    }
    assert!(
        world.a.initiations <= 4,
        "{} in ten seconds",
        world.a.initiations
    );
}

#[test]
fn closing_ends_all_on_both_sides() {
    let mut world = World::new(Upkeep::Always, Upkeep::Never, true);
    world.settle();
    world.works();
    world.b.control(&Control::Close);
    world.b.peer.close(world.now);
    world.b.pump(world.now);
    let to_a = std::mem::take(&mut world.b.out);
    to_a.iter().for_each(|d| world.a.receive(d, world.now));
    assert!(world.a.indices.is_empty() && world.b.indices.is_empty());
    assert!(!world.a.peer.is_up() && !world.b.peer.is_up());
    world.pass(SECOND * 4, 1000);
    assert_eq!(world.a.initiations, 1, "does not leave it in peace");
    world.pass(SECOND * 3, 1000);
    world.works();
}

#[test]
fn somebody_elses_session_is_not_accepted() {
    let mut world = on_demand();
    let rng = &mut OsRandom::new();
    let stranger = X25519Secret::generate(rng);
    let mut node = Node::new(stranger, &world.b.secret, Upkeep::OnDemand, world.now);
    node.send(0, world.now);
    let (established, _) = world.b.responder.respond(&node.out[0], 5, rng).unwrap();
    assert!(matches!(
        world.b.peer.accept(established, world.now),
        Err(Error::Malformed { .. })
    ));
    assert!(world.b.peer.is_idle());
}

#[test]
fn signs_under_unknown_indices_mean_nothing() {
    let mut world = on_demand();
    world.connect();
    world.a.peer.heard(999, CellKind::Cell, world.now);
    world.pass(SECOND * 11, 1000);
    assert_eq!(world.a.cover, 1, "only the one that confirmed the session");
}

/// Failing cases are printed and not written to a file.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(24))]

    /// Whatever the network does for ten minutes, some seconds later the link works.
    #[test]
    fn after_any_weather_the_link_works(
        seed: u64,
        loss in 0u64..100,
        roles in prop::sample::select(vec![
            (Upkeep::OnDemand, Upkeep::OnDemand),
            (Upkeep::Always, Upkeep::Never),
            (Upkeep::Always, Upkeep::OnDemand),
        ]),
        a_first: bool,
    ) {
        let mut world = World::new(roles.0, roles.1, a_first);
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 8
        };
        let mut way: Vec<(bool, Box<Datagram>)> = Vec::new();
        for _ in 0..1200 {
            world.now += Duration::from_millis(500);
            if random() % 4 == 0 {
                world.a.send(1, world.now);
            }
            if random() % 4 == 0 {
                world.b.send(1, world.now);
            }
            world.a.pump(world.now);
            world.b.pump(world.now);
            way.extend(world.a.out.drain(..).map(|d| (true, d)));
            way.extend(world.b.out.drain(..).map(|d| (false, d)));
            for _ in 0..random() % 12 {
                if way.is_empty() {
                    break;
                }
                let (to_b, datagram) = way.swap_remove(random() as usize % way.len());
                if random() % 100 < loss {
                    continue;
                }
                if random() % 10 == 0 {
                    // Twice.
                    way.push((to_b, datagram.clone()));
                }
                let node = if to_b { &mut world.b } else { &mut world.a };
                node.receive(&datagram, world.now);
            }
            way.truncate(50);
        }
        for _ in 0..30 {
            world.a.send(1, world.now);
            if roles.1 != Upkeep::Never {
                world.b.send(1, world.now);
            }
            world.pass(SECOND, 500);
        }
        world.works();
        world.agree();
    }
}
