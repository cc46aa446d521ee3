//! Which session a packet belongs to: opening one when it is needed, and ending it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::address::IPV6_FIRST_BYTE;
use mixline_protocol::directory::RequestBody;
use mixline_protocol::identity::{AnonymousId, X25519Public};
use mixline_protocol::records::{Lease, ServiceDescriptor, TailOffer};
use mixline_protocol::session::{Control, close};

use rand_core::Rng;

use super::Engine;
use crate::PacketBatch;
use crate::clock::Now;
use crate::directory::descriptors::Standing;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Persona;
use crate::packets::headers::{IpPacket, is_group, parse};
use crate::packets::icmp::{Refusal, refuse};
use crate::session::transmit::{Load, Route, Sender};
use crate::session::{Held, Opening, Phase, Session};
use crate::slab::Key;
use crate::status::Event;

/// How long a handshake may take before its peer counts as unreachable.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_millis(4000);
/// Addresses that are being looked up for packets at once.
pub const MAX_LOOKUPS: usize = 64;
/// Lookups for packets in a second, and at once: a scan of the virtual network must not
/// become a flood of questions.
pub const LOOKUPS_PER_SECOND: u32 = 20;
/// See [`LOOKUPS_PER_SECOND`].
pub const LOOKUPS_BURST: u32 = 64;
/// A session that has been idle for less is not ended to make room for another.
const EVICT_AFTER: Duration = Duration::from_secs(10);

/// Packets that wait for the directory to say whose address it is.
#[derive(Default)]
pub struct Lookup {
    held: Held,
    quiet: bool,
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing went over it for long, or its place is needed.
    Idle,
    /// The peer has said so.
    ClosedByPeer,
    /// The peer does not answer.
    Unreachable(&'static str),
    /// This endpoint stops, or takes another ID.
    Stopping,
}

impl Engine {
    /// Takes packets from the device, beginning with number `from`, until the outbox has enough.
    /// Where to go on: the number of packets if all are taken. [`Self::finish_batch`] comes next.
    pub fn handle_packets(&mut self, packets: &PacketBatch, from: usize, now: Now) -> usize {
        let mut at = from;
        while let Some(bytes) = packets.get(at) {
            if self.outbox.is_busy() {
                break;
            }
            self.packet_out(bytes, now);
            at += 1;
        }
        at
    }

    fn packet_out(&mut self, bytes: &[u8], now: Now) {
        let Some(packet) = parse(bytes) else {
            self.counters.unroutable += 1;
            return;
        };
        let destination = packet.flow.destination;
        if let Some(key) = self.by_address.get(&destination).copied()
            && self.is_own(packet.flow.source, now)
        {
            if bytes.len() > usize::from(self.config.mtu) && packet.dont_fragment {
                self.say_no(bytes, Refusal::TooBig(self.config.mtu), now);
            } else {
                self.packet_to(key, bytes, &packet, now);
            }
            return;
        }
        if is_group(&destination) || self.is_broadcast(destination) {
            self.counters.unroutable += 1;
        } else if !self.is_own(packet.flow.source, now) {
            self.counters.unroutable += 1;
            self.say_no(bytes, Refusal::Prohibited, now);
        } else if !self.is_virtual(destination) {
            self.counters.unroutable += 1;
            self.say_no(bytes, Refusal::Unreachable, now);
        } else {
            match self.refusals.standing(&destination, now.instant) {
                Standing::Free => self.resolve(destination, Some(bytes), now),
                Standing::Refused { retry } => {
                    self.say_no(bytes, Refusal::Unreachable, now);
                    if retry {
                        self.resolve(destination, None, now);
                    }
                }
            }
        }
    }

    fn packet_to(&mut self, key: Key<Session>, bytes: &[u8], packet: &IpPacket<'_>, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.carries_packets = true;
        if session.phase == Phase::Established {
            let (policy, path) = session.flows.place(
                packet,
                &session.peer,
                &self.config.policies,
                &session.paths,
                now.instant,
            );
            let mut sender = Sender {
                links: &self.links,
                outbox: &mut self.outbox,
                counters: &mut self.counters,
                now: now.instant,
            };
            if session.pack(Load::Packet(bytes), Route::of(policy, path), &mut sender) {
                session.used = now.instant;
                session.traffic.packets_out += 1;
                session.traffic.bytes_out += bytes.len() as u64;
                self.counters.packets_out += 1;
                if !std::mem::replace(&mut session.dirty, true) {
                    self.dirty.push(key);
                }
            }
            return;
        }
        if session
            .opening
            .as_ref()
            .is_some_and(|opening| opening.quiet)
        {
            self.say_no(bytes, Refusal::Unreachable, now);
        } else if !session.held.push(bytes) {
            self.counters.overflow += 1;
        }
    }

    /// Whether an address is one that packets of this host may carry.
    pub(super) fn is_own(&self, address: IpAddr, now: Now) -> bool {
        match address {
            IpAddr::V4(ip) => self
                .personas
                .lease(now.unix())
                .is_some_and(|lease| lease.ipv4 == ip),
            IpAddr::V6(ip) => ip == self.ipv6,
        }
    }

    /// Whether an address may be somebody's.
    fn is_virtual(&self, address: IpAddr) -> bool {
        match (address, &self.network) {
            (IpAddr::V4(ip), Some(network)) => network.parameters().network.leasable(ip),
            (IpAddr::V4(_), None) => false,
            (IpAddr::V6(ip), _) => ip.octets()[0] == IPV6_FIRST_BYTE,
        }
    }

    /// Whether an address is for all of the virtual network.
    fn is_broadcast(&self, address: IpAddr) -> bool {
        let network = self
            .network
            .as_ref()
            .map(|network| network.parameters().network);
        match (address, network) {
            (IpAddr::V4(ip), Some(network)) => {
                network.contains(ip) && ip.to_bits() | network.mask() == u32::MAX
            }
            _ => false,
        }
    }

    /// Finds out whose address it is, and opens a session. A packet waits for that; without one
    /// it is a quiet attempt, while packets are being refused.
    fn resolve(&mut self, address: IpAddr, packet: Option<&[u8]>, now: Now) {
        let known = self.descriptors.at(&address, now).cloned();
        if let Some(descriptor) = known {
            let mut held = Held::default();
            if let Some(packet) = packet {
                held.push(packet);
            }
            self.open_to(&descriptor, held, packet.is_none(), now);
            return;
        }
        if let Some(lookup) = self.lookups.get_mut(&address) {
            match packet {
                Some(packet) if lookup.quiet => self.say_no(packet, Refusal::Unreachable, now),
                Some(packet) if !lookup.held.push(packet) => self.counters.overflow += 1,
                _ => {}
            }
            return;
        }
        if self.lookups.len() >= MAX_LOOKUPS || !self.lookup_bucket.take(now.instant) {
            self.counters.overflow += 1;
            if let Some(packet) = packet {
                self.say_no(packet, Refusal::Unreachable, now);
            }
            return;
        }
        let mut lookup = Lookup {
            held: Held::default(),
            quiet: packet.is_none(),
        };
        if let Some(packet) = packet {
            lookup.held.push(packet);
        }
        self.lookups.insert(address, lookup);
        let body = RequestBody::LookupAddress(address);
        self.ask_directory(body, Asker::Packets(address), now);
        self.stirred = true;
    }

    /// The directory has said whose address it is, or that it is nobody's; `Err` if it has not.
    pub(super) fn resolved(
        &mut self,
        address: IpAddr,
        answer: Result<Option<ServiceDescriptor>, ()>,
        now: Now,
    ) {
        let Some(Lookup { mut held, quiet }) = self.lookups.remove(&address) else {
            return;
        };
        match answer {
            Ok(Some(descriptor)) => self.open_to(&descriptor, held, quiet, now),
            Ok(None) => {
                self.refusals.nobody(address, now.instant);
                self.refuse_all(&mut held, now);
            }
            Err(()) => {
                self.refusals.unreachable(address, now.instant);
                self.refuse_all(&mut held, now);
            }
        }
    }

    /// Opens a session to send packets over, unless there is one.
    fn open_to(&mut self, descriptor: &ServiceDescriptor, mut held: Held, quiet: bool, now: Now) {
        let opened = self.open(
            Persona::Own,
            descriptor.id,
            descriptor.session,
            &descriptor.tails,
            descriptor.lease,
            quiet,
            now,
        );
        let Some(key) = opened else {
            self.refusals.unreachable(
                mixline_protocol::address::ipv6(&descriptor.id).into(),
                now.instant,
            );
            if let Some(lease) = descriptor.lease {
                self.refusals.unreachable(lease.ipv4.into(), now.instant);
            }
            self.refuse_all(&mut held, now);
            return;
        };
        for bytes in held.take() {
            if let Some(packet) = parse(&bytes) {
                self.packet_to(key, &bytes, &packet, now);
            }
        }
    }

    /// A session with this peer: the one there is, or one that is being opened. `None` if the
    /// peer has no tails, is this endpoint itself, or there is no room.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a descriptor, and who asks"
    )]
    pub(super) fn open(
        &mut self,
        persona: Persona,
        peer: AnonymousId,
        remote: X25519Public,
        tails: &[TailOffer],
        lease: Option<Lease>,
        quiet: bool,
        now: Now,
    ) -> Option<Key<Session>> {
        if let Some(key) = self.by_peer.get(&(persona, peer)).copied() {
            self.set_address(key, lease, now);
            return Some(key);
        }
        let mut targets: Vec<TailOffer> = tails
            .iter()
            .filter(|offer| offer.alive(now.unix()))
            .copied()
            .collect();
        if targets.is_empty() || peer == self.personas.get(persona).id || !self.make_room(now) {
            return None;
        }
        crate::relays::selection::shuffle(&mut targets, &mut self.rng);
        let mut session = Session::new(
            persona,
            peer,
            remote,
            true,
            self.rng.next_u64(),
            now.instant,
        );
        session.carries_packets = persona == Persona::Own;
        session.opening = Some(Opening::new(
            targets,
            HANDSHAKE_DEADLINE,
            quiet,
            now.instant,
        ));
        let key = self.sessions.insert(session);
        self.by_peer.insert((persona, peer), key);
        self.set_address(key, lease, now);
        self.stirred = true;
        Some(key)
    }

    /// Whether there is room for one more session, after the idlest has made some.
    pub(super) fn make_room(&mut self, now: Now) -> bool {
        if self.sessions.len() < self.config.max_sessions {
            return true;
        }
        let idle = |session: &Session| now.instant.saturating_duration_since(session.used);
        let idlest = self
            .sessions
            .iter()
            .filter(|(_, session)| idle(session) >= EVICT_AFTER)
            .max_by_key(|(_, session)| idle(session))
            .map(|(key, _)| key);
        match idlest {
            Some(key) => {
                self.end(key, &Ending::Idle, now);
                true
            }
            None => false,
        }
    }

    /// Ties the peer's addresses to a session. An IPv4 address that another live session holds
    /// stays with that one.
    pub(super) fn set_address(&mut self, key: Key<Session>, lease: Option<Lease>, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.persona != Persona::Own {
            return;
        }
        self.by_address.insert(session.ipv6.into(), key);
        let Some(lease) =
            lease.filter(|lease| lease.id == session.peer && now.unix() < lease.expires)
        else {
            return;
        };
        if let Some((old, _)) = session.ipv4
            && old != lease.ipv4
            && self.by_address.get(&old.into()) == Some(&key)
        {
            self.by_address.remove(&old.into());
        }
        session.ipv4 = Some((lease.ipv4, lease.expires));
        self.by_address.entry(lease.ipv4.into()).or_insert(key);
    }

    /// Ends a session.
    pub(super) fn end(&mut self, key: Key<Session>, ending: &Ending, now: Now) {
        let reason = match ending {
            Ending::Idle => Some(close::IDLE),
            Ending::Stopping => Some(close::STOPPING),
            Ending::ClosedByPeer | Ending::Unreachable(_) => None,
        };
        if let (Some(reason), Some(session)) = (reason, self.sessions.get_mut(key))
            && let Ok(body) = (Control::Close { reason }).encode()
        {
            let route = session.control_route(now.instant);
            let mut sender = Sender {
                links: &self.links,
                outbox: &mut self.outbox,
                counters: &mut self.counters,
                now: now.instant,
            };
            session.pack(Load::Control(&body), route, &mut sender);
            session.flush(&mut sender);
        }
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.by_peer.remove(&(session.persona, session.peer));
        let ipv4 = session.ipv4.map(|(ip, _)| IpAddr::from(ip));
        let addresses = [Some(IpAddr::from(session.ipv6)), ipv4];
        for address in addresses.into_iter().flatten() {
            if self.by_address.get(&address) == Some(&key) {
                self.by_address.remove(&address);
            }
            if session.persona == Persona::Own && matches!(ending, Ending::Unreachable(_)) {
                self.refusals.unreachable(address, now.instant);
            }
        }
        for tail in &session.own_tails {
            self.tails.drop_now(*tail);
        }
        if matches!(ending, Ending::ClosedByPeer | Ending::Unreachable(_)) {
            self.descriptors.forget(&session.peer);
            for packet in session.flows.resets(now.instant) {
                self.inbound.push(&packet);
            }
        }
        self.refuse_all(&mut session.held, now);
        if session.persona != Persona::Own
            && let Ending::Unreachable(why) = ending
        {
            self.queries.last_error = Some((*why).to_owned());
        }
        if session.phase == Phase::Established || session.initiated {
            let why = match ending {
                Ending::Idle => "idle",
                Ending::ClosedByPeer => "closed by the peer",
                Ending::Unreachable(why) => why,
                Ending::Stopping => "this endpoint stops",
            };
            self.event(Event::SessionClosed(session.peer, why.to_owned()));
        }
    }

    fn refuse_all(&mut self, held: &mut Held, now: Now) {
        for bytes in held.take() {
            self.say_no(&bytes, Refusal::Unreachable, now);
        }
    }

    /// Answers a packet of this host by an error.
    pub(super) fn say_no(&mut self, bytes: &[u8], why: Refusal, now: Now) {
        self.counters.unreachable += 1;
        if self.icmp_bucket.take(now.instant)
            && let Some(answer) = refuse(bytes, why)
        {
            self.inbound.push(&answer);
        }
    }

    /// Keeps a verified descriptor, and uses its lease in the session that there is.
    pub fn learn(&mut self, descriptor: ServiceDescriptor, now: Now) {
        if let Some(key) = self.by_peer.get(&(Persona::Own, descriptor.id)).copied() {
            self.set_address(key, descriptor.lease, now);
        }
        self.refusals
            .clear(&mixline_protocol::address::ipv6(&descriptor.id).into());
        if let Some(lease) = &descriptor.lease {
            self.refusals.clear(&lease.ipv4.into());
        }
        self.descriptors.learn(descriptor, now.instant);
    }
}

impl Opening {
    /// A handshake that begins now.
    #[must_use]
    pub fn new(targets: Vec<TailOffer>, patience: Duration, quiet: bool, now: Instant) -> Self {
        Self {
            since: now,
            deadline: now + patience,
            next: now,
            attempts: arrayvec::ArrayVec::new(),
            made: 0,
            targets,
            refreshed: false,
            quiet,
        }
    }
}
