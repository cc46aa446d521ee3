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
use crate::relays::selection::{FAILED, OWN_GUARD, SHARED, choose};
use crate::session::Session;
use crate::session::paths::{Health, MAX_PATHS, NewPath, Path};
use crate::slab::Key;

impl Engine {
    /// Sends a handshake message over a head of its own. `turn` spreads retries over guards.
    pub(super) fn send_handshake(
        &mut self,
        payload: &Payload,
        target: &TailOffer,
        session: Option<Key<Session>>,
        turn: usize,
        now: Now,
    ) -> Result<(), String> {
        let guards: Vec<ShortId> = self.links.usable().collect();
        let guard = guards
            .get(turn % guards.len().max(1))
            .ok_or("no guard can be reached")?;
        let path = self.build_path(target, guard, session, now)?;
        let (link, to) = self
            .links
            .route(guard)
            .ok_or("the guard cannot be reached")?;
        let datagram = self.outbox.push(to).ok_or("too much waits to be sent")?;
        let sealed = cell_mut(datagram)
            .and_then(|cell| cell.split_first_chunk_mut::<PATH_HEADER>())
            .and_then(|(header, rest)| {
                *header = *path.head.header();
                let place = <&mut Payload>::try_from(rest).ok()?;
                *place = *payload;
                path.head.wrap(place);
                Some(())
            })
            .is_some();
        if !sealed || link.seal(datagram, CellKind::Cell).is_err() {
            self.outbox.retract();
            return Err("the link to the guard is worn out".into());
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
        session: Option<Key<Session>>,
        now: Now,
    ) -> Result<NewPath, String> {
        let network = self.network.as_ref().ok_or("there is no snapshot yet")?;
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
        .map_err(|shortage| shortage.to_string())?;
        if let Some((last, inner)) = chosen.hops.get_mut(1..).and_then(<[Hop]>::split_last_mut)
            && junctions.contains(&last.relay)
            && let Some(other) = inner.iter_mut().find(|hop| !junctions.contains(&hop.relay))
        {
            std::mem::swap(last, other);
        }
        let secrets = HeadSecrets::random(&mut self.rng);
        let head =
            build_head(&secrets, &chosen.hops, &target.tail).map_err(|error| error.to_string())?;
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
