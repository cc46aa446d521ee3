//! Back after having been away: this host has slept, has moved to another network, or no guard
//! could be reached for a while.
//!
//! Meanwhile guards and peers went on. A relay drops a link's session after three minutes, a NAT
//! forgets a mapping sooner, and a peer gives a session up after half a minute without answers, or sooner
//! if it would not look for this endpoint ([`silence`](super::silence)). So links are made anew at once, and each session is
//! *doubted*: its peer is asked over all paths, and packets wait. An answer ends the doubt. Without
//! one, soon, new keys are made through the peer's public tails, while the old ones stay in use: to
//! the host its connections go on as far as the peer still has them.

use std::time::Duration;

use super::lifecycle::HANDSHAKE_DEADLINE;
use super::{AWAY, Engine, STALL};
use crate::clock::Now;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::random::shuffle;
use crate::session::{Doubt, Opening, Phase, Target};

/// A peer that is asked has at least so long to answer, and at least three round trips.
const ASKED: Duration = Duration::from_millis(300);

impl Engine {
    /// Addresses or routes of this host have changed, or it has slept: what was true of guards
    /// and peers may not be any more.
    pub fn host_changed(&mut self, now: Now) {
        self.links.begin_anew(now.instant);
        self.last_slow = None;
        self.unreachable.forget();
        self.away.try_soon(now.instant);
        self.publication.next = self.publication.next.min(now.instant);
        self.doubt_sessions();
        for (_, session) in self.sessions.iter_mut() {
            if let Some(opening) = &mut session.opening {
                opening.next = now.instant;
                opening.deadline = now.instant + HANDSHAKE_DEADLINE;
            }
        }
        self.needs_maintenance = true;
    }

    /// Looks whether this program did not run for a while: the silence of others then says
    /// nothing, and they may have given us up.
    pub(super) fn notice_gap(&mut self, now: Now) {
        let Some(last) = self.last_tick else { return };
        let gap = now.instant.saturating_duration_since(last.instant);
        // A machine whose clocks all stood still, as a virtual one that was halted, has its wall
        // clock set when it goes on.
        let wall = Duration::from_millis(now.unix_ms.saturating_sub(last.unix_ms));
        let gap = if wall.saturating_sub(gap) >= AWAY {
            wall
        } else {
            gap
        };
        if gap < STALL {
            return;
        }
        self.last_tick = Some(now);
        for (_, session) in self.sessions.iter_mut() {
            session.forgive_silence();
            session.paths.forgive();
        }
        if gap >= AWAY {
            self.host_changed(now);
        }
    }

    /// No peer is known to have its session still.
    pub(super) fn doubt_sessions(&mut self) {
        for (_, session) in self.sessions.iter_mut() {
            if session.phase == Phase::Established {
                session.forgive_silence();
                session.paths.forgive();
                // A handshake over the peer's private tails has no point if those are gone.
                session.opening = None;
                session.doubt = Some(Doubt {
                    after: session.paths.last_probe(),
                    asked: None,
                    refreshed: false,
                });
            }
        }
        self.needs_maintenance = true;
    }

    /// Asks the peer of a doubted session as soon as a guard can be reached; makes new keys if it
    /// does not answer.
    pub(super) fn settle_doubt(&mut self, key: SessionKey, now: Now) {
        let renewed = self.links.any_renewed();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let waited_for = session.in_use(now.instant) || !session.held.is_empty();
        let Some(doubt) = &mut session.doubt else {
            return;
        };
        let Some(asked) = doubt.asked else {
            // What somebody waits for comes first; the others follow one by one.
            if renewed && (waited_for || self.doubts_bucket.take(now.instant)) {
                doubt.asked = Some(now.instant);
                session.paths.probe_soon();
            }
            return;
        };
        let patience = session
            .paths
            .round_trip()
            .map_or(ASKED, |trip| ASKED.max(trip * 3));
        let waited = now.instant.saturating_duration_since(asked);
        if waited < patience || session.opening.is_some() {
            return;
        }
        let (pseudonym, peer) = (session.pseudonym, session.peer);
        // Who has come to us by a session comes again, and need not have published anything.
        let ask = session.initiated
            && pseudonym == Pseudonym::Own
            && !std::mem::replace(&mut doubt.refreshed, true);
        let mut targets = self.public_tails(pseudonym, key, now);
        if targets.is_empty() {
            if ask && !self.queries.is_refreshing(&peer) {
                let body = self
                    .authorisations
                    .lookup(peer, self.said(Pseudonym::Asking, now).unix());
                self.ask_directory(body, Asker::Refresh(peer), now);
            }
            return;
        }
        shuffle(&mut targets, &mut self.rng);
        if let Some(session) = self.sessions.get_mut(key) {
            session.opening = Some(Opening::new(
                targets,
                HANDSHAKE_DEADLINE,
                false,
                now.instant,
            ));
        }
    }

    /// Where anybody reaches the peer of a session.
    pub(super) fn public_tails(
        &self,
        pseudonym: Pseudonym,
        key: SessionKey,
        now: Now,
    ) -> Vec<Target> {
        let Some(session) = self.sessions.get(key) else {
            return Vec::new();
        };
        let descriptor = match pseudonym {
            Pseudonym::Own => self.descriptors.last_known(&session.peer),
            Pseudonym::Asking | Pseudonym::Publishing => {
                let network = self.network.as_ref();
                network.and_then(|network| network.directory(now.unix()))
            }
        };
        descriptor
            .filter(|descriptor| descriptor.id == session.peer)
            .into_iter()
            .flat_map(|descriptor| Target::of(descriptor, now.unix()))
            .collect()
    }

    /// The peer has answered a probe. One that was sent since the doubt began ends it.
    pub(super) fn peer_is_there(&mut self, key: SessionKey, probe: u32, now: Now) {
        let later = |doubt: Doubt| probe.wrapping_sub(doubt.after).cast_signed() > 0;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !session.doubt.is_some_and(later) {
            return;
        }
        session.doubt = None;
        session.opening = None;
        self.send_held(key, now);
        self.needs_maintenance = true;
    }
}
