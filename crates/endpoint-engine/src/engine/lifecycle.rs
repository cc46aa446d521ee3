//! The life of a session: it is opened when packets or questions need it, makes room for others,
//! and ends.

use std::net::IpAddr;
use std::time::Duration;

use mixline_protocol::address;
use mixline_protocol::identity::{AnonymousId, X25519Public};
use mixline_protocol::records::{Lease, ServiceDescriptor, TailOffer};
use mixline_protocol::session::Control;
use rand_core::Rng;

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::random::shuffle;
use crate::session::ending::Ending;
use crate::session::transmit::{Load, Sender};
use crate::session::{Opening, Phase, Session};
use crate::status::Event;

/// How long a handshake may take before its peer counts as unreachable.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_millis(4000);
/// A session that has been idle for less is not ended to make room for another.
const EVICT_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    /// A session with this peer: the one there is, or one that is being opened. `None` if the
    /// peer has no tails, is this endpoint itself, or there is no room.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a descriptor, and who asks"
    )]
    pub(super) fn open(
        &mut self,
        pseudonym: Pseudonym,
        peer: AnonymousId,
        remote: X25519Public,
        tails: &[TailOffer],
        lease: Option<Lease>,
        background: bool,
        now: Now,
    ) -> Option<SessionKey> {
        if let Some(key) = self.by_peer.get(&(pseudonym, peer)).copied() {
            self.set_address(key, lease, now);
            return Some(key);
        }
        let mut targets: Vec<TailOffer> = tails
            .iter()
            .filter(|offer| offer.alive(now.unix()))
            .copied()
            .collect();
        if targets.is_empty() || peer == self.pseudonyms.get(pseudonym).id || !self.make_room(now) {
            return None;
        }
        shuffle(&mut targets, &mut self.rng);
        let mut session = Session::new(
            pseudonym,
            peer,
            remote,
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
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.by_peer.remove(&(session.pseudonym, session.peer));
        let ipv4 = session.ipv4.map(|(ip, _)| IpAddr::from(ip));
        let addresses = [Some(IpAddr::from(session.ipv6)), ipv4];
        for address in addresses.into_iter().flatten() {
            if self.by_address.get(&address) == Some(&key) {
                self.by_address.remove(&address);
            }
            if session.pseudonym == Pseudonym::Own && matches!(ending, Ending::Unreachable(_)) {
                self.unreachable.not_reached(address, now.instant);
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
