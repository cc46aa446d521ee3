//! Hosts that answer or do not, and a clock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::{IdentityKey, RelayId, X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::{
    Admission, CellKind, DatagramType, OpenKey, Responder, Timestamp, datagram_type, receiver_index,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, Datagram};

use crate::proving::{Change, Described, Proving, State};

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How a host answers initiations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As a relay does.
    Honest,
    /// As one under load that serves whoever shows this effort.
    Busy(Effort),
    /// By cookies for ever, that suggest this effort.
    CookiesOnly(Effort),
    /// From there.
    From(SocketAddr),
    /// By the first response that it ever gave.
    Replays,
    /// With responses that have one bit turned.
    Bent,
}

/// Whoever is at an address.
pub struct Host {
    responder: Responder,
    pub manner: Manner,
    /// Loses so many of a hundred datagrams in each direction.
    pub loss: u64,
    first: Option<Box<Datagram>>,
    sessions: HashMap<u32, OpenKey>,
    next_index: u32,
    /// Initiations that reached it.
    pub asked: usize,
    /// Sessions that were closed.
    pub closed: usize,
}

impl Host {
    fn new(secret: &X25519Secret, now: Instant) -> Self {
        Self {
            responder: Responder::new(secret, now, &mut OsRandom::new()),
            manner: Manner::Honest,
            loss: 0,
            first: None,
            sessions: HashMap::new(),
            next_index: 0,
            asked: 0,
            closed: 0,
        }
    }

    /// Sessions that were made and not closed.
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    fn take(&mut self, datagram: &Datagram, from: SocketAddr) -> Option<Box<Datagram>> {
        if datagram_type(datagram) == Ok(DatagramType::Data) {
            let index = receiver_index(datagram);
            let mut datagram = *datagram;
            let kind = self.sessions.get(&index)?.open(&mut datagram).unwrap();
            assert_eq!(kind, CellKind::Control);
            let message = Control::decode(datagram[CELL_OFFSET..].first_chunk().unwrap());
            assert_eq!(message, Ok(Control::Close));
            self.sessions.remove(&index);
            self.closed += 1;
            return None;
        }
        self.asked += 1;
        let responder = &mut self.responder;
        match self.manner {
            Manner::Busy(effort) => {
                responder.suggest(effort);
                if responder.effort(datagram, from).unwrap_or(0) < effort {
                    return responder.cookie(datagram, from).ok();
                }
            }
            Manner::CookiesOnly(effort) => {
                responder.suggest(effort);
                let admission = responder.check_macs(datagram, from, false);
                assert!(matches!(admission, Ok(Admission::Process)));
                return responder.cookie(datagram, from).ok();
            }
            _ => responder.check_mac1(datagram).ok()?,
        }
        self.next_index += 1;
        let rng = &mut OsRandom::new();
        let (session, mut response) = responder.respond(datagram, self.next_index, rng).unwrap();
        self.sessions.insert(session.local_index, session.open);
        if self.manner == Manner::Bent {
            response[200] ^= 1;
        }
        let first = self.first.get_or_insert_with(|| response.clone()).clone();
        if self.manner == Manner::Replays {
            // As if it were for this one: the index is in the clear.
            let mut again = first;
            again[4..8].copy_from_slice(&datagram[4..8]);
            return Some(again);
        }
        Some(response)
    }
}

/// A relay of the tests.
#[derive(Clone)]
pub struct TestRelay {
    pub id: RelayId,
    pub secret: X25519Secret,
    pub addresses: Vec<SocketAddr>,
    pub source: Option<IpAddr>,
}

impl TestRelay {
    /// A relay at these addresses, which registers from the first.
    pub fn new(addresses: &[&str]) -> Self {
        let addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
        let rng = &mut OsRandom::new();
        Self {
            id: IdentityKey::generate(rng).relay_id(),
            secret: X25519Secret::generate(rng),
            source: Some(addresses[0].ip()),
            addresses,
        }
    }

    /// One that nobody is behind: its key and ID are made of a number, which is cheap.
    pub fn nobody(n: u32, addresses: Vec<SocketAddr>, source: IpAddr) -> Self {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Self {
            id: RelayId(bytes),
            secret: X25519Secret::from_bytes(bytes),
            addresses,
            source: Some(source),
        }
    }

    pub fn described(&self) -> Described<'_> {
        Described {
            link: self.secret.public(),
            addresses: &self.addresses,
        }
    }
}

/// The directory and all hosts.
pub struct World {
    pub proving: Proving<OsRandom>,
    pub now: Instant,
    start: Instant,
    pub hosts: HashMap<SocketAddr, Host>,
    /// Addresses that the directory has no way to.
    pub no_way: fn(&SocketAddr) -> bool,
    /// All that was sent, by where to.
    pub sent: HashMap<SocketAddr, usize>,
    pub changes: Vec<Change>,
    random: u64,
}

pub const DIRECTORY: &str = "198.18.0.1:40000";

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            proving: Proving::new(OsRandom::new(), now),
            now,
            start: now,
            hosts: HashMap::new(),
            no_way: |_| false,
            sent: HashMap::new(),
            changes: Vec::new(),
            random: 1,
        }
    }

    /// Somebody with a relay's key is at all of its addresses.
    pub fn settle(&mut self, relay: &TestRelay) {
        for address in &relay.addresses {
            self.hosts
                .insert(*address, Host::new(&relay.secret, self.now));
        }
    }

    pub fn host(&mut self, at: &str) -> &mut Host {
        self.hosts.get_mut(&address(at)).unwrap()
    }

    pub fn want(&mut self, relay: &TestRelay) -> State {
        let (id, now) = (relay.id, self.now);
        self.proving
            .wanted(id, relay.described(), relay.source, now)
    }

    pub fn state(&self, relay: &TestRelay) -> State {
        self.proving.state(&relay.id, relay.described(), self.now)
    }

    pub fn is_proven(&self, relay: &TestRelay) -> bool {
        self.state(relay).is_proven()
    }

    /// Wants a relay and says what became of it within a minute.
    pub fn outcome(&mut self, relay: &TestRelay) -> State {
        assert!(!self.want(relay).is_proven());
        self.pass(Duration::from_secs(50));
        self.state(relay)
    }

    /// Time passes, and everybody does what there is to do.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            if self.now >= end {
                return self.proving.check_invariants();
            }
            let next = self.proving.next_poll(self.now).unwrap_or(end);
            self.now = next.max(self.now + Duration::from_millis(1)).min(end);
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp {
            seconds: 1_000_000 + (self.now - self.start).as_secs(),
            nanos: 0,
        }
    }

    fn pump(&mut self) {
        let directory = address(DIRECTORY);
        let wall = self.wall();
        let mut out = self.proving.poll(self.now, wall);
        while let Some((to, datagram)) = out.pop() {
            if (self.no_way)(&to) {
                self.proving.has_no_way(to, self.now);
                continue;
            }
            *self.sent.entry(to).or_default() += 1;
            let lost = self.is_lost(to);
            let Some(host) = self.hosts.get_mut(&to).filter(|_| !lost) else {
                continue;
            };
            let from = match host.manner {
                Manner::From(elsewhere) => elsewhere,
                _ => to,
            };
            let answer = host.take(&datagram, directory);
            if let Some(answer) = answer
                && !self.is_lost(to)
            {
                out.extend(self.proving.received(&answer, from, self.now, wall));
            }
        }
        while let Some(change) = self.proving.next_change() {
            self.changes.push(change);
        }
    }

    fn is_lost(&mut self, at: SocketAddr) -> bool {
        let loss = self.hosts.get(&at).map_or(0, |host| host.loss);
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (self.random >> 33) % 100 < loss
    }
}

/// A key of nobody.
pub fn low_order() -> X25519Public {
    X25519Public([0; 32])
}
