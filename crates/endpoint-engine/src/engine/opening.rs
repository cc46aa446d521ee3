//! Opening sessions, and making new keys for them: initiations, and what is spent on those that go through
//! tails that everybody knows.
//!
//! Solving a puzzle takes too long for the engine. It hands the search out ([`Engine::next_search`]), and goes
//! on with the handshake when it is over.

use std::time::Duration;

use mixline_protocol::effort::{NONCE, Solution};
use mixline_protocol::session::{Form, SessionInitiator, effort};
use rand_core::Rng;

use super::Engine;
use super::build_path::PathError;
use super::silence::recovery_pause;
use crate::clock::Now;
use crate::config::MAX_SESSIONS;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::effort::searches::{SearchNumber, SearchTask};
use crate::effort::to_spend;
use crate::keys::SessionKey;
use crate::session::ending::Ending;
use crate::session::{Attempt, Phase, Prepared, Target};

/// Time between two initiations of one handshake; grows by a third each time.
pub const RETRY: Duration = Duration::from_millis(600);
/// A handshake waits so long for tails to become ready; after that it takes what there is.
const TAIL_PATIENCE: Duration = Duration::from_millis(400);
/// A handshake is not given up for the time that its puzzle takes, so long after it has begun at most.
const LONGEST_SEARCH: Duration = Duration::from_secs(10);

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
        let waited = now.instant.saturating_duration_since(opening.since);
        let searches = opening
            .prepared
            .as_ref()
            .is_some_and(|it| it.search.is_some());
        if searches && waited < LONGEST_SEARCH {
            return;
        }
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
        if now.instant < opening.next || (opening.attempts.is_full() && !opening.recovers) {
            return;
        }
        if opening.prepared.is_some() {
            let sent = self.send_prepared(key, now);
            self.note_failure(key, sent, now);
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
        let sent = self
            .prepare(key, now)
            .and_then(|()| self.send_prepared(key, now));
        self.note_failure(key, sent, now);
    }

    /// What was not sent is tried again a little later.
    fn note_failure(&mut self, key: SessionKey, sent: Result<(), PathError>, now: Now) {
        if let Err(why) = sent
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.last_error = Some(why.to_string());
            if let Some(opening) = &mut session.opening {
                opening.next = now.instant + RETRY / 4;
            }
        }
    }

    /// Makes the next initiation of a handshake. If its puzzle has to be solved, that is begun.
    fn prepare(&mut self, key: SessionKey, now: Now) -> Result<(), PathError> {
        let offers = self.own_offers(key);
        let session = self.sessions.get(key).ok_or(PathError::SessionGone)?;
        let opening = session.opening.as_ref().ok_or(PathError::NoHandshake)?;
        let (made, targets) = (opening.made, opening.targets.len().max(1));
        let target: Target = *opening
            .targets
            .get(made % targets)
            .ok_or(PathError::NoTail)?;
        // Who is silent may not be under load.
        let unanswered = if opening.recovers { 0 } else { made };
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
        let (initiator, mut payload) = SessionInitiator::start(
            &local.secret,
            &remote,
            &peer,
            target.terms.map_or(Form::Private, |_| Form::Public),
            &certificate,
            &offers,
            authorisation,
            at,
            &mut self.rng,
        )
        .map_err(PathError::Protocol)?;
        let mut search = None;
        if let Some(terms) = &target.terms {
            let spent = to_spend(terms, unanswered);
            if spent == 0 {
                effort::write(&terms.seed, &Solution::default(), &mut payload);
            } else {
                // How far the search went is not to be seen.
                let mut nonce = [0; NONCE];
                self.puzzle_rng.fill_bytes(&mut nonce);
                let puzzle = effort::puzzle(&peer, &terms.seed, &payload);
                self.forget_searches();
                search = Some(self.searches.begin(key, puzzle.search(spent, nonce)));
            }
        }
        let opening = self
            .sessions
            .get_mut(key)
            .and_then(|it| it.opening.as_mut())
            .ok_or(PathError::NoHandshake)?;
        opening.prepared = Some(Prepared {
            initiator,
            payload,
            target,
            // Each target is tried by each guard in the end.
            guard: made + made / targets,
            made: now.instant,
            search,
        });
        Ok(())
    }

    /// Sends the initiation that was made, if its puzzle is solved.
    fn send_prepared(&mut self, key: SessionKey, now: Now) -> Result<(), PathError> {
        let opening = self
            .sessions
            .get_mut(key)
            .and_then(|it| it.opening.as_mut())
            .ok_or(PathError::NoHandshake)?;
        let Some(prepared) = opening.prepared.take_if(|it| it.search.is_none()) else {
            return Ok(());
        };
        let target = prepared.target.offer;
        if !target.alive(now.unix()) {
            return Err(PathError::NoTail);
        }
        let sent = self.send_handshake(&prepared.payload, &target, Some(key), prepared.guard, now);
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        let Some(opening) = session.opening.as_mut() else {
            return Ok(());
        };
        if sent.is_err() {
            opening.prepared = Some(prepared);
            return sent;
        }
        let made = opening.made;
        // Who was away has waited already: the second follows soon, by another way.
        let hurried = session.doubt.is_some() && made == 0;
        if opening.attempts.is_full() {
            opening.attempts.remove(0);
        }
        opening.attempts.push(Attempt {
            initiator: prepared.initiator,
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
        Ok(())
    }

    /// The search that somebody is to go on with, and give back to [`Self::handle_searched`].
    pub fn next_search(&mut self) -> Option<SearchTask> {
        while let Some(task) = self.searches.next() {
            if self.searching(task.session, task.number).is_some() {
                return Some(task);
            }
        }
        None
    }

    /// Somebody has gone on with a search. [`Self::finish_batch`] comes next.
    pub fn handle_searched(&mut self, task: SearchTask, now: Now) {
        let Some(opening) = self.searching(task.session, task.number) else {
            return;
        };
        let Some(solution) = task.solution else {
            self.searches.again(task);
            return;
        };
        if let Some(prepared) = &mut opening.prepared
            && let Some(terms) = &prepared.target.terms
        {
            effort::write(&terms.seed, &solution, &mut prepared.payload);
            prepared.search = None;
            opening.next = now.instant;
            let took = now.instant.saturating_duration_since(prepared.made);
            opening.deadline += took.min(LONGEST_SEARCH);
        }
        self.needs_maintenance = true;
    }

    /// The handshake that waits for a search.
    fn searching(
        &mut self,
        session: SessionKey,
        number: SearchNumber,
    ) -> Option<&mut crate::session::Opening> {
        let opening = self.sessions.get_mut(session)?.opening.as_mut()?;
        let prepared = opening.prepared.as_ref()?;
        (prepared.search == Some(number)).then_some(opening)
    }

    /// Nobody waits any more for what was begun for handshakes that are over.
    fn forget_searches(&mut self) {
        if self.searches.len() < MAX_SESSIONS {
            return;
        }
        let mut searches = std::mem::take(&mut self.searches);
        searches.retain(|task| self.searching(task.session, task.number).is_some());
        self.searches = searches;
    }
}
