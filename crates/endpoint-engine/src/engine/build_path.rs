//! Building heads, and sending handshake messages over them.

use std::time::Instant;

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::path::{HeadSecrets, Hop, build_head};
use mixline_protocol::records::TailOffer;
use mixline_protocol::size::{PATH_HEADER, Payload};
use rand_core::Rng;

use super::Engine;
use crate::clock::Now;
use crate::guard_links::cell_mut;
use crate::keys::SessionKey;
use crate::relays::selection::{FAILED, Place, Plan, SHARED, Shortage, choose_within};
use crate::session::Session;
use crate::session::paths::{Health, MAX_PATHS, NewPath, Path};

/// Why a path was not built, or a handshake message not sent over one. It is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// There is no snapshot yet.
    #[error("there is no snapshot yet")]
    NoSnapshot,
    /// No guard can be reached.
    #[error("no guard can be reached")]
    NoGuard,
    /// This guard cannot be reached.
    #[error("the guard cannot be reached")]
    GuardDown,
    /// The counters of the link are used up.
    #[error("the link to the guard is worn out")]
    LinkWornOut,
    /// The outbox is full.
    #[error("too much waits to be sent")]
    OutboxFull,
    /// The session has ended.
    #[error("the session is gone")]
    SessionGone,
    /// The handshake has ended.
    #[error("no handshake is under way")]
    NoHandshake,
    /// The peer has no tail to send to.
    #[error("the peer has no tail that is still good")]
    NoTail,
    /// There are not enough relays.
    #[error(transparent)]
    Shortage(Shortage),
    /// A header or a message cannot be made.
    #[error(transparent)]
    Protocol(mixline_protocol::Error),
}

/// What is heeded when the relays of a head are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heed {
    /// Which relays fail, and which are shared.
    Blame,
    /// None of that.
    Nothing,
}

impl Engine {
    /// Sends a handshake message over a head of its own, which begins with the guard of this number. Where
    /// nothing works all relays are blamed, those too that are innocent: half of the heads heed no blame then.
    pub(super) fn send_handshake(
        &mut self,
        payload: &Payload,
        target: &TailOffer,
        session: Option<SessionKey>,
        guard: usize,
        now: Now,
    ) -> Result<(), PathError> {
        let guards: Vec<ShortId> = self.links.usable().collect();
        let guard = guards
            .get(guard % guards.len().max(1))
            .ok_or(PathError::NoGuard)?;
        let trouble = session
            .and_then(|key| self.sessions.get(key))
            .is_some_and(|session| session.is_in_trouble(now.instant));
        let heed = if trouble && self.rng.next_u32() & 1 == 0 {
            Heed::Nothing
        } else {
            Heed::Blame
        };
        let path = self.build_path(target, guard, session, heed, now)?;
        let (link, to) = self.links.route(guard).ok_or(PathError::GuardDown)?;
        let datagram = self.outbox.push(to).ok_or(PathError::OutboxFull)?;
        let sealed = cell_mut(datagram)
            .and_then(|cell| cell.split_first_chunk_mut::<PATH_HEADER>())
            .and_then(|(header, rest)| {
                *header = *path.head.header();
                let body = <&mut Payload>::try_from(rest).ok()?;
                *body = *payload;
                path.head.wrap(body);
                Some(())
            })
            .is_some();
        if !sealed || link.seal(datagram, CellKind::Cell).is_err() {
            self.outbox.retract();
            return Err(PathError::LinkWornOut);
        }
        self.counters.cells_out += 1;
        Ok(())
    }

    /// A head that begins with a guard and goes on with the relays that are kept for the places next
    /// to it, joined to a tail. Its relays are those that the session shares and distrusts least.
    pub(super) fn build_path(
        &mut self,
        target: &TailOffer,
        guard: &ShortId,
        session: Option<SessionKey>,
        heed: Heed,
        now: Now,
    ) -> Result<NewPath, PathError> {
        let network = self.network.as_ref().ok_or(PathError::NoSnapshot)?;
        let session = session.and_then(|key| self.sessions.get(key));
        let guards = &self.guards;
        // Where the session's other heads end: copies of one cell must not meet there.
        let junctions: Vec<ShortId> = session
            .iter()
            .flat_map(|session| session.paths.iter())
            .filter(|path| path.health(now.instant) != Health::Suspect)
            .filter_map(Path::junction)
            .collect();
        // Where nothing works, all that anybody has learnt counts: no peer brings that about for others.
        let trouble = session.is_some_and(|it| it.is_in_trouble(now.instant));
        let penalty = |place: Place, relay: &ShortId| {
            let speaks = |session: &Session| {
                session.sharing(relay, now.instant) + session.distrust(relay, now.instant)
            };
            let inner = match place {
                _ if heed == Heed::Nothing => return guards.speaks_against(place, relay),
                Place::Kept if trouble => self.inner_blame.of(relay, now.instant),
                Place::Kept => self.inner_blame.of_others(relay, now.instant),
                Place::Free => 0,
            };
            guards.speaks_against(place, relay) + session.map_or(0, speaks).max(inner)
        };
        let length = self.config.head_length;
        let deep = self.config.has_third_layer(length);
        let layers = guards.layers(network, guard, length, deep, now.unix());
        let plan = Plan {
            guard,
            layers: &layers,
            length,
        };
        let partner = session.map(Session::partner);
        let allowed = self.budgets.allow(partner.as_ref(), now.instant);
        let mut chosen = choose_within(network, plan, now, penalty, allowed, &mut self.rng)
            .map_err(PathError::Shortage)?;
        let inner = chosen.free();
        self.budgets.use_relays(partner, &inner, now.instant);
        if let Some((last, inner)) = chosen
            .hops
            .get_mut(1 + chosen.kept..)
            .and_then(<[Hop]>::split_last_mut)
            && junctions.contains(&last.relay)
            && let Some(other) = inner.iter_mut().find(|hop| !junctions.contains(&hop.relay))
        {
            std::mem::swap(last, other);
        }
        let secrets = HeadSecrets::random(&mut self.rng);
        let head = build_head(&secrets, &chosen.hops, &target.tail).map_err(PathError::Protocol)?;
        let expires = chosen.expires.min(target.expires);
        Ok(NewPath {
            head,
            hops: chosen.hops,
            tail: target.tail.id(),
            tail_first: target.tail.first,
            expires,
            renew: network.renewal(expires, &mut self.rng),
        })
    }
}

impl Session {
    /// What speaks against a relay in one more head because other paths share it.
    pub(super) fn sharing(&self, relay: &ShortId, now: Instant) -> u8 {
        times(SHARED, self.paths.uses(relay, now))
    }

    /// What does because paths through it do not answer, or have failed.
    pub(super) fn distrust(&self, relay: &ShortId, now: Instant) -> u8 {
        times(FAILED, self.paths.failing(relay, now)) + self.blame.of(relay, now)
    }
}

fn times(weight: u8, paths: usize) -> u8 {
    weight * u8::try_from(paths.min(MAX_PATHS)).unwrap_or(0)
}
