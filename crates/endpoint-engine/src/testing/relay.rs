//! A relay in memory.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::clock::Now;
use chacha20::ChaCha20Rng;
use mixline_protocol::effort::Effort;
use mixline_protocol::epoch;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::{
    Admission, CellKind, DatagramType, OpenKey, REJECT_AFTER, Responder, SealKey, Window, counter,
    datagram_type, receiver_index,
};
use mixline_protocol::path::{
    Hop, KnownPath, MailboxToken, Next, OnionSecret, ReplayTag, open_header,
};
use mixline_protocol::records::{
    ListedRelay, MAX_ONION_KEYS, Parameters, RelayDescriptor, RelayFlags,
};
use mixline_protocol::size::{CELL_OFFSET, Cell, Datagram, PATH_HEADER};
use mixline_protocol::time::UnixTime;
use rand_core::Rng;

/// What a relay wants done.
pub enum Action {
    /// A datagram to a neighbour with an address.
    Send(SocketAddr, Box<Datagram>),
    /// A cell to another relay.
    Pass(ShortId, Box<Cell>),
}

/// How it misbehaves.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Malice {
    #[default]
    None,
    /// Changes a bit of every payload.
    Flip,
    /// Sends every cell on twice, and keeps all to send them again later.
    Replay,
    /// Says nothing and passes nothing on.
    Dead,
    /// Passes nothing on, but answers pings.
    Swallow,
    /// Refuses all mailboxes.
    RefuseMailboxes,
    /// Says nothing to those who want mailboxes.
    IgnoreMailboxes,
}

struct Session {
    open: OpenKey,
    seal: SealKey,
    window: Window,
    remote: X25519Public,
    confirmed: bool,
    since: Instant,
}

/// A client as a relay sees it.
struct Neighbour {
    index: u32,
    address: SocketAddr,
}

pub struct SimRelay {
    pub name: String,
    pub short: ShortId,
    pub addresses: Vec<SocketAddr>,
    pub malice: Malice,
    pub unlisted: bool,
    /// It is under load, asks for cookies, and for this effort.
    pub busy: Option<Effort>,
    /// Somebody who sees the line to it answers each initiation with so many cookies, before it does.
    pub forged_cookies: usize,
    /// Initiations that were answered, and the effort in them.
    pub efforts: Vec<Effort>,
    pub family: Option<String>,
    pub capacity: u32,
    key: IdentityKey,
    link: X25519Secret,
    onion: Vec<(u32, OnionSecret)>,
    responder: Responder,
    sessions: HashMap<u32, Session>,
    neighbours: HashMap<[u8; 32], Neighbour>,
    mailboxes: HashMap<MailboxToken, X25519Public>,
    paths: HashMap<[u8; PATH_HEADER], KnownPath>,
    seen: HashSet<ReplayTag>,
    /// Cells that were refused as replays.
    pub replays: u64,
    /// Cells passed on or delivered.
    pub cells: u64,
    /// Messages about mailboxes, by client.
    pub registrations: HashMap<SocketAddr, u64>,
    /// Cells for mailboxes that nobody has.
    pub undelivered: u64,
    kept: Vec<Cell>,
    /// What it sees of payloads as a junction, if that is recorded: under no layer any more.
    pub payloads: Option<Vec<Vec<u8>>>,
}

impl SimRelay {
    pub fn new(number: usize, parameters: &Parameters, now: Now, rng: &mut ChaCha20Rng) -> Self {
        let key = IdentityKey::generate(rng);
        let link = X25519Secret::generate(rng);
        let net = u8::try_from(20 + number).unwrap();
        let mut relay = Self {
            name: format!("relay{}", number + 1),
            short: key.relay_id().short(),
            addresses: vec![SocketAddr::from(([172, net, 0, 2], 7000))],
            malice: Malice::None,
            unlisted: false,
            busy: None,
            forged_cookies: 0,
            efforts: Vec::new(),
            family: None,
            capacity: 100_000,
            responder: Responder::new(&link, now.instant, rng),
            key,
            link,
            onion: Vec::new(),
            sessions: HashMap::new(),
            neighbours: HashMap::new(),
            mailboxes: HashMap::new(),
            paths: HashMap::new(),
            seen: HashSet::new(),
            replays: 0,
            cells: 0,
            registrations: HashMap::new(),
            undelivered: 0,
            kept: Vec::new(),
            payloads: None,
        };
        relay.renew_onion_keys(parameters, now.unix(), rng);
        relay
    }

    /// The keys of the current epoch and of the next three; the previous one is honoured for a while.
    pub fn renew_onion_keys(
        &mut self,
        parameters: &Parameters,
        now: UnixTime,
        rng: &mut ChaCha20Rng,
    ) {
        let current = epoch::current(now, parameters.epoch_seconds);
        self.onion.retain(|(of, _)| {
            now < epoch::ends(*of, parameters.epoch_seconds, parameters.grace_seconds)
        });
        for wanted in (current..).take(MAX_ONION_KEYS) {
            if !self.onion.iter().any(|(of, _)| *of == wanted) {
                self.onion.push((wanted, OnionSecret::generate(rng)));
            }
        }
    }

    /// As after a crash: all that was in memory is gone, the onion keys too.
    pub fn restart(&mut self, parameters: &Parameters, now: Now, rng: &mut ChaCha20Rng) {
        self.onion.clear();
        self.seen.clear();
        self.restart_in_order(parameters, now, rng);
    }

    /// As after an orderly stop: onion keys, and what is remembered of cells, are stored.
    pub fn restart_in_order(&mut self, parameters: &Parameters, now: Now, rng: &mut ChaCha20Rng) {
        self.sessions.clear();
        self.neighbours.clear();
        self.mailboxes.clear();
        self.paths.clear();
        self.malice = Malice::None;
        self.responder = Responder::new(&self.link, now.instant, rng);
        self.renew_onion_keys(parameters, now.unix(), rng);
    }

    /// The relay as a snapshot lists it that is made now.
    pub fn listed(&self, parameters: &Parameters, now: UnixTime) -> ListedRelay {
        let descriptor = RelayDescriptor {
            id: self.key.relay_id(),
            version: now.0 * 1000,
            issued: now,
            expires: now.plus(3600 * 3),
            link: self.link.public(),
            addresses: self.addresses.clone(),
            capacity: self.capacity,
            family: self.family.clone(),
            name: self.name.clone(),
            software: "simulated".into(),
            signature: [0; 64],
        };
        let current = epoch::current(now, parameters.epoch_seconds);
        let mut onion: Vec<_> = self
            .onion
            .iter()
            .filter(|(of, _)| *of >= current)
            .map(|(of, key)| (*of, key.public()))
            .collect();
        onion.sort_by_key(|(of, _)| *of);
        ListedRelay {
            descriptor: descriptor.sign(&self.key).unwrap(),
            onion: onion.into_iter().take(MAX_ONION_KEYS).collect(),
            capacity: self.capacity,
            since: now,
            flags: RelayFlags::default(),
        }
    }

    pub fn datagram(
        &mut self,
        datagram: &mut Datagram,
        from: SocketAddr,
        now: Now,
        rng: &mut ChaCha20Rng,
    ) -> Vec<Action> {
        if self.malice == Malice::Dead {
            return Vec::new();
        }
        match datagram_type(datagram) {
            Ok(DatagramType::Initiation) => self.initiation(datagram, from, now, rng),
            Ok(DatagramType::Data) => self.data(datagram, from, now, rng),
            _ => Vec::new(),
        }
    }

    fn initiation(
        &mut self,
        datagram: &Datagram,
        from: SocketAddr,
        now: Now,
        rng: &mut ChaCha20Rng,
    ) -> Vec<Action> {
        let mut cookies = Vec::new();
        for _ in 0..self.forged_cookies {
            let forger = Responder::new(&self.link, now.instant, rng);
            let cookie = forger.cookie(datagram, from).unwrap();
            cookies.push(Action::Send(from, cookie));
        }
        self.responder.suggest(self.busy.unwrap_or(0));
        let busy = self.busy.is_some();
        match self.responder.check_macs(datagram, from, busy) {
            Ok(Admission::Process) => {}
            Ok(Admission::SendCookie(cookie)) => {
                cookies.push(Action::Send(from, cookie));
                return cookies;
            }
            Err(_) => return cookies,
        }
        let effort = self.responder.effort(datagram, from).unwrap_or(0);
        if effort < self.busy.unwrap_or(0) {
            let cookie = self.responder.cookie(datagram, from).unwrap();
            cookies.push(Action::Send(from, cookie));
            return cookies;
        }
        self.efforts.push(effort);
        let index = rng.next_u32();
        let Ok((established, response)) = self.responder.respond(datagram, index, rng) else {
            return Vec::new();
        };
        let session = Session {
            open: established.open,
            seal: established.seal,
            window: Window::new(),
            remote: established.remote,
            confirmed: false,
            since: now.instant,
        };
        self.sessions.insert(index, session);
        cookies.push(Action::Send(from, response));
        cookies
    }

    fn data(
        &mut self,
        datagram: &mut Datagram,
        from: SocketAddr,
        now: Now,
        rng: &mut ChaCha20Rng,
    ) -> Vec<Action> {
        let index = receiver_index(datagram);
        let old = |session: &Session| {
            now.instant.saturating_duration_since(session.since) >= REJECT_AFTER
        };
        self.sessions.retain(|_, session| !old(session));
        let Some(session) = self.sessions.get_mut(&index) else {
            return Vec::new();
        };
        let number = counter(datagram);
        if !session.window.check(number) {
            return Vec::new();
        }
        let Ok(kind) = session.open.open(datagram) else {
            return Vec::new();
        };
        session.window.accept(number).unwrap();
        let remote = session.remote;
        if !std::mem::replace(&mut session.confirmed, true) {
            self.neighbours.insert(
                remote.0,
                Neighbour {
                    index,
                    address: from,
                },
            );
        }
        // Who sends under the session in use from elsewhere has moved.
        if let Some(neighbour) = self.neighbours.get_mut(&remote.0)
            && neighbour.index == index
        {
            neighbour.address = from;
        }
        let cell: &mut Cell = (&mut datagram[CELL_OFFSET..CELL_OFFSET + 1368])
            .try_into()
            .unwrap();
        match kind {
            CellKind::Cover => Vec::new(),
            CellKind::Cell => self.cell(cell, now, rng),
            CellKind::Control => match Control::decode(cell).unwrap() {
                Control::Register { request, tokens } => {
                    *self.registrations.entry(from).or_default() += 1;
                    let mut refused = Vec::new();
                    for (token, life) in tokens {
                        match self.mailboxes.get(&token) {
                            _ if self.malice == Malice::IgnoreMailboxes => return Vec::new(),
                            _ if self.malice == Malice::RefuseMailboxes => refused.push(token),
                            Some(other) if *other != remote => refused.push(token),
                            _ if life == 0 => {
                                self.mailboxes.remove(&token);
                            }
                            _ => {
                                self.mailboxes.insert(token, remote);
                            }
                        }
                    }
                    self.say(remote, &Control::Registered { request, refused })
                }
                Control::Ping(id) => self.say(remote, &Control::Pong(id)),
                Control::Close => {
                    self.mailboxes.retain(|_, of| *of != remote);
                    Vec::new()
                }
                _ => Vec::new(),
            },
        }
    }

    /// The relay as a hop under its newest key.
    pub fn hop(&self) -> Hop {
        let key = self.onion.iter().max_by_key(|(of, _)| *of).unwrap();
        Hop {
            relay: self.short,
            onion: key.1.public(),
        }
    }

    /// Frees what it remembers of cells.
    pub fn forget_replays(&mut self) {
        self.seen.clear();
    }

    pub fn cell(&mut self, cell: &mut Cell, _now: Now, rng: &mut ChaCha20Rng) -> Vec<Action> {
        if matches!(self.malice, Malice::Dead | Malice::Swallow) {
            return Vec::new();
        }
        let header: [u8; PATH_HEADER] = cell[..PATH_HEADER].try_into().unwrap();
        if !self.paths.contains_key(&header) {
            let Some(path) = self
                .onion
                .iter()
                .find_map(|(_, key)| open_header(key, &header).ok())
            else {
                return Vec::new();
            };
            self.paths.insert(header, path);
        }
        let path = &self.paths[&header];
        let tag = path.peel(cell);
        let next = path.next();
        if !self.seen.insert(tag) {
            self.replays += 1;
            return Vec::new();
        }
        self.cells += 1;
        match self.malice {
            Malice::Flip => {
                let at = PATH_HEADER + usize::try_from(rng.next_u32()).unwrap() % 1072;
                cell[at] ^= 1 << (rng.next_u32() % 8);
            }
            Malice::Replay => self.kept.push(*cell),
            _ => {}
        }
        let twice = self.malice == Malice::Replay;
        let mut actions = Vec::new();
        if let (Some(payloads), Next::Junction(_)) = (&mut self.payloads, &next) {
            payloads.push(cell[PATH_HEADER..].to_vec());
        }
        match next {
            Next::Forward(to) | Next::Junction(to) => {
                actions.push(Action::Pass(to, Box::new(*cell)));
                if twice {
                    actions.push(Action::Pass(to, Box::new(*cell)));
                    // And an old one.
                    let old = usize::try_from(rng.next_u32()).unwrap() % self.kept.len();
                    actions.push(Action::Pass(to, Box::new(self.kept[old])));
                }
            }
            Next::Deliver(token) => match self.mailboxes.get(&token) {
                Some(remote) => {
                    let remote = *remote;
                    // What the client knows its tails by.
                    cell[..8].copy_from_slice(&token.0);
                    actions.extend(self.seal(remote, cell, CellKind::Cell));
                    if twice {
                        actions.extend(self.seal(remote, cell, CellKind::Cell));
                    }
                }
                None => self.undelivered += 1,
            },
        }
        actions
    }

    fn say(&mut self, remote: X25519Public, control: &Control) -> Vec<Action> {
        let mut cell = [0; 1368];
        control.encode_into(&mut cell).unwrap();
        self.seal(remote, &cell, CellKind::Control)
            .into_iter()
            .collect()
    }

    fn seal(&self, remote: X25519Public, cell: &Cell, kind: CellKind) -> Option<Action> {
        let neighbour = self.neighbours.get(&remote.0)?;
        let session = self.sessions.get(&neighbour.index)?;
        let mut datagram = Box::new([0; 1408]);
        datagram[CELL_OFFSET..CELL_OFFSET + 1368].copy_from_slice(cell);
        session.seal.seal(&mut datagram, kind).ok()?;
        Some(Action::Send(neighbour.address, datagram))
    }
}
