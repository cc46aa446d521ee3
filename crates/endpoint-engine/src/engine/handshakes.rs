//! What the end of a handshake makes of a session, and the tails that it gets for one.

use mixline_protocol::records::TailOffer;
use mixline_protocol::session::SessionKeys;

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::packets::headers::parse;
use crate::session::Phase;
use crate::session::ending::Ending;
use crate::session::keys::Introduction;
use crate::session::lanes::Route;
use crate::session::transmit::{Load, Sender};
use crate::status::Event;
use crate::tails::{Owner, Tail};

impl Engine {
    /// The initiator uses the keys that we have answered with.
    pub(super) fn promoted(&mut self, key: SessionKey, said: &Introduction, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.remote = said.remote;
        // The side that begins a session replaces its keys; after a crossing of two, the later does.
        session.initiated = false;
        // Who has not been shown that we are its client takes answers only.
        session.introduce |= session.pseudonym == Pseudonym::Own
            && self.authorisations.with(&session.peer).is_some();
        let first = session.phase != Phase::Established;
        self.established(key, &said.tails, now);
        self.set_address(key, said.lease, now);
        if first && !self.make_room(Some(key), now) {
            self.end(key, &Ending::Idle, now);
        }
    }

    /// The responder has answered.
    pub(super) fn opened(
        &mut self,
        key: SessionKey,
        keys: SessionKeys,
        tails: &[TailOffer],
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.opening.as_ref().is_some_and(|it| it.recovers) {
            // What was asked before has led nowhere.
            self.queries.repeat(session.pseudonym, now.instant);
        }
        session.keys.install(keys, now.instant);
        session.initiated = true;
        self.established(key, tails, now);
    }

    fn established(&mut self, key: SessionKey, tails: &[TailOffer], now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let first = session.phase != Phase::Established;
        session.phase = Phase::Established;
        session.keyed = now.instant;
        session.heard = now.instant;
        // Probes under the new keys are what counts next.
        session.waiting = None;
        session.unanswered = None;
        session.unreachable = false;
        session.last_error = None;
        session.peer_version = None;
        // A handshake of ours that crossed the peer's is not needed any more.
        session.opening = None;
        session.set_peer_tails(tails, now.instant);
        let doubted = session.doubt.take().is_some();
        if doubted {
            // The peer has made new tails because it had given up the old ones.
            let offered = |tail| tails.iter().any(|offer| offer.tail.id() == tail);
            session.paths.retain(|path| offered(path.tail));
        }
        // The responder waits for something under the new keys; probes are that, too.
        session.paths.probe_soon();
        let (pseudonym, peer) = (session.pseudonym, session.peer);
        let addresses = [
            Some(session.ipv6.into()),
            session.ipv4.map(|(ip, _)| ip.into()),
        ];
        if !first {
            self.extend_paths(key, now);
            if doubted {
                self.send_held(key, now);
            }
            self.needs_maintenance = true;
            return;
        }
        if pseudonym == Pseudonym::Own {
            self.by_address.insert(session.ipv6.into(), key);
            let open = self.away.come_back(&peer, now.instant);
            session.flows.go_on(open, &peer, &self.config.policies);
        }
        for address in addresses.into_iter().flatten() {
            self.unreachable.clear(&address);
        }
        self.extend_paths(key, now);
        self.send_held(key, now);
        self.event(Event::SessionOpened(peer));
        self.needs_maintenance = true;
    }

    /// Sends what has waited for the session.
    pub(super) fn send_held(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let rules = &self.config.policies;
        let mut sender = Sender {
            links: &self.links,
            outbox: &mut self.outbox,
            counters: &mut self.counters,
            now: now.instant,
        };
        for bytes in session.held.take() {
            let Some(packet) = parse(&bytes) else {
                continue;
            };
            let (policy, path) =
                session
                    .flows
                    .assign(&packet, &session.peer, rules, &session.paths, now.instant);
            if session.pack(Load::Packet(&bytes), Route::of(policy, path), &mut sender) {
                session.used = now.instant;
                session.traffic.packets_out += 1;
                session.traffic.bytes_out += bytes.len() as u64;
                sender.counters.packets_out += 1;
            }
        }
        self.wake(key);
    }

    /// Gives the session own tails, up to `wanted`, from the spares. How many it has.
    pub(super) fn fill_tails(&mut self, key: SessionKey, wanted: usize, now: Now) -> usize {
        let Some(session) = self.sessions.get_mut(key) else {
            return 0;
        };
        while session.own_tails.len() < wanted.min(session.own_tails.capacity()) {
            let works =
                |tail: &Tail| self.links.is_up(&tail.guard) && !self.links.is_leaving(&tail.guard);
            let owner = Owner::Session(key);
            match self
                .tails
                .take_spare(owner, &session.own_tails, now, works, &self.inner_blame)
            {
                Some(tail) => session.own_tails.push(tail),
                None => {
                    self.spares_short = true;
                    break;
                }
            }
        }
        session.own_tails.len()
    }

    /// The session's own tails as the peer gets them.
    pub(super) fn own_offers(&self, key: SessionKey) -> Vec<TailOffer> {
        let Some(session) = self.sessions.get(key) else {
            return Vec::new();
        };
        session
            .own_tails
            .iter()
            .filter_map(|t| self.tails.get(*t))
            .map(|t| t.offer())
            .collect()
    }
}
