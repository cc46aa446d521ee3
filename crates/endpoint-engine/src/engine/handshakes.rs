//! Opening sessions, and answering those who open one.

use std::time::Duration;

use mixline_protocol::identity::ShortId;
use mixline_protocol::records::TailOffer;
use mixline_protocol::session::{Initiation, SessionInitiator, SessionKeys, accept};
use mixline_protocol::size::Payload;

use rand_core::Rng;

use super::Engine;
use super::build_path::PathError;
use super::silence::recovery_pause;
use crate::clock::Now;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::limits::{MAX_UNCONFIRMED, Trust};
use crate::packets::headers::parse;
use crate::random::below;
use crate::session::ending::Ending;
use crate::session::keys::{Introduction, Pending};
use crate::session::lanes::Route;
use crate::session::transmit::{Load, Sender};
use crate::session::{Attempt, Phase, Session};
use crate::status::Event;
use crate::tails::Owner;

/// Time between two initiations of one handshake; grows by a third each time.
pub const RETRY: Duration = Duration::from_millis(600);
/// A handshake waits so long for tails to become ready; after that it takes what there is.
const TAIL_PATIENCE: Duration = Duration::from_millis(400);
/// Tails for a peer that has not shown yet that it is there.
const FIRST_TAILS: usize = 2;

impl Engine {
    /// Makes the next initiation of a session's handshake when it is due, or gives up.
    pub(super) fn drive_opening(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(opening) = &mut session.opening else {
            return;
        };
        let rekey = session.phase == Phase::Established;
        if now.instant >= opening.deadline {
            if rekey {
                // The session goes on under the old keys, and tries again later.
                session.opening = None;
            } else {
                let why = if self.links.any_up() {
                    "the peer does not answer"
                } else {
                    "no guard can be reached"
                };
                self.end(key, &Ending::Unreachable(why), now);
            }
            return;
        }
        let waited = now.instant.saturating_duration_since(opening.since);
        let made = opening.made;
        if now.instant < opening.next || (opening.attempts.is_full() && !opening.recovers) {
            return;
        }
        let looks = !rekey || session.doubt.is_some() || opening.recovers;
        let peer = session.peer;
        if looks && self.asks_again(key, now) {
            if let Some(opening) = self
                .sessions
                .get_mut(key)
                .and_then(|it| it.opening.as_mut())
            {
                opening.refreshed = Some(now.instant);
            }
            if let Some(session) = self.sessions.get_mut(key)
                && let Some(recovery) = &mut session.recovery
            {
                recovery.refreshed = Some(now.instant);
            }
            let (body, asker) = (
                self.authorisations
                    .lookup(peer, self.said(Pseudonym::Asking, now).unix()),
                Asker::Refresh(peer),
            );
            self.ask_directory(body, asker, now);
        }
        let have = self.fill_tails(key, self.config.private_tails, now);
        if have == 0 || (have < self.config.private_tails && waited < TAIL_PATIENCE) {
            return;
        }
        if let Err(why) = self.initiate(key, made, now)
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.last_error = Some(why.to_string());
            if let Some(opening) = &mut session.opening {
                opening.next = now.instant + RETRY / 4;
            }
        }
    }

    fn initiate(&mut self, key: SessionKey, made: usize, now: Now) -> Result<(), PathError> {
        let offers = self.own_offers(key);
        let session = self.sessions.get(key).ok_or(PathError::SessionGone)?;
        let opening = session.opening.as_ref().ok_or(PathError::NoHandshake)?;
        let targets = opening.targets.len().max(1);
        let target = *opening
            .targets
            .get(made % targets)
            .ok_or(PathError::NoTail)?;
        // Each target is tried by each guard in the end.
        let guard = made + made / targets;
        let (pseudonym, peer, remote) = (session.pseudonym, session.peer, session.remote);
        let said = self.said(pseudonym, now);
        let certificate = self
            .pseudonyms
            .certificate(pseudonym, now.unix(), said.unix())
            .map_err(PathError::Protocol)?;
        // Throw-away IDs are nobody's client.
        let authorisation = (pseudonym == Pseudonym::Own)
            .then(|| self.authorisations.with(&peer))
            .flatten();
        let local = self.pseudonyms.get_mut(pseudonym);
        let at = local.initiation_time(said, made);
        let (initiator, payload) = SessionInitiator::start(
            &local.secret,
            &remote,
            &peer,
            &certificate,
            &offers,
            authorisation,
            at,
            &mut self.rng,
        )
        .map_err(PathError::Protocol)?;
        self.send_handshake(&payload, &target, Some(key), guard, now)?;
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        // Who was away has waited already: the second follows soon, by another way.
        let hurried = session.doubt.is_some() && made == 0;
        if let Some(opening) = session.opening.as_mut() {
            if opening.attempts.is_full() {
                opening.attempts.remove(0);
            }
            opening.attempts.push(Attempt {
                initiator,
                at: now.instant,
            });
            opening.made += 1;
            opening.next = if opening.recovers {
                now.instant + recovery_pause(made, session.paths.round_trip())
            } else if hurried {
                now.instant + RETRY / 3
            } else {
                now.instant + RETRY + RETRY * u32::try_from(made).unwrap_or(0) / 3
            };
        }
        Ok(())
    }

    /// What came through a private tail and is not data: the answer to our initiation, or the
    /// peer's initiation of new keys.
    /// Whether it was one of these.
    pub(super) fn private_handshake(
        &mut self,
        key: SessionKey,
        payload: &Payload,
        now: Now,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        if !session.tries.take(now.instant) {
            self.counters.bad_cells += 1;
            return false;
        }
        if let Some(opening) = &mut session.opening
            && self.handshake_limits.try_one(Trust::Own, now.instant)
        {
            let answered = opening
                .attempts
                .iter_mut()
                .find_map(|it| Some((it.initiator.finish(payload).ok()?, it.at)));
            if let Some(((keys, tails), at)) = answered {
                let trip = now.instant.saturating_duration_since(at);
                session.paths.handshake_took(trip);
                self.opened(key, keys, &tails, now);
                return true;
            }
        }
        let established = session.phase == Phase::Established;
        if !established || !self.handshake_limits.try_one(Trust::Peer, now.instant) {
            self.counters.bad_cells += 1;
            return false;
        }
        self.accept_initiation(payload, Some(key), now)
    }

    /// What came through a public tail.
    pub(super) fn initiation(&mut self, payload: &Payload, now: Now) {
        if !self.config.accept_sessions
            || !self.handshake_limits.try_one(Trust::Public, now.instant)
        {
            self.counters.refused_initiations += 1;
            return;
        }
        self.accept_initiation(payload, None, now);
    }

    /// Reads an initiation and answers it. `through`: the session whose private tail it came
    /// through, so that it has to be from its peer.
    /// Whether it was one that is answered.
    fn accept_initiation(
        &mut self,
        payload: &Payload,
        through: Option<SessionKey>,
        now: Now,
    ) -> bool {
        let is_answered = self.try_accept(payload, through, now).is_some();
        match through {
            _ if is_answered => {}
            Some(_) => self.counters.bad_cells += 1,
            None => self.counters.refused_initiations += 1,
        }
        is_answered
    }

    fn try_accept(
        &mut self,
        payload: &Payload,
        through: Option<SessionKey>,
        now: Now,
    ) -> Option<()> {
        let pseudonym = match through {
            Some(key) => self.sessions.get(key)?.pseudonym,
            None => Pseudonym::Own,
        };
        let own_id = self.pseudonyms.get(pseudonym).id;
        let initiation = self.read_initiation(pseudonym, payload, now)?;
        let peer = initiation.certificate.id;
        let known = self.by_peer.get(&(pseudonym, peer)).copied();
        if peer == own_id || through.is_some_and(|key| known != Some(key)) {
            return None;
        }
        let client = self.authorisations.client_of(&initiation);
        // Peers of sessions that were begun here may make new keys for them; strangers hear nothing.
        let is_invited = through
            .and_then(|key| self.sessions.get(key))
            .is_some_and(|session| session.begun_here || session.pseudonym != Pseudonym::Own);
        if !is_invited && !self.authorisations.lets_in(client.as_ref()) {
            self.counters.unauthorised_initiations += 1;
            return None;
        }
        // What was answered before costs nobody's share.
        if !self
            .initiation_replays
            .is_new(&peer, initiation.timestamp_ms)
        {
            return None;
        }
        let session = known.and_then(|key| self.sessions.get_mut(key));
        // Who has a session has a share of its own, which strangers do not use up, through whichever tail
        // it comes.
        let trust = match &session {
            Some(session) if session.phase != Phase::Unconfirmed => Trust::Peer,
            _ => Trust::Public,
        };
        if session.is_some_and(|it| !it.answers.take(now.instant))
            || !self.handshake_limits.answer(trust, now.instant)
            || !self
                .initiation_replays
                .admit(peer, initiation.timestamp_ms, now)
        {
            return None;
        }
        let key = match known {
            Some(key) => key,
            None => self.unconfirmed(&initiation, now),
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.client = client;
        }
        let trouble =
            |it: &Session| it.phase == Phase::Established && it.is_in_trouble(now.instant);
        let trouble = self.sessions.get(key).is_some_and(trouble);
        self.answer_initiation(key, initiation, now)?;
        if trouble {
            // Each of its tails may lead nowhere, and each way to it: one more answer goes by another one. It
            // has keys of its own, since nobody is to see the same bytes twice.
            let again = self.read_initiation(pseudonym, payload, now)?;
            self.answer_initiation(key, again, now)?;
        }
        Some(())
    }

    /// What an initiation for one of the own IDs says, if it is one.
    fn read_initiation(
        &mut self,
        pseudonym: Pseudonym,
        payload: &Payload,
        now: Now,
    ) -> Option<Initiation> {
        let directory = self.network.as_ref()?.snapshot().directory;
        let local = self.pseudonyms.get(pseudonym);
        let rng = &mut self.rng;
        accept(
            &local.secret,
            &local.id,
            &directory,
            payload,
            now.unix_ms,
            rng,
        )
        .ok()
    }

    /// A session that is not confirmed yet; the oldest of these makes room.
    fn unconfirmed(&mut self, initiation: &Initiation, now: Now) -> SessionKey {
        let waiting = self
            .sessions
            .iter()
            .filter(|(_, s)| s.phase == Phase::Unconfirmed);
        let (count, oldest) = waiting.fold((0, None), |(count, oldest), (key, session)| {
            let older = oldest.is_none_or(|(_, since)| session.since < since);
            (
                count + 1,
                if older {
                    Some((key, session.since))
                } else {
                    oldest
                },
            )
        });
        if let (true, Some((key, _))) = (count >= MAX_UNCONFIRMED, oldest) {
            self.end(key, &Ending::Idle, now);
        }
        let (id, remote) = (initiation.certificate.id, initiation.certificate.session);
        let session = Session::new(
            Pseudonym::Own,
            id,
            remote,
            false,
            self.rng.next_u64(),
            now.instant,
        );
        let key = self.sessions.insert(session);
        self.by_peer.insert((Pseudonym::Own, id), key);
        key
    }

    fn answer_initiation(
        &mut self,
        key: SessionKey,
        initiation: Initiation,
        now: Now,
    ) -> Option<()> {
        self.fill_tails(key, FIRST_TAILS, now);
        // Who comes again may have lost those that it had: what is known to lead nowhere helps nobody.
        self.renew_own_tails(key, now);
        let offers = self.own_offers(key);
        let alive: Vec<TailOffer> = initiation
            .tails
            .iter()
            .filter(|offer| offer.alive(now.unix()))
            .copied()
            .collect();
        let at = usize::try_from(below(alive.len() as u64, &mut self.rng)).unwrap_or(0);
        let target = *alive.get(at)?;
        let said = Introduction {
            tails: alive,
            lease: initiation.certificate.lease,
            remote: initiation.certificate.session,
        };
        let (keys, payload) = initiation.respond(&offers).ok()?;
        let guard = usize::try_from(self.rng.next_u32()).unwrap_or(0);
        self.send_handshake(&payload, &target, Some(key), guard, now)
            .ok()?;
        let since = now.instant;
        let pending = Pending { keys, said, since };
        self.sessions.get_mut(key)?.keys.expect(pending);
        Some(())
    }

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
    fn opened(&mut self, key: SessionKey, keys: SessionKeys, tails: &[TailOffer], now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
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
            let works = |guard: &ShortId| self.links.is_up(guard) && !self.links.is_leaving(guard);
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
