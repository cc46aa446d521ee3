//! Opening sessions, and making new keys for them: initiations, and what is spent on those that go through
//! tails that everybody knows.
//!
//! Solving a puzzle takes too long for the engine. It hands the search out ([`Engine::next_search`]), and goes
//! on with the handshake when it is over. With a silent peer it goes on meanwhile by the tails that cost nothing.

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
        let goes_on = |it: &Target| it.is_free() && it.is_alive(now.unix());
        let meanwhile = searches && opening.targets.iter().any(goes_on);
        if searches && !opening.recovers && waited < LONGEST_SEARCH {
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
        let prepared = opening.prepared.is_some();
        if !rekey || session.doubt.is_some() || opening.recovers {
            self.look_again(key, now);
        }
        if prepared && !meanwhile {
            let sent = self.send_prepared(key, now);
            self.note_failure(key, sent, now);
            return;
        }
        let have = self.fill_tails(key, self.config.private_tails, now);
        if have == 0 || (have < self.config.private_tails && waited < TAIL_PATIENCE) {
            return;
        }
        let sent = self
            .prepare(key, meanwhile, now)
            .and_then(|prepared| self.search_or_send(key, prepared, now));
        self.note_failure(key, sent, now);
    }

    /// Asks the directory where the peer of a handshake is reached now, if it is time for that.
    fn look_again(&mut self, key: SessionKey, now: Now) {
        if !self.asks_again(key, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(opening) = &mut session.opening {
            opening.refreshed = Some(now.instant);
        }
        if let Some(recovery) = &mut session.recovery {
            recovery.refreshed = Some(now.instant);
        }
        let peer = session.peer;
        let asked_at = self.said(Pseudonym::Asking, now).unix();
        let body = self.authorisations.lookup(peer, asked_at);
        self.ask_directory(body, Asker::Refresh(peer), now);
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

    /// Makes the next initiation of a handshake; `free`: one that nothing has to be spent on. If its puzzle has to be
    /// solved, that is begun.
    fn prepare(&mut self, key: SessionKey, free: bool, now: Now) -> Result<Prepared, PathError> {
        let offers = self.own_offers(key);
        let meanwhile = if free { self.time_meanwhile(key) } else { None };
        let session = self.sessions.get(key).ok_or(PathError::SessionGone)?;
        let opening = session.opening.as_ref().ok_or(PathError::NoHandshake)?;
        // One that has ended since is passed over.
        let fits = |it: &&Target| it.is_alive(now.unix()) && (!free || it.is_free());
        let targets = opening.targets.iter().filter(fits).count().max(1);
        let made = opening.made;
        let target: Target = *opening
            .targets
            .iter()
            .filter(fits)
            .nth(made % targets)
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
        let terms = target.terms.as_ref();
        let spent = terms.map_or(0, |terms| to_spend(terms, unanswered));
        let local = self.pseudonyms.get_mut(pseudonym);
        let mut times = 0..0;
        let at = match meanwhile {
            Some(at) => at,
            None if spent == 0 => local.initiation_time(said, made),
            None => {
                times = local.times_for_search(said, made);
                times.end
            }
        };
        if pseudonym == Pseudonym::Own {
            self.own_versions.initiate(local.last_initiation());
        }
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
        Ok(Prepared {
            initiator,
            times,
            payload,
            target,
            // Each target is tried by each guard in the end.
            guard: made + made / targets,
            made: now.instant,
            search,
        })
    }

    /// A time before that of the initiation that something is solved for.
    fn time_meanwhile(&mut self, key: SessionKey) -> Option<u64> {
        let opening = self.sessions.get_mut(key)?.opening.as_mut()?;
        opening.prepared.as_mut()?.times.next()
    }

    /// Sends an initiation, unless its puzzle has to be solved before.
    fn search_or_send(
        &mut self,
        key: SessionKey,
        prepared: Prepared,
        now: Now,
    ) -> Result<(), PathError> {
        if prepared.search.is_none() {
            return self.send_initiation(key, prepared, now);
        }
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(opening) = &mut session.opening
        {
            opening.prepared = Some(prepared);
        }
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
        self.send_initiation(key, prepared, now)
    }

    /// Sends an initiation. One that could not be sent is the next one, if no other one is.
    fn send_initiation(
        &mut self,
        key: SessionKey,
        prepared: Prepared,
        now: Now,
    ) -> Result<(), PathError> {
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
            opening.prepared.get_or_insert(prepared);
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

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use mixline_protocol::effort::{Effort, Puzzle};
    use mixline_protocol::time::UnixTime;

    use super::*;
    use crate::command::{Command, Question, RequestNumber};
    use crate::effort::MOST_EFFORT;
    use crate::session::{Opening, Session};
    use crate::testing::World;

    const CLIENT: usize = 2;
    const SERVICE: usize = 1;
    const STEP: Duration = Duration::from_millis(20);
    const SECOND: Duration = Duration::from_secs(1);

    fn session(world: &mut World) -> &mut Session {
        let peer = (Pseudonym::Own, world.nodes[SERVICE].id);
        let engine = &mut world.nodes[CLIENT].engine;
        engine.sessions.get_mut(engine.by_peer[&peer]).unwrap()
    }

    fn opening(world: &mut World) -> Option<&mut Opening> {
        session(world).opening.as_mut()
    }

    /// As if the peer asked for as much as it may.
    fn ask_for_much(opening: &mut Opening) {
        let terms = opening
            .targets
            .iter_mut()
            .filter_map(|it| it.terms.as_mut());
        terms.for_each(|it| it.suggested = MOST_EFFORT);
    }

    /// The search that is under way will not be over soon.
    fn search_for_ever(world: &mut World) {
        let endless = Puzzle::new(b"label", &[]).search(Effort::MAX, [0; NONCE]);
        let peer = world.nodes[SERVICE].id;
        let engine = &mut world.nodes[CLIENT].engine;
        let number = engine
            .searches
            .begin(engine.by_peer[&(Pseudonym::Own, peer)], endless);
        let prepared = opening(world).unwrap().prepared.as_mut().unwrap();
        prepared.search = Some(number);
    }

    fn searches(opening: &Opening) -> bool {
        let mut prepared = opening.prepared.iter();
        prepared.any(|it| it.search.is_some())
    }

    #[test]
    fn a_silent_peer_is_tried_by_private_tails_while_a_search_for_a_public_one_goes_on() {
        let mut world = World::connected(1);
        world.nodes[SERVICE].dead = true;
        let (from, to) = (world.ipv4(CLIENT), world.ipv4(SERVICE));
        let packet = crate::testing::udp(from, to, (1, 1), b"hello");
        world.send(CLIENT, &[packet]);
        let mut begun = None;
        for _ in 0..500 {
            world.run(STEP);
            let now = world.now.instant;
            let Some(opening) = opening(&mut world).filter(|it| it.recovers) else {
                continue;
            };
            ask_for_much(opening);
            if searches(opening) {
                begun = Some((now, opening.made));
                break;
            }
        }
        let (begun, before) = begun.unwrap();
        search_for_ever(&mut world);
        opening(&mut world).unwrap().refreshed = None;
        while world.now.instant < begun + Duration::from_secs(1) {
            world.run(STEP);
        }
        let opening = opening(&mut world).unwrap();
        assert!(opening.prepared.is_some(), "it still searches");
        assert!(opening.made >= before + 4, "{} {before}", opening.made);
        assert!(opening.refreshed.is_some(), "the directory is asked, too");
        // What is searched for is newer than what was sent meanwhile: the peer refuses it for none of these.
        let times = opening.prepared.as_ref().unwrap().times.clone();
        let left = usize::try_from(times.end - times.start).unwrap();
        assert!((1..=64 - 4).contains(&left), "{left}");
        let own = world.nodes[CLIENT].engine.pseudonyms.get(Pseudonym::Own);
        assert!(own.last_initiation() >= times.end);
    }

    /// A handshake with a peer that is silent.
    fn with_a_silent_peer() -> World {
        let mut world = World::connected(1);
        world.nodes[SERVICE].dead = true;
        let (from, to) = (world.ipv4(CLIENT), world.ipv4(SERVICE));
        let packet = crate::testing::udp(from, to, (1, 1), b"hello");
        world.send(CLIENT, &[packet]);
        let recovers = (0..500).any(|_| {
            world.run(STEP);
            opening(&mut world).is_some_and(|it| it.recovers)
        });
        assert!(recovers);
        world
    }

    #[test]
    fn a_tail_that_has_ended_is_passed_over() {
        let mut world = with_a_silent_peer();
        let before = opening(&mut world).unwrap().made;
        let alive = opening(&mut world).unwrap().targets[0];
        for _ in 0..50 {
            let opening = opening(&mut world).unwrap();
            opening.prepared = None;
            // The one whose turn it is.
            let at = opening.made % 2;
            opening.targets = vec![alive, alive];
            opening.targets[at].offer.expires = UnixTime(0);
            world.run(STEP);
        }
        let opening = opening(&mut world).unwrap();
        assert!(opening.made >= before + 2, "{} {before}", opening.made);
    }

    #[test]
    fn the_directory_is_asked_when_all_tails_have_ended() {
        let mut world = with_a_silent_peer();
        let key = {
            let engine = &world.nodes[CLIENT].engine;
            engine.by_peer[&(Pseudonym::Own, world.nodes[SERVICE].id)]
        };
        // What was asked before is answered.
        world.run(SECOND);
        let later = Now {
            instant: world.now.instant + 60 * SECOND,
            ..world.now
        };
        let mut asks = |ended: bool| {
            let opening = opening(&mut world).unwrap();
            (opening.recovers, opening.refreshed, opening.made) = (false, None, 0);
            for target in &mut opening.targets {
                target.offer.expires = if ended {
                    UnixTime(0)
                } else {
                    later.unix().plus(60)
                };
            }
            world.nodes[CLIENT].engine.asks_again(key, later)
        };
        assert_eq!([asks(false), asks(true)], [false, true]);
    }

    #[test]
    fn a_handshake_with_the_directory_goes_on_with_the_tails_of_a_new_snapshot() {
        let mut world = World::connected(3);
        world.nodes[0].dead = true;
        let question = Question::LookupId(world.nodes[SERVICE].id);
        world.command(CLIENT, Command::Ask(RequestNumber(1 << 32), question));
        world.run(Duration::from_secs(1));
        // It is killed, and starts again with other tails.
        world.restart_node(0);
        world.run(Duration::from_secs(1));
        let targets = |world: &World| {
            let engine = &world.nodes[CLIENT].engine;
            let network = engine.network.as_ref().unwrap();
            let directory = network.directory(world.unix()).unwrap().clone();
            let key = engine.by_peer[&(Pseudonym::Asking, directory.id)];
            let opening = engine.sessions[key].opening.as_ref().unwrap();
            assert!(opening.recovers);
            let offers: Vec<_> = opening.targets.iter().map(|it| it.offer).collect();
            (directory.tails, offers)
        };
        let (old, before) = targets(&world);
        assert!(old.iter().all(|tail| before.contains(tail)));
        world.publish_snapshot_to(&[CLIENT]);
        let (new, after) = targets(&world);
        assert!(
            new.iter()
                .all(|tail| !before.contains(tail) && after.contains(tail))
        );
        assert!(!old.iter().any(|tail| after.contains(tail)));
    }
}
