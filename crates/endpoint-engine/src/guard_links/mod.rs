//! Links to the guards.
//!
//! `Peer` makes and replaces the sessions of a link; this module has what a client adds: it
//! notices a dead guard within `DEAD_AFTER`, tries the guard's other addresses, and
//! goes on listening under the old keys, in case only the route was down.
//!
//! Every guard gets a link key of its own, made at the start of this run, so that guards cannot
//! recognise a client by it.

mod findings;
mod link;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::identity::{RelayId, ShortId, X25519Public};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::Action;
use mixline_protocol::link::{
    CellKind, DatagramType, SealKey, Window, counter, datagram_type, receiver_index,
};
use mixline_protocol::size::{CELL, CELL_OFFSET, Cell, Datagram};
use rand_core::CryptoRng;

use crate::clock::Now;
pub use crate::guard_links::findings::PathFinding;
pub use crate::guard_links::link::LinkEvent;
pub(crate) use crate::guard_links::link::cell_mut;
use crate::guard_links::link::{GuardLink, LinkSession, seal_control};
use crate::outbox::Outbox;
use crate::relays::network::{Network, Relay};
use crate::status::Counters;

/// A link that is no longer wanted is held for so long, until tails and paths have moved.
pub const LINGER: Duration = Duration::from_secs(120);
/// A guard that has been down for so long is worth looking at the way to it: three handshakes have had
/// no answer, so it is neither a relay that is just starting nor one datagram that was lost.
const LOOK_AFTER: Duration = Duration::from_secs(12);
/// Hashes that effort for a guard costs between two looks at the time while another guard is in use: some 2 ms ...
const HASHES_BESIDE: u32 = 1 << 13;
/// ... and while there is nothing else to do.
const HASHES_ALONE: u32 = 1 << 16;
/// How often the peer is told that something was heard.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Which kinds of addresses the sockets here can send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// There is an IPv4 socket.
    pub v4: bool,
    /// There is an IPv6 socket.
    pub v6: bool,
}

impl Families {
    /// Whether an address can be sent to.
    #[must_use]
    pub fn allow(&self, address: &SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// A guard in use, and how it is reached: what is needed to measure the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardTarget {
    /// The guard as [`status`](crate::status::Status) shows it.
    pub status: crate::status::GuardStatus,
    /// Its link key.
    pub link: X25519Public,
    /// Its addresses of the families that this host has, those in use first.
    pub addresses: Vec<SocketAddr>,
}

/// How a link looks from outside.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// Whether it works.
    pub up: bool,
    /// Round trip to the guard.
    pub rtt: Option<Duration>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// How the way to it was found to be since it has been down.
    pub finding: Option<PathFinding>,
}

/// The links to all guards.
pub struct Links {
    links: Vec<GuardLink>,
    families: Families,
    events: Vec<LinkEvent>,
}

impl Links {
    /// None yet.
    #[must_use]
    pub fn new(families: Families) -> Self {
        Self {
            links: Vec::new(),
            families,
            events: Vec::new(),
        }
    }

    /// Which kinds of addresses can be sent to from now on.
    pub fn set_families(&mut self, families: Families) {
        self.families = families;
    }

    /// Begins handshakes with all guards at once; sessions that there are go on meanwhile.
    pub fn begin_anew(&mut self, now: Instant) {
        for link in &mut self.links {
            link.begin_anew(now);
        }
    }

    /// These relays have lost their onion keys since the last snapshot, and with them their sessions.
    pub fn have_started_anew(&mut self, relays: &[ShortId], now: Instant) {
        let links = self.links.iter_mut();
        for link in links.filter(|link| relays.contains(&link.relay)) {
            link.has_started_anew(now);
        }
    }

    /// Whether a guard has made a new session since the last [`Self::begin_anew`], or all that
    /// were to have been tried for long.
    #[must_use]
    pub fn any_renewed(&self) -> bool {
        self.links
            .iter()
            .any(|link| link.alive && link.anew.is_none())
    }

    /// Whether a relay has an address that can be sent to from here.
    #[must_use]
    pub fn can_reach(&self, relay: &Relay) -> bool {
        relay
            .addresses
            .iter()
            .any(|address| self.families.allow(address))
    }

    /// Opens links to the wanted guards as far as the network knows them, and lets the others go.
    pub fn want(
        &mut self,
        network: &Network,
        guards: impl Iterator<Item = RelayId>,
        now: Now,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let mut wanted: Vec<ShortId> = Vec::new();
        for relay in guards.filter_map(|id| network.relay_of(&id)) {
            wanted.push(relay.short);
            let addresses: ArrayVec<SocketAddr, 4> = relay
                .addresses
                .iter()
                .filter(|a| self.families.allow(a))
                .copied()
                .take(4)
                .collect();
            match self.links.iter_mut().find(|link| link.relay == relay.short) {
                Some(link) if link.peer.remote() == relay.link => {
                    link.leaving = None;
                    if link.addresses != addresses {
                        // What works goes on, wherever it stands now.
                        let current = link.addresses.get(link.at).copied();
                        let at = addresses.iter().position(|at| Some(*at) == current);
                        link.addresses = addresses;
                        link.at = at.unwrap_or(0);
                    }
                }
                Some(link) => {
                    *link = GuardLink::new(relay, addresses, now.instant, rng);
                    self.events.push(LinkEvent::Down(relay.short));
                }
                None => self
                    .links
                    .push(GuardLink::new(relay, addresses, now.instant, rng)),
            }
        }
        for link in &mut self.links {
            if !wanted.contains(&link.relay) {
                link.leaving.get_or_insert(now.instant);
            }
        }
    }

    /// Whether the link to a guard works.
    #[must_use]
    pub fn is_up(&self, guard: &ShortId) -> bool {
        self.link(guard).is_some_and(|link| link.alive)
    }

    /// Whether any link works.
    #[must_use]
    pub fn any_up(&self) -> bool {
        self.links.iter().any(|link| link.alive)
    }

    /// The guards whose links work and are to stay.
    pub fn usable(&self) -> impl Iterator<Item = ShortId> {
        self.links
            .iter()
            .filter(|link| link.alive && link.leaving.is_none())
            .map(|link| link.relay)
    }

    /// Whether a guard is about to be let go.
    #[must_use]
    pub fn is_leaving(&self, guard: &ShortId) -> bool {
        self.link(guard).is_none_or(|link| link.leaving.is_some())
    }

    /// The key and the address to send to a guard with. Also when the guard seems dead: what is
    /// sent costs nothing then, and may arrive.
    #[must_use]
    pub fn route(&self, guard: &ShortId) -> Option<(&SealKey, SocketAddr)> {
        let link = self.link(guard)?;
        let (seal, _) = link.seal.as_ref()?;
        Some((seal, *link.addresses.get(link.at)?))
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<LinkEvent> {
        std::mem::take(&mut self.events)
    }

    /// How the link to a guard looks, if there is one.
    #[must_use]
    pub fn view(&self, guard: &RelayId) -> Option<LinkView> {
        let link = self.links.iter().find(|link| link.id == *guard)?;
        Some(LinkView {
            up: link.alive,
            rtt: link.rtt,
            last_error: link.last_error.clone(),
            finding: link.finding,
        })
    }

    /// A guard's link key and its addresses, the one in use first; `None` without a link.
    #[must_use]
    pub fn reached(&self, guard: &RelayId) -> Option<(X25519Public, Vec<SocketAddr>)> {
        let link = self.links.iter().find(|link| link.id == *guard)?;
        let mut addresses = link.addresses.to_vec();
        let at = link.at.min(addresses.len());
        addresses.rotate_left(at);
        Some((link.peer.remote(), addresses))
    }

    /// The addresses of the guards.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.links
            .iter()
            .flat_map(|link| link.addresses.iter().copied())
    }

    /// The guards that have been down for some time and are to stay: to whom, where, and under which
    /// link key handshakes go without an answer.
    pub fn silent(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (ShortId, SocketAddr, X25519Public)> {
        let down = move |link: &&GuardLink| {
            let long = |at: Instant| now.saturating_duration_since(at) >= LOOK_AFTER;
            link.leaving.is_none() && link.down.is_some_and(long)
        };
        self.links.iter().filter(down).filter_map(|link| {
            let address = link.addresses.get(link.at)?;
            Some((link.relay, *address, link.peer.remote()))
        })
    }

    /// The way to a guard has been looked at.
    pub fn looked_at(&mut self, guard: &ShortId, finding: PathFinding) {
        let found = self.links.iter_mut().find(|link| link.relay == *guard);
        if let Some(link) = found.filter(|link| !link.alive) {
            link.finding = Some(finding);
        }
    }

    /// What was found out about guards that are down.
    pub fn findings(&self) -> impl Iterator<Item = (ShortId, PathFinding)> {
        let found = |link: &GuardLink| Some((link.relay, link.finding?));
        self.links.iter().filter_map(found)
    }

    /// Sends a control message to a guard, if there is a session.
    pub fn send_control(&self, guard: &ShortId, control: &Control, outbox: &mut Outbox) {
        if let Some((seal, to)) = self.route(guard) {
            seal_control(seal, to, Some(control), outbox);
        }
    }

    /// Says goodbye to all guards.
    pub fn close(&mut self, outbox: &mut Outbox) {
        for link in self.links.drain(..) {
            link.send(Some(&Control::Close), outbox);
        }
    }

    /// Takes one datagram. True if it holds a cell now, which stands at [`CELL_OFFSET`].
    pub fn receive(
        &mut self,
        datagram: &mut Datagram,
        now: Now,
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) -> bool {
        let index = receiver_index(datagram);
        match datagram_type(datagram) {
            Ok(DatagramType::Data) => self.data(index, datagram, now, outbox, counters),
            Ok(kind @ (DatagramType::Response | DatagramType::Cookie)) => {
                if !self.handshake(index, kind, datagram, now) {
                    counters.bad_datagrams += 1;
                }
                false
            }
            // Nobody opens links to a client, or asks it.
            Ok(DatagramType::Initiation | DatagramType::Probe) | Err(_) => {
                counters.bad_datagrams += 1;
                false
            }
        }
    }

    fn handshake(&mut self, index: u32, kind: DatagramType, datagram: &Datagram, now: Now) -> bool {
        let Some(link) = self
            .links
            .iter_mut()
            .find(|link| link.handshake == Some(index))
        else {
            return false;
        };
        let result = if kind == DatagramType::Response {
            link.peer.response(datagram, now.instant).map(|_| ())
        } else {
            link.peer.cookie(datagram, now.instant)
        };
        if let Err(error) = &result {
            link.last_error = Some(format!("handshake: {error}"));
        }
        result.is_ok()
    }

    fn data(
        &mut self,
        index: u32,
        datagram: &mut Datagram,
        now: Now,
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) -> bool {
        let found = self.links.iter_mut().find_map(|link| {
            let at = link
                .sessions
                .iter()
                .position(|session| session.index == index)?;
            Some((link, at))
        });
        let Some((link, at)) = found else {
            counters.bad_datagrams += 1;
            return false;
        };
        let session = &mut link.sessions[at];
        let number = counter(datagram);
        if !session.window.check(number) {
            counters.link_replays += 1;
            return false;
        }
        let Ok(kind) = session.open.open(datagram) else {
            counters.bad_datagrams += 1;
            return false;
        };
        if session.window.accept(number).is_err() {
            counters.link_replays += 1;
            return false;
        }
        let due = |told: Instant| now.instant.saturating_duration_since(told) >= TELL_EVERY;
        if session.told.is_none_or(due) {
            session.told = Some(now.instant);
            link.peer.heard(index, kind, now.instant);
        }
        link.heard = now.instant;
        link.pings = 0;
        if !link.alive && link.seal.is_some() {
            link.alive = true;
            self.events.push(LinkEvent::Up {
                guard: link.relay,
                fresh: false,
            });
        }
        match kind {
            CellKind::Cell => return true,
            CellKind::Cover => {}
            CellKind::Control => self.control(at_link(&self.links, index), datagram, now, outbox),
        }
        false
    }

    fn control(&mut self, at: Option<usize>, datagram: &Datagram, now: Now, outbox: &mut Outbox) {
        let Some(link) = at.and_then(|at| self.links.get_mut(at)) else {
            return;
        };
        let Some(control) = cell_of(datagram).and_then(|cell| Control::decode(cell).ok()) else {
            return;
        };
        match control {
            Control::Ping(id) => link.send(Some(&Control::Pong(id)), outbox),
            Control::Pong(id) => {
                if id == link.ping {
                    let rtt = now.instant.saturating_duration_since(link.pinged);
                    link.rtt = Some(link.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
                }
            }
            Control::Registered { request, refused } => {
                self.events.push(LinkEvent::Registered {
                    guard: link.relay,
                    request,
                    refused,
                });
            }
            Control::Close => {
                link.last_error = Some("the relay has closed the link".into());
                link.renew_peer(now.instant);
                link.silence(&mut self.events);
            }
            Control::Register { .. } => {}
        }
    }

    /// Does what is due: handshakes, pings, giving up. At least every half second.
    pub fn poll(&mut self, now: Now, outbox: &mut Outbox, rng: &mut (impl CryptoRng + ?Sized)) {
        self.solve(now.instant, outbox);
        for at in 0..self.links.len() {
            while let Some(action) = self.links[at].peer.poll(now.instant) {
                self.act(at, action, now, outbox, rng);
            }
            let link = &mut self.links[at];
            link.forget_old(now.instant);
            link.watch(now.instant, outbox, &mut self.events);
        }
        let events = &mut self.events;
        self.links.retain(|link| {
            let over = |since: Instant| now.instant.saturating_duration_since(since) >= LINGER;
            let gone = link.leaving.is_some_and(over);
            if gone {
                link.send(Some(&Control::Close), outbox);
                events.push(LinkEvent::Down(link.relay));
            }
            !gone
        });
    }

    /// Whether a guard asks for effort.
    #[must_use]
    pub fn is_solving(&self) -> bool {
        self.links.iter().any(|link| link.peer.is_solving())
    }

    /// Makes effort for one guard that asks for it: the one that has waited for longest.
    fn solve(&mut self, now: Instant, outbox: &mut Outbox) {
        let hashes = if self.any_up() {
            HASHES_BESIDE
        } else {
            HASHES_ALONE
        };
        let solving = self.links.iter_mut().filter(|link| link.peer.is_solving());
        if let Some(link) = solving.min_by_key(|link| link.solved) {
            link.solved = Some(now);
            link.solve(hashes, now, outbox);
        }
    }

    fn act(
        &mut self,
        at: usize,
        action: Action,
        now: Now,
        outbox: &mut Outbox,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let index = match action {
            Action::Initiate => self.free_index(rng),
            _ => 0,
        };
        let link = &mut self.links[at];
        match action {
            Action::Initiate => link.initiate(index, now, outbox, rng),
            Action::Install(open) => {
                if link.sessions.is_full() {
                    link.sessions.remove(0);
                }
                link.sessions.push(LinkSession {
                    index: open.local_index(),
                    open,
                    window: Window::new(),
                    since: now.instant,
                    told: None,
                });
            }
            Action::Use(seal) => {
                link.seal = Some((seal, now.instant));
                link.heard = now.instant;
                link.pings = 0;
                link.attempts = 0;
                link.alive = true;
                link.anew = None;
                link.last_error = None;
                link.finding = None;
                self.events.push(LinkEvent::Up {
                    guard: link.relay,
                    fresh: true,
                });
            }
            Action::Silence => link.silence(&mut self.events),
            Action::Remove(index) => {
                link.sessions.retain(|session| session.index != index);
                link.handshake.take_if(|handshake| *handshake == index);
                link.draft.take_if(|draft| *draft == index);
            }
            Action::KeepAlive => link.send(None, outbox),
            Action::Ping => link.ping(now.instant, outbox),
            Action::Unreachable => link.last_error = Some("no answer to handshakes".into()),
        }
    }

    fn free_index(&self, rng: &mut (impl CryptoRng + ?Sized)) -> u32 {
        loop {
            let index = rng.next_u32();
            let taken = |link: &GuardLink| {
                [link.handshake, link.draft].contains(&Some(index))
                    || link.sessions.iter().any(|session| session.index == index)
            };
            if !self.links.iter().any(taken) {
                return index;
            }
        }
    }

    fn link(&self, guard: &ShortId) -> Option<&GuardLink> {
        self.links.iter().find(|link| link.relay == *guard)
    }
}

fn at_link(links: &[GuardLink], index: u32) -> Option<usize> {
    links
        .iter()
        .position(|link| link.sessions.iter().any(|session| session.index == index))
}

fn cell_of(datagram: &Datagram) -> Option<&Cell> {
    datagram
        .get(CELL_OFFSET..CELL_OFFSET + CELL)?
        .try_into()
        .ok()
}
