//! Building heads, and sending handshake messages over them.

use std::time::Instant;

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::path::{HeadSecrets, Hop, build_head};
use mixline_protocol::records::TailOffer;
use mixline_protocol::size::{PATH_HEADER, Payload};

use super::Engine;
use crate::clock::Now;
use crate::guard_links::cell_mut;
use crate::keys::SessionKey;
use crate::relays::selection::{FAILED, OWN_GUARD, SHARED, Shortage, choose};
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

impl Engine {
    /// Sends a handshake message over a head of its own. `attempt` spreads retries over guards.
    pub(super) fn send_handshake(
        &mut self,
        payload: &Payload,
        target: &TailOffer,
        session: Option<SessionKey>,
        attempt: usize,
        now: Now,
    ) -> Result<(), PathError> {
        let guards: Vec<ShortId> = self.links.usable().collect();
        let guard = guards
            .get(attempt % guards.len().max(1))
            .ok_or(PathError::NoGuard)?;
        let path = self.build_path(target, guard, session, now)?;
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

    /// A head that begins with a guard, joined to a tail. Its other relays are those that the
    /// session shares and distrusts least.
    pub(super) fn build_path(
        &mut self,
        target: &TailOffer,
        guard: &ShortId,
        session: Option<SessionKey>,
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
        let penalty = |relay: &ShortId| {
            let guard = if guards.is_guard(relay) { OWN_GUARD } else { 0 };
            let speaks = |session: &Session| {
                session.sharing(relay, now.instant) + session.distrust(relay, now.instant)
            };
            guard + session.map_or(0, speaks)
        };
        let mut chosen = choose(
            network,
            guard,
            self.config.head_length,
            now.unix(),
            penalty,
            &mut self.rng,
        )
        .map_err(PathError::Shortage)?;
        if let Some((last, inner)) = chosen.hops.get_mut(1..).and_then(<[Hop]>::split_last_mut)
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
            relays: chosen.hops.iter().map(|hop| hop.relay).collect(),
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
