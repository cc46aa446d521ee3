//! The life of a session: it is opened when packets or questions need it, makes room for others,
//! and ends.

use std::net::IpAddr;
use std::time::Duration;

use mixline_protocol::address;
use mixline_protocol::records::{Lease, ServiceDescriptor};
use mixline_protocol::session::Control;
use rand_core::Rng;

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::random::shuffle;
use crate::session::ending::Ending;
use crate::session::transmit::{Load, Sender};
use crate::session::{Opening, Phase, Session, Target};
use crate::status::Event;

/// How long a handshake may take before its peer counts as unreachable.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_millis(4000);

impl Engine {
    /// A session with the peer of a descriptor: the one there is, or one that is being opened. `None` if the
    /// peer has no tails, is this endpoint itself, or there is no room.
    pub(super) fn open(
        &mut self,
        pseudonym: Pseudonym,
        descriptor: &ServiceDescriptor,
        background: bool,
        now: Now,
    ) -> Option<SessionKey> {
        let (peer, lease) = (descriptor.id, descriptor.lease);
        if let Some(key) = self.by_peer.get(&(pseudonym, peer)).copied() {
            self.set_address(key, lease, now);
            return Some(key);
        }
        let mut targets: Vec<Target> = Target::of(descriptor, now.unix()).collect();
        if targets.is_empty()
            || peer == self.pseudonyms.get(pseudonym).id
            || !self.make_room(None, now)
        {
            return None;
        }
        shuffle(&mut targets, &mut self.rng);
        let mut session = Session::new(
            pseudonym,
            peer,
            descriptor.session,
            true,
            self.rng.next_u64(),
            now.instant,
        );
        session.carries_packets = pseudonym == Pseudonym::Own;
        session.opening = Some(Opening::new(
            targets,
            HANDSHAKE_DEADLINE,
            background,
            now.instant,
        ));
        let key = self.sessions.insert(session);
        self.by_peer.insert((pseudonym, peer), key);
        self.set_address(key, lease, now);
        self.needs_maintenance = true;
        Some(key)
    }

    /// Ties the peer's addresses to a session. An IPv4 address that another live session holds
    /// stays with that one.
    pub(super) fn set_address(&mut self, key: SessionKey, lease: Option<Lease>, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.pseudonym != Pseudonym::Own {
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
        session.lease_until = Some(lease.expires);
        self.by_address.entry(lease.ipv4.into()).or_insert(key);
    }

    /// Ends a session.
    pub(super) fn end(&mut self, key: SessionKey, ending: &Ending, now: Now) {
        if let (Some(reason), Some(session)) = (ending.told(), self.sessions.get_mut(key))
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
        let unanswered = |session: &Session| {
            session.phase == Phase::Opening
                && matches!(ending, Ending::Unreachable(_))
                && self.links.any_up()
        };
        // The answer may have come to one of its tails, and not got through.
        let suspects = self
            .sessions
            .get(key)
            .filter(|session| unanswered(session))
            .map(|session| session.own_tails.clone());
        for tail in suspects.into_iter().flatten() {
            self.suspect_tail(key, tail, now);
        }
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.by_peer.remove(&(session.pseudonym, session.peer));
        let ipv4 = session.ipv4.map(|(ip, _)| IpAddr::from(ip));
        let addresses = [Some(IpAddr::from(session.ipv6)), ipv4];
        for address in addresses.into_iter().flatten() {
            if self.by_address.get(&address.into()) == Some(&key) {
                self.by_address.remove(&address.into());
            }
            if session.pseudonym == Pseudonym::Own && matches!(ending, Ending::Unreachable(_)) {
                self.unreachable.not_reached(address, now.instant);
            }
        }
        for tail in &session.own_tails {
            self.tails.drop_now(*tail);
        }
        let resets = match ending {
            // It has said that nobody is there for them, or nothing more is to reach it.
            Ending::ClosedByPeer | Ending::NotAuthorised => session.flows.resets(now.instant),
            Ending::Unreachable(_) => self.part_from(&mut session, addresses, now),
            Ending::Idle | Ending::Stopping => Vec::new(),
        };
        if matches!(ending, Ending::ClosedByPeer | Ending::Unreachable(_)) {
            self.descriptors.forget(&session.peer);
        }
        for packet in resets {
            self.inbound.push(&packet);
        }
        self.reject_all(&mut session.held, now);
        if session.pseudonym != Pseudonym::Own
            && let Ending::Unreachable(why) = ending
        {
            self.queries.last_error = Some((*why).to_owned());
        }
        if session.phase == Phase::Established || session.initiated {
            self.event(Event::SessionClosed(session.peer, ending.to_string()));
        }
    }

    /// A peer does not answer, and may come back: what is open is remembered, what is being opened gets
    /// a reset.
    fn part_from(
        &mut self,
        session: &mut Session,
        addresses: [Option<IpAddr>; 2],
        now: Now,
    ) -> Vec<Vec<u8>> {
        let (mut resets, open) = session.flows.part(now.instant);
        let came_by_itself =
            !session.initiated && self.descriptors.last_known(&session.peer).is_none();
        resets.extend(self.away.leave(
            session.peer,
            addresses.into_iter().flatten().collect(),
            open,
            came_by_itself,
            now.instant,
        ));
        if !session.begun_here {
            self.away.was_guest(&session.peer, session.client);
        }
        resets
    }

    /// Keeps a verified descriptor, and uses its lease in the session that there is.
    pub fn learn(&mut self, descriptor: ServiceDescriptor, now: Now) {
        if let Some(key) = self.by_peer.get(&(Pseudonym::Own, descriptor.id)).copied() {
            self.set_address(key, descriptor.lease, now);
        }
        self.unreachable
            .clear(&address::ipv6(&descriptor.id).into());
        if let Some(lease) = &descriptor.lease {
            self.unreachable.clear(&lease.ipv4.into());
        }
        self.descriptors.learn(descriptor, now.instant);
    }
}
