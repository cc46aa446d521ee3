//! Packets of this host: which session each belongs to, who waits for a lookup, and what is
//! rejected.

use std::net::IpAddr;

use mixline_protocol::address::IPV6_FIRST_BYTE;
use mixline_protocol::records::ServiceDescriptor;

use super::Engine;
use crate::clock::Now;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::directory::unreachable::Standing;
use crate::keys::SessionKey;
use crate::packets::batch::PacketBatch;
use crate::packets::headers::{IpPacket, is_group, parse};
use crate::packets::held::Held;
use crate::packets::icmp::{Rejection, error_for};
use crate::packets::lookups::{Lookup, MAX_LOOKUPS};
use crate::session::Phase;
use crate::session::lanes::Route;
use crate::session::transmit::{Load, Sender};

impl Engine {
    /// Takes packets from the device, beginning with number `from`, until the outbox has enough.
    /// Where to go on: the number of packets if all are taken. [`Self::finish_batch`] comes next.
    pub fn handle_packets(&mut self, packets: &PacketBatch, from: usize, now: Now) -> usize {
        self.notice_gap(now);
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
        if let Some(key) = self.by_address.get(&destination.into()).copied()
            && self.is_own(packet.flow.source, now)
        {
            if bytes.len() > usize::from(self.config.mtu) && packet.dont_fragment {
                self.reject(bytes, Rejection::TooBig(self.config.mtu), now);
            } else {
                self.packet_to(key, bytes, &packet, now);
            }
            return;
        }
        if is_group(&destination) || self.is_broadcast(destination) {
            self.counters.unroutable += 1;
        } else if !self.is_own(packet.flow.source, now) {
            self.counters.unroutable += 1;
            self.reject(bytes, Rejection::Prohibited, now);
        } else if !self.is_virtual(destination) {
            self.counters.unroutable += 1;
            self.reject(bytes, Rejection::Unreachable, now);
        } else {
            self.away.sent(&packet);
            match self.unreachable.standing(&destination, now.instant) {
                Standing::Free => self.resolve(destination, Some(bytes), now),
                Standing::Unreachable { retry } => {
                    self.reject(bytes, Rejection::Unreachable, now);
                    if retry {
                        self.resolve(destination, None, now);
                    }
                }
            }
        }
    }

    fn packet_to(&mut self, key: SessionKey, bytes: &[u8], packet: &IpPacket<'_>, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.carries_packets = true;
        if session.unreachable {
            session.flows.rejected(packet, now.instant);
            self.reject(bytes, Rejection::Unreachable, now);
            return;
        }
        if session.doubt.is_some() && session.held.push(bytes) {
            return;
        }
        if session.phase == Phase::Established {
            let (policy, path) = session.flows.assign(
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
            .is_some_and(|opening| opening.background)
        {
            self.away.sent(packet);
            self.reject(bytes, Rejection::Unreachable, now);
        } else if !session.held.push(bytes) {
            self.counters.overflow += 1;
        }
    }

    /// Whether an address is one that packets of this host may carry.
    pub(super) fn is_own(&self, address: IpAddr, now: Now) -> bool {
        match address {
            IpAddr::V4(ip) => self
                .pseudonyms
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
    /// it is a background attempt, while packets are rejected.
    pub(super) fn resolve(&mut self, address: IpAddr, packet: Option<&[u8]>, now: Now) {
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
                Some(packet) if lookup.background => {
                    self.reject(packet, Rejection::Unreachable, now)
                }
                Some(packet) if !lookup.held.push(packet) => self.counters.overflow += 1,
                _ => {}
            }
            return;
        }
        if !self.away.may_ask(&address, now.instant) {
            if let Some(packet) = packet {
                self.reject(packet, Rejection::Unreachable, now);
            }
            return;
        }
        if self.lookups.len() >= MAX_LOOKUPS || !self.lookup_bucket.take(now.instant) {
            self.counters.overflow += 1;
            if let Some(packet) = packet {
                self.reject(packet, Rejection::Unreachable, now);
            }
            return;
        }
        let mut lookup = Lookup {
            held: Held::default(),
            background: packet.is_none(),
        };
        if let Some(packet) = packet {
            lookup.held.push(packet);
        }
        self.lookups.insert(address, lookup);
        let body = self
            .authorisations
            .lookup_address(address, self.said(Pseudonym::Asking, now).unix());
        self.ask_directory(body, Asker::Packets(address), now);
        self.needs_maintenance = true;
    }

    /// The directory has said whose address it is, or that it is nobody's; `Err` if it has not.
    pub(super) fn resolved(
        &mut self,
        address: IpAddr,
        answer: Result<Option<ServiceDescriptor>, ()>,
        now: Now,
    ) {
        let Some(Lookup {
            mut held,
            background,
        }) = self.lookups.remove(&address)
        else {
            return;
        };
        match answer {
            Ok(Some(descriptor)) => self.open_to(&descriptor, held, background, now),
            Ok(None) => {
                self.unreachable.nobody(address, now.instant);
                self.reject_all(&mut held, now);
            }
            Err(()) => {
                self.unreachable.not_reached(address, now.instant);
                self.reject_all(&mut held, now);
            }
        }
    }

    /// Opens a session to send packets over, unless there is one.
    fn open_to(
        &mut self,
        descriptor: &ServiceDescriptor,
        mut held: Held,
        background: bool,
        now: Now,
    ) {
        let Some(key) = self.open(Pseudonym::Own, descriptor, background, now) else {
            self.unreachable.not_reached(
                mixline_protocol::address::ipv6(&descriptor.id).into(),
                now.instant,
            );
            if let Some(lease) = descriptor.lease {
                self.unreachable.not_reached(lease.ipv4.into(), now.instant);
            }
            self.reject_all(&mut held, now);
            return;
        };
        for bytes in held.take() {
            if let Some(packet) = parse(&bytes) {
                self.packet_to(key, &bytes, &packet, now);
            }
        }
    }

    /// Answers packets that have waited by an error each.
    pub(super) fn reject_all(&mut self, held: &mut Held, now: Now) {
        for bytes in held.take() {
            self.reject(&bytes, Rejection::Unreachable, now);
        }
    }

    /// Answers a packet of this host by an error.
    pub(super) fn reject(&mut self, bytes: &[u8], why: Rejection, now: Now) {
        self.counters.unreachable += 1;
        if self.icmp_bucket.take(now.instant)
            && let Some(answer) = error_for(bytes, why)
        {
            self.inbound.push(&answer);
        }
    }
}
