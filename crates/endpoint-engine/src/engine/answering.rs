//! What comes through own tails and is no data: answers to own initiations, and the initiations of others.
//!
//! Peers make new keys through private tails. What comes through public ones is anybody's: it is looked at in
//! the order of the effort that was spent on it, as far as the budget for that goes
//! ([`effort`](crate::effort)). In quiet times nobody waits, and nothing has to be spent.

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::records::TailOffer;
use mixline_protocol::session::{Form, Initiation, accept, effort};
use mixline_protocol::size::Payload;
use rand_core::Rng;

use super::Engine;
use super::liveness::REKEY_AFTER;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::effort::shortfall;
use crate::effort::strangers::Read;
use crate::keys::SessionKey;
use crate::limits::{CONFIRMS_WITHIN, MAX_UNCONFIRMED, SPARES_FOR_EFFORT, Trust};
use crate::session::ending::Ending;
use crate::session::keys::{Introduction, Pending};
use crate::session::{Phase, Session};

/// Tails for a peer that has not shown yet that it is there.
const FIRST_TAILS: usize = 2;

impl Engine {
    /// What came through a private tail and is not data: the answer to our initiation, or the
    /// peer's initiation of new keys. Whether it was one of these.
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
        let is_made = established
            && self.handshake_limits.try_one(Trust::Peer, now.instant)
            && self.new_keys(key, payload, now).is_some();
        if !is_made {
            self.counters.bad_cells += 1;
        }
        is_made
    }

    /// The peer of a session makes new keys through a private tail.
    fn new_keys(&mut self, key: SessionKey, payload: &Payload, now: Now) -> Option<()> {
        let pseudonym = self.sessions.get(key)?.pseudonym;
        let initiation = self.read_initiation(pseudonym, Form::Private, payload, now)?;
        let client = self.let_in(pseudonym, &initiation, Some(key))?;
        self.answer_peer(key, (initiation, client), (Form::Private, payload), now)
    }

    /// What came through a public tail.
    pub(super) fn initiation(&mut self, payload: &Payload, now: Now) {
        if !self.config.accept_sessions {
            self.counters.refused_initiations += 1;
            return;
        }
        let own = self.pseudonyms.get(Pseudonym::Own).id;
        let seeds = self.strangers.seeds.good(now.instant);
        let Some(spent) = effort::spent(&own, seeds, payload) else {
            self.counters.unsolved_initiations += 1;
            self.counters.refused_initiations += 1;
            return;
        };
        if self.strangers.knows(spent, payload) {
            self.counters.refused_initiations += 1;
        } else if self.strangers.sealed.takes(spent) {
            let payload = Box::new(*payload);
            let least = self.strangers.sealed.push(spent, payload, now.instant);
            self.turned_away(least, now);
        } else {
            self.turned_away(Some(spent), now);
        }
        self.serve_strangers(now);
    }

    /// Drops those who have waited too long, and serves others.
    pub(super) fn drive_strangers(&mut self, now: Now) {
        let late = self.strangers.expire(now.instant) as u64;
        self.counters.refused_initiations += late;
        self.counters.outranked_initiations += late;
        self.serve_strangers(now);
    }

    /// Serves those who wait, as far as the budget goes.
    fn serve_strangers(&mut self, now: Now) {
        self.answer_strangers(now);
        while self.strangers.sealed.next_effort().is_some()
            && self.handshake_limits.try_one(Trust::Public, now.instant)
        {
            let Some((spent, payload)) = self.strangers.next_sealed() else {
                break;
            };
            if self.read_stranger(&payload, spent, now).is_none() {
                self.counters.refused_initiations += 1;
            }
            self.answer_strangers(now);
        }
        let most = self.strangers.most_effort_that_waits(now.instant);
        self.strangers.suggestion.waits(most, now.instant);
        self.strangers.suggestion.update(now.instant);
    }

    /// One that had to give way to those who have spent more.
    fn turned_away(&mut self, spent: Option<Effort>, now: Now) {
        if let Some(spent) = spent {
            self.counters.refused_initiations += 1;
            self.counters.outranked_initiations += 1;
            self.strangers.suggestion.turned_away(spent, now.instant);
        }
    }

    /// Reads what has come through a public tail. Who has a session is answered; others wait for that.
    fn read_stranger(&mut self, payload: &Payload, spent: Effort, now: Now) -> Option<()> {
        let initiation = self.read_initiation(Pseudonym::Own, Form::Public, payload, now)?;
        let client = self.let_in(Pseudonym::Own, &initiation, None)?;
        let known = self
            .by_peer
            .get(&(Pseudonym::Own, initiation.certificate.id));
        // Who has a session has a share of its own, which strangers do not use up, through whichever tail
        // it comes.
        if let Some(key) = known.copied()
            && let Some(session) = self.sessions.get_mut(key)
            && session.phase != Phase::Unconfirmed
        {
            return self.answer_peer(key, (initiation, client), (Form::Public, payload), now);
        }
        let read = Read { initiation, client };
        let least = self.strangers.read.push(spent, read, now.instant);
        self.turned_away(least, now);
        Some(())
    }

    fn answer_strangers(&mut self, now: Now) {
        while let Some(spent) = self.strangers.read.next_effort() {
            if !self
                .handshake_limits
                .could_answer(Trust::Public, now.instant)
                || !self.has_tails_for(spent, now)
            {
                return;
            }
            if let Some((spent, read)) = self.strangers.read.pop()
                && self.answer_stranger(read, spent, now).is_none()
            {
                self.counters.refused_initiations += 1;
            }
        }
    }

    /// Whether there is a tail to offer to a stranger. The last ones are for those who have spent what is
    /// suggested.
    fn has_tails_for(&mut self, spent: Effort, now: Now) -> bool {
        let ready = self.tails.spares_ready(now.unix());
        let left = match spent < self.asked_effort() {
            true => SPARES_FOR_EFFORT,
            false => 0,
        };
        self.spares_short |= ready <= SPARES_FOR_EFFORT;
        ready > left
    }

    fn answer_stranger(&mut self, read: Read, spent: Effort, now: Now) -> Option<()> {
        let Read { initiation, client } = read;
        let (peer, timestamp) = (initiation.certificate.id, initiation.timestamp_ms);
        // What was answered while it waited costs nothing.
        if !self.initiation_replays.is_new(&peer, timestamp) {
            return None;
        }
        let known = self.by_peer.get(&(Pseudonym::Own, peer)).copied();
        let session = known.and_then(|key| self.sessions.get_mut(key));
        if session.is_some_and(|it| !it.answers.take(now.instant)) {
            return None;
        }
        let key = match known {
            Some(key) => key,
            None => self.unconfirmed(&initiation, spent, now)?,
        };
        if !self.handshake_limits.answer(Trust::Public, now.instant)
            || !self.initiation_replays.admit(peer, timestamp, now)
        {
            return None;
        }
        let asked = self.asked_effort();
        let session = self.sessions.get_mut(key)?;
        session.client = client;
        if known.is_none() || spent > session.effort {
            session.effort = spent;
            session.shortfall = shortfall(asked, spent);
        }
        let way = self.rng.next_u32();
        self.answer_initiation(key, initiation, way, now)
    }

    /// Answers somebody who has a session.
    fn answer_peer(
        &mut self,
        key: SessionKey,
        (initiation, client): (Initiation, Option<X25519Public>),
        (form, payload): (Form, &Payload),
        now: Now,
    ) -> Option<()> {
        let (peer, timestamp) = (initiation.certificate.id, initiation.timestamp_ms);
        let session = self.sessions.get_mut(key)?;
        let pseudonym = session.pseudonym;
        if !session.answers.take(now.instant)
            || !self.handshake_limits.answer(Trust::Peer, now.instant)
            || !self.initiation_replays.admit(peer, timestamp, now)
        {
            return None;
        }
        session.client = client;
        // New keys long before their time: the peer is in trouble, if we are not.
        let early = now.instant.saturating_duration_since(session.keyed) < REKEY_AFTER / 2;
        let trouble =
            session.phase == Phase::Established && (early || session.is_in_trouble(now.instant));
        let way = self.rng.next_u32();
        self.answer_initiation(key, initiation, way, now)?;
        if trouble && self.handshake_limits.answer(Trust::Peer, now.instant) {
            // Each of its tails may lead nowhere, and each way to it: one more answer goes through the next
            // tail, over the next guard. It has keys of its own, since nobody is to see the same bytes twice.
            let again = self.read_initiation(pseudonym, form, payload, now)?;
            self.answer_initiation(key, again, way.wrapping_add(1), now)?;
        }
        Some(())
    }

    /// Which client of the own list has made an initiation, if any; `None` if who has made it gets no
    /// answer. `through`: the session whose private tail it came through, so that it has to be from its peer.
    #[expect(clippy::option_option, reason = "one says whether there is an answer")]
    fn let_in(
        &mut self,
        pseudonym: Pseudonym,
        initiation: &Initiation,
        through: Option<SessionKey>,
    ) -> Option<Option<X25519Public>> {
        let peer = initiation.certificate.id;
        let known = self.by_peer.get(&(pseudonym, peer)).copied();
        if peer == self.pseudonyms.get(pseudonym).id
            || through.is_some_and(|key| known != Some(key))
        {
            return None;
        }
        let client = self.authorisations.client_of(initiation);
        // Peers of sessions that were begun here may make new keys for them; strangers hear nothing.
        let is_invited = through
            .and_then(|key| self.sessions.get(key))
            .is_some_and(|session| session.begun_here || session.pseudonym != Pseudonym::Own);
        if !is_invited && !self.authorisations.lets_in(client.as_ref()) {
            self.counters.unauthorised_initiations += 1;
            return None;
        }
        // What was answered before costs nobody's share.
        self.initiation_replays
            .is_new(&peer, initiation.timestamp_ms)
            .then_some(client)
    }

    /// What an initiation for one of the own IDs says, if it is one.
    fn read_initiation(
        &mut self,
        pseudonym: Pseudonym,
        form: Form,
        payload: &Payload,
        now: Now,
    ) -> Option<Initiation> {
        let directory = self.network.as_ref()?.grants_leases();
        let local = self.pseudonyms.get(pseudonym);
        let rng = &mut self.rng;
        accept(
            &local.secret,
            &local.id,
            &directory,
            form,
            payload,
            now.unix_ms,
            rng,
        )
        .ok()
    }

    /// What strangers are asked to spend, as far as they can know.
    pub(super) fn asked_effort(&self) -> Effort {
        let descriptor = self.publication.descriptor.as_ref();
        descriptor.map_or(0, |descriptor| descriptor.effort.suggested)
    }

    /// A session that is not confirmed yet. The one with the least effort makes room, and of those the
    /// oldest; none if that is the new one.
    fn unconfirmed(
        &mut self,
        initiation: &Initiation,
        spent: Effort,
        now: Now,
    ) -> Option<SessionKey> {
        // Whoever has had time to confirm it has no right to the place any more.
        let right = |session: &Session| {
            let fresh = now.instant.saturating_duration_since(session.since) < CONFIRMS_WITHIN;
            if fresh { session.effort } else { 0 }
        };
        let waiting = self.sessions.iter();
        let waiting = waiting.filter(|(_, session)| session.phase == Phase::Unconfirmed);
        let waiting: Vec<_> = waiting
            .map(|(key, session)| (right(session), session.since, key))
            .collect();
        if waiting.len() >= MAX_UNCONFIRMED
            && let Some((least, since, key)) = waiting.into_iter().min()
        {
            if spent < least {
                self.strangers.suggestion.turned_away(spent, now.instant);
                return None;
            }
            if now.instant.saturating_duration_since(since) < CONFIRMS_WITHIN {
                self.strangers.suggestion.turned_away(least, now.instant);
            }
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
        Some(key)
    }

    /// Answers through one of the initiator's tails and over one of the guards: those of the number `way`.
    fn answer_initiation(
        &mut self,
        key: SessionKey,
        initiation: Initiation,
        way: u32,
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
        let way = usize::try_from(way).unwrap_or(0);
        let target = *alive.get(way % alive.len().max(1))?;
        let said = Introduction {
            tails: alive,
            lease: initiation.certificate.lease,
            remote: initiation.certificate.session,
        };
        let (keys, payload) = initiation.respond(&offers).ok()?;
        self.send_handshake(&payload, &target, Some(key), way, now)
            .ok()?;
        let since = now.instant;
        let pending = Pending { keys, said, since };
        self.sessions.get_mut(key)?.keys.expect(pending);
        Some(())
    }
}
