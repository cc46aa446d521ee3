//! Keeping sessions alive: probes, failover, renewal of keys, tails and paths.
//!
//! A service that has stopped is noticed within five seconds: it is probed all the time that
//! packets go to it, and the host is told when nothing has been heard for [`PEER_DEAD`] although
//! own guards work ([`silence`](super::silence)). A relay that has stopped is noticed sooner, by the
//! paths through it, and the others go on.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::identity::ShortId;
use mixline_protocol::session::{Control, MAX_OFFERS, REKEY_AFTER_CELLS};

use super::Engine;
use super::build_path::{Heed, PathError};
use super::silence::GIVEN_UP;
use crate::clock::Now;
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::{SessionKey, TailKey};
use crate::limits::{SPARES_FOR_EFFORT, UNCONFIRMED};
use crate::policy::PathPolicy;
use crate::relays::budget::Partner;
use crate::relays::selection::SHARED;
use crate::session::ending::Ending;
use crate::session::lanes::Route;
use crate::session::paths::{Health, MAX_PATHS, OVERLAP, Path};
use crate::session::transmit::{Load, Sender};
use crate::session::{Opening, Phase, Session, Target};
use crate::tails::{Owner, Tail};

/// A peer that has been silent for so long since the first probe cannot be reached, as far as the host is
/// told: see [`silence`](super::silence).
pub const PEER_DEAD: Duration = Duration::from_millis(3800);
/// The end of a session that only messages go over, if none waits for an answer: a new one is cheap.
pub const MESSAGES_DEAD: Duration = Duration::from_millis(3000);
/// Paths to a peer that packets go to: as many as it offers tails, so that one relay that fails
/// leaves some.
pub const PATHS: usize = 4;
/// Paths to a peer that only messages go to.
pub const MESSAGE_PATHS: usize = 2;
/// Own tails for such a peer.
pub const MESSAGE_TAILS: usize = 2;
/// Time between two paths that are built for the same session.
pub const BUILD_EVERY: Duration = Duration::from_millis(100);
/// The same while the peer is not there.
pub const BUILD_GONE: Duration = Duration::from_millis(1200);
/// The keys of a session are replaced at this age, by the side that initiated it.
pub const REKEY_AFTER: Duration = Duration::from_secs(15 * 60);
/// And the session ends at this one.
pub const REJECT_AFTER: Duration = Duration::from_secs(45 * 60);
/// How long a rekeying handshake is tried, and the time to the next try if it fails.
const REKEY_PATIENCE: Duration = Duration::from_secs(30);
/// A session for packets ends after so long without any ...
pub const PACKETS_IDLE: Duration = Duration::from_secs(600);
/// ... but with TCP connections open only after days: the side that may open no session, a service's
/// host towards a client's, still has to reach the other. (TCP itself ends no idle connection,
/// RFC 9293, section 3.8.4.)
pub const CONNECTIONS_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A session for messages ends after so long without any.
pub const MESSAGES_IDLE: Duration = Duration::from_secs(120);
/// With so little of the peer's lease left, seconds, it is asked for the next one ...
const LEASE_ASK: u64 = 600;
/// ... so often.
const LEASE_ASK_EVERY: Duration = Duration::from_secs(60);
/// The peer is told of new tails so often, until it says that it knows.
const TELL_TAILS: Duration = Duration::from_secs(1);
/// A session is in trouble when it has heard nothing for so long, and no path works.
pub const TROUBLE: Duration = Duration::from_millis(900);
/// Own tails are replaced for that so often.
const TROUBLE_EVERY: Duration = Duration::from_secs(1);
/// Own tails that all share a relay are parted so often.
const PART_EVERY: Duration = Duration::from_secs(1);
/// A tail of the peer's through which nothing comes is not used for so long.
const BROKEN: Duration = Duration::from_secs(60);
/// As so many paths that do not answer it counts meanwhile.
const BROKEN_COUNTS: usize = 2;
/// Distrust of a guard counts at most so much: what fails may be a relay behind it, which must
/// not drive the paths to another guard.
const GUARD_DISTRUST: u8 = 2 * SHARED;

impl Engine {
    /// Does all that is due for one session.
    pub(super) fn maintain_session(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        match session.phase {
            Phase::Opening => self.drive_opening(key, now),
            Phase::Unconfirmed => {
                let age = now.instant.saturating_duration_since(session.since);
                if age >= UNCONFIRMED {
                    self.end(key, &Ending::Idle, now);
                }
            }
            Phase::Established => self.maintain_established(key, now),
        }
    }

    fn maintain_established(&mut self, key: SessionKey, now: Now) {
        if let Some(ending) = self.ending_due(key, now) {
            self.end(key, &ending, now);
            return;
        }
        self.expire_address(key, now);
        self.rekey(key, now);
        self.settle_doubt(key, now);
        self.watch_silence(key, now);
        // Handshakes carry the tails that there are then.
        self.renew_in_trouble(key, now);
        self.renew_own_tails(key, now);
        self.drive_opening(key, now);
        self.bury_paths(key, now);
        self.extend_paths(key, now);
        self.probe(key, now);
        if let Some(session) = self.sessions.get_mut(key) {
            session.reassembly.expire(now.instant);
            session.keys.expire(now.instant);
        }
    }

    fn ending_due(&mut self, key: SessionKey, now: Now) -> Option<Ending> {
        let any_up = self.links.any_up();
        let since = |at: Instant| now.instant.saturating_duration_since(at);
        if !any_up {
            // Nothing can be heard of anybody.
            let session = self.sessions.get_mut(key)?;
            session.forgive_silence();
            session.blame.forget();
        }
        let session = self.sessions.get(key)?;
        let asked = session.initiated && self.queries.any_as(session.pseudonym);
        let patience = if session.carries_packets || asked {
            self.patience(session)
        } else {
            MESSAGES_DEAD
        };
        if session.waiting.is_some_and(|at| since(at) >= patience) {
            return Some(Ending::Unreachable("the peer does not answer any more"));
        }
        // It may answer handshakes still, and say things; but nothing that is sent to it arrives.
        let deaf = session.unanswered_since();
        if session.carries_packets
            && !session.paths.any_alive(now.instant)
            && deaf.is_some_and(|at| since(at) >= GIVEN_UP)
        {
            return Some(Ending::Unreachable("the peer answers no probes any more"));
        }
        if since(session.keyed) >= REJECT_AFTER {
            // It was away for long, or this host was: connections wait for another session.
            return Some(if session.flows.any_open() {
                Ending::Unreachable("its keys are too old")
            } else {
                Ending::Idle
            });
        }
        let idle = since(session.used);
        let most = if !session.carries_packets {
            MESSAGES_IDLE
        } else if idle >= PACKETS_IDLE && session.flows.any_open() {
            CONNECTIONS_IDLE
        } else {
            PACKETS_IDLE
        };
        (idle >= most).then_some(Ending::Idle)
    }

    /// An address is the peer's only as long as it is leased. The side that has begun the session
    /// asks whether the lease was renewed; the other one hears of it with each new certificate.
    fn expire_address(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let lately = |at: Instant| now.instant.saturating_duration_since(at) < LEASE_ASK_EVERY;
        if session.initiated
            && session.pseudonym == Pseudonym::Own
            && session
                .lease_until
                .is_some_and(|until| until.since(now.unix()) < LEASE_ASK)
            && !session.lease_asked.is_some_and(lately)
            && (session.in_use(now.instant) || session.flows.any_open())
        {
            session.lease_asked = Some(now.instant);
            let peer = session.peer;
            let body = self
                .authorisations
                .lookup(peer, self.said(Pseudonym::Asking, now).unix());
            self.ask_directory(body, Asker::Refresh(peer), now);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some((ip, _)) = session.ipv4.take_if(|(_, until)| now.unix() >= *until)
            && self.by_address.get(&ip.into()) == Some(&key)
        {
            self.by_address.remove(&ip.into());
        }
    }

    fn rekey(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let worn = session
            .keys
            .current
            .as_ref()
            .is_some_and(|k| k.seal.sent() >= REKEY_AFTER_CELLS);
        let old = now.instant.saturating_duration_since(session.keyed) >= REKEY_AFTER;
        let due = session.initiated && (worn || old || session.rekey);
        if session.opening.is_some() || !(due || session.introduce) {
            return;
        }
        let tails = session.peer_tails.iter();
        let targets = tails.map(|tail| Target::private(tail.offer)).collect();
        let mut opening = Opening::new(targets, REKEY_PATIENCE, false, now.instant);
        if !std::mem::take(&mut session.introduce) {
            // Spreads the sessions of many clients of one service.
            opening.next += Duration::from_millis(crate::random::below(5000, &mut self.rng));
        }
        session.opening = Some(opening);
        session.rekey = false;
    }

    /// Replaces own tails that end soon, or whose guard or relays are gone, and tells the peer.
    pub(super) fn renew_own_tails(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let wanted = if session.carries_packets {
            self.config.private_tails
        } else {
            MESSAGE_TAILS.min(self.config.private_tails)
        };
        let before = session.own_tails.len();
        let mut changed = false;
        for at in 0..before {
            let Some(session) = self.sessions.get(key) else {
                return;
            };
            let old = session.own_tails[at];
            if !self.tail_is_due(old, now) {
                continue;
            }
            let others: Vec<_> = session
                .own_tails
                .iter()
                .copied()
                .filter(|t| *t != old)
                .collect();
            let works =
                |tail: &Tail| self.links.is_up(&tail.guard) && !self.links.is_leaving(&tail.guard);
            let owner = Owner::Session(key);
            let Some(new) = self
                .tails
                .take_spare(owner, &others, now, works, &self.inner_blame)
            else {
                self.spares_short = true;
                break;
            };
            self.tails.drain(old, now);
            if let Some(session) = self.sessions.get_mut(key) {
                session.own_tails[at] = new;
            }
            changed = true;
        }
        if before < wanted {
            changed |= self.fill_tails(key, wanted, now) > before;
        }
        changed |= self.part_own_tails(key, now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if changed {
            session.own_tails_changed();
        }
        let late = |at: Instant| now.instant.saturating_duration_since(at) >= TELL_TAILS;
        if session
            .own_unacknowledged
            .is_some_and(|told| told.is_none_or(late))
        {
            session.own_unacknowledged = Some(Some(now.instant));
            let version = session.own_version;
            let tails = self.own_offers(key);
            self.queue_control(key, &Control::Tails { version, tails });
        }
    }

    /// All own tails share a relay, as they do when others have failed one after the other: one gives way to a spare
    /// that does not, if there is a good one, before that relay ends all of them. Whether one did.
    fn part_own_tails(&mut self, key: SessionKey, now: Now) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let lately = |at: Instant| now.instant.saturating_duration_since(at) < PART_EVERY;
        let Some((old, others)) = session.own_tails.split_first() else {
            return false;
        };
        // The last spares are for handshakes.
        if session.phase != Phase::Established
            || others.is_empty()
            || self.tails.spares_ready(now.unix()) <= SPARES_FOR_EFFORT
            || session.parted.is_some_and(lately)
            || self.tails.in_all(&session.own_tails).is_empty()
        {
            return false;
        }
        let common = self.tails.in_all(others);
        let fits = |tail: &Tail| {
            let blamed = |relay: &ShortId| self.inner_blame.of(relay, now.instant) > 0;
            let is_bad = |relay: &ShortId| common.contains(relay) || blamed(relay);
            self.links.is_up(&tail.guard)
                && !self.links.is_leaving(&tail.guard)
                && !tail.relays.iter().any(is_bad)
        };
        let owner = Owner::Session(key);
        let new = self
            .tails
            .take_spare(owner, others, now, fits, &self.inner_blame);
        let (old, Some(new)) = (*old, new) else {
            return false;
        };
        self.tails.drain(old, now);
        if let Some(session) = self.sessions.get_mut(key) {
            session.parted = Some(now.instant);
            session.own_tails[0] = new;
        }
        true
    }

    /// No path works although the session is in use: perhaps it is own tails through which nothing
    /// comes. Half of them are replaced, now and then.
    fn renew_in_trouble(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let silent = session
            .waiting
            .is_some_and(|since| now.instant.saturating_duration_since(since) >= TROUBLE);
        let lately = session
            .troubled
            .is_some_and(|at| now.instant.saturating_duration_since(at) < TROUBLE_EVERY);
        if !silent || lately || session.paths.any_alive(now.instant) {
            return;
        }
        session.troubled = Some(now.instant);
        let half = session.own_tails.len().div_ceil(2);
        let (initiated, partner) = (session.initiated, session.partner());
        let tails: ArrayVec<TailKey, MAX_OFFERS> =
            session.own_tails.iter().take(half).copied().collect();
        // The other half comes first the next time.
        session.own_tails.rotate_left(half);
        for tail in tails {
            // A session that was begun here would be opened anew, with other tails; a stranger does not make
            // us build them.
            let budget = self.budgets.peer(partner, now.instant);
            if initiated || budget.trouble.take(now.instant) {
                self.suspect_tail(key, tail, now);
                self.tails.make_due(tail);
            }
        }
    }

    /// Nothing came through an own tail, as far as it seems. Its relays behind the guard are blamed. A peer can
    /// bring that about, so each cause has a budget.
    pub(super) fn suspect_tail(&mut self, key: SessionKey, tail: TailKey, now: Now) {
        if let Some((hops, relays)) = self.tails.suspects(tail, now.instant) {
            let witness = self.sessions.get(key).and_then(|it| self.witness(it));
            self.inner_blame.add_all(hops, relays, witness, now.instant);
        }
    }

    /// Whom what a session learns is from: all strangers count as one.
    fn witness(&self, session: &Session) -> Option<Partner> {
        self.looks_for(session).then(|| session.partner())
    }

    /// Whether an own tail should be replaced, if there is one to replace it.
    pub(super) fn tail_is_due(&self, key: TailKey, now: Now) -> bool {
        let Some(tail) = self.tails.get(key) else {
            return true;
        };
        let listed = |relay: &ShortId| {
            self.network
                .as_ref()
                .is_some_and(|network| network.relay(relay).is_some())
        };
        now.unix() >= tail.renew
            || tail.draining.is_some()
            || !self.links.is_up(&tail.guard)
            || self.links.is_leaving(&tail.guard)
            || !tail.relays.iter().all(listed)
    }

    /// Removes paths that have ended, failed, or been replaced.
    fn bury_paths(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        for path in session.paths.iter_mut() {
            let guard = path.guard();
            let listed = |relay: &ShortId| {
                self.network
                    .as_ref()
                    .is_none_or(|network| network.relay(relay).is_some())
            };
            path.link_down = !self.links.is_up(&guard);
            if now.unix() >= path.renew
                || self.links.is_leaving(&guard)
                || !path.relays.iter().all(listed)
            {
                path.retiring.get_or_insert(now.instant);
            }
        }
        let unused = session.peer_tails.iter().any(|tail| {
            tail.offer.alive(now.unix())
                && tail.broken_until.is_none_or(|until| now.instant >= until)
                && session.paths.iter().all(|path| path.tail != tail.id())
        });
        session.paths.spread(unused, now.instant);
        let dead: Vec<u32> = session
            .paths
            .dead(now.instant)
            .map(|path| path.id)
            .collect();
        let replaced = session.paths.good(now.instant) > 0;
        let over = |path: &Path| {
            let retired = |at: Instant| now.instant.saturating_duration_since(at) >= OVERLAP;
            now.unix() >= path.expires || (replaced && path.retiring.is_some_and(retired))
        };
        session
            .paths
            .retain(|path| dead.contains(&path.id) || !over(path));
        for id in dead {
            self.counters.paths_lost += 1;
            self.bury(key, id, now);
        }
    }

    /// A path has failed. What it shares with a path that works is not to blame; the rest may be,
    /// unless it is known to be the link to the guard.
    fn bury(&mut self, key: SessionKey, id: u32, now: Now) {
        let witness = self.sessions.get(key).and_then(|it| self.witness(it));
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(path) = session.paths.bury(id) else {
            return;
        };
        session.last_error = Some("a path has failed and is replaced".into());
        let alive: Vec<&Path> = session
            .paths
            .iter()
            .filter(|other| other.health(now.instant) == Health::Alive)
            .collect();
        let explained = path.link_down || path.explained;
        if !explained {
            let works = |relay: &&ShortId| alive.iter().any(|it| it.relays.contains(relay));
            let relays = path.relays.iter().filter(|relay| !works(relay)).copied();
            let blamed: Vec<ShortId> = relays.collect();
            let kept = |relay: &&ShortId| self.guards.is_kept(relay);
            let inner = blamed.iter().filter(kept).copied().collect();
            self.inner_blame
                .add_all(path.hops.clone(), inner, witness, now.instant);
            session.blame.add_all(path.hops, blamed, None, now.instant);
        }
        let tail_works = alive.iter().any(|other| other.tail == path.tail);
        if !alive.is_empty() && !tail_works && !explained {
            for tail in session
                .peer_tails
                .iter_mut()
                .filter(|tail| tail.id() == path.tail)
            {
                tail.broken_until = Some(now.instant + BROKEN);
            }
            self.queue_control(key, &Control::TailBroken { tail: path.tail });
        }
    }

    /// Builds the paths that are missing: the first at once, the others one by one.
    pub(super) fn extend_paths(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let copies = self.config.policies.iter().map(|rule| match rule.policy {
            PathPolicy::Duplicate(copies) => copies,
            PathPolicy::PerFlow | PathPolicy::PerPacket => 0,
        });
        let wanted = if session.carries_packets {
            PATHS.max(copies.max().unwrap_or(0))
        } else {
            MESSAGE_PATHS
        };
        let since = |at: Instant| now.instant.saturating_duration_since(at);
        // To who is not there, a head now and then; the handshakes find out by themselves.
        let gone = session.unreachable;
        let every = if gone { BUILD_GONE } else { BUILD_EVERY };
        let at_once = session.paths.is_empty() && !gone;
        if session.paths.good(now.instant) >= wanted
            || session.paths.len() >= MAX_PATHS
            || !(at_once || session.built.is_none_or(|at| since(at) >= every))
        {
            return;
        }
        let built = self.add_path(key, now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.built = Some(now.instant);
        if let Err(why) = built {
            session.last_error = Some(why.to_string());
        }
    }

    /// Builds a path over the guard and the tail of the peer that fail and are used least.
    fn add_path(&mut self, key: SessionKey, now: Now) -> Result<(), PathError> {
        let session = self.sessions.get(key).ok_or(PathError::SessionGone)?;
        let (failing, good): (Vec<&Path>, Vec<&Path>) = session
            .paths
            .iter()
            .partition(|path| path.health(now.instant) == Health::Suspect);
        let over = |paths: &[&Path], tail| paths.iter().filter(|path| path.tail == tail).count();
        // Where nothing works, what has failed before is as good as the rest.
        let heeds = session.paths.any_alive(now.instant);
        let target = session
            .peer_tails
            .iter()
            .filter(|tail| tail.offer.alive(now.unix()))
            .min_by_key(|tail| {
                let id = tail.id();
                let broken = heeds && tail.broken_until.is_some_and(|until| now.instant < until);
                let failing = over(&failing, id) + if broken { BROKEN_COUNTS } else { 0 };
                (failing, over(&good, id))
            })
            .map(|tail| tail.offer)
            .ok_or(PathError::NoTail)?;
        let mut guards: Vec<ShortId> = self.links.usable().collect();
        crate::random::shuffle(&mut guards, &mut self.rng);
        let guard = guards
            .into_iter()
            .min_by_key(|guard| {
                let distrust = session.distrust(guard, now.instant);
                session.sharing(guard, now.instant) + distrust.min(GUARD_DISTRUST)
            })
            .ok_or(PathError::NoGuard)?;
        let new = self.build_path(&target, &guard, Some(key), Heed::Blame, now)?;
        let session = self.sessions.get_mut(key).ok_or(PathError::SessionGone)?;
        session.paths.add(new);
        Ok(())
    }

    /// Sends the probes that are due.
    fn probe(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let in_use = session.in_use(now.instant)
            || session.waiting.is_some()
            || session.doubt.is_some_and(|doubt| doubt.asked.is_some());
        // Sessions for messages need no warm paths: a message that is lost is repeated.
        if !in_use && !session.carries_packets {
            return;
        }
        let due: Vec<u32> = session
            .paths
            .iter()
            .filter(|path| path.probe_due(in_use, now.instant))
            .map(|path| path.id)
            .collect();
        let mut sender = Sender {
            links: &self.links,
            outbox: &mut self.outbox,
            counters: &mut self.counters,
            now: now.instant,
        };
        for id in &due {
            let probe = session.paths.next_probe();
            let Ok(body) = (Control::Probe { id: probe }).encode() else {
                continue;
            };
            if session.pack(Load::Control(&body), Route::Path(*id), &mut sender)
                && let Some(path) = session.paths.get_mut(*id)
            {
                path.probe_sent(probe, now.instant);
            }
        }
        if !due.is_empty() {
            session.waiting.get_or_insert(now.instant);
            session.unanswered.get_or_insert(now.instant);
            self.wake(key);
        }
    }

    /// Asks the directory again as somebody else, when an ID has been used long enough.
    pub(super) fn renew_pseudonyms(&mut self, now: Now) {
        for pseudonym in [Pseudonym::Asking, Pseudonym::Publishing] {
            if self.pseudonyms.is_worn(pseudonym, now.instant) && !self.queries.any_as(pseudonym) {
                let sessions: Vec<_> = self
                    .by_peer
                    .iter()
                    .filter(|((of, _), _)| *of == pseudonym)
                    .map(|(_, key)| *key)
                    .collect();
                for key in sessions {
                    self.end(key, &Ending::Stopping, now);
                }
                self.budgets.forget(pseudonym);
                self.pseudonyms.renew(pseudonym, now.instant, &mut self.rng);
            }
        }
    }

    /// Sends a message over a session, over several paths at once.
    pub(super) fn send_message(&mut self, key: SessionKey, message: &[u8], now: Now) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let mut sender = Sender {
            links: &self.links,
            outbox: &mut self.outbox,
            counters: &mut self.counters,
            now: now.instant,
        };
        let route = session.control_route(now.instant);
        let sent = session.pack(Load::Message(message), route, &mut sender);
        if sent {
            session.used = now.instant;
            session.traffic.packets_out += 1;
            session.traffic.bytes_out += message.len() as u64;
            self.wake(key);
        }
        sent
    }
}

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::World;

    const CLIENT: usize = 2;
    const SERVICE: usize = 1;

    fn key(world: &World) -> SessionKey {
        let peer = (Pseudonym::Own, world.nodes[SERVICE].id);
        world.nodes[CLIENT].engine.by_peer[&peer]
    }

    #[test]
    fn a_head_whose_failure_is_explained_makes_no_tail_suspect() {
        for explained in [true, false] {
            let mut world = World::connected(1);
            let (key, now) = (key(&world), world.now);
            let engine = &mut world.nodes[CLIENT].engine;
            let session = engine.sessions.get_mut(key).unwrap();
            let path = session.paths.iter_mut().next().unwrap();
            path.explained = explained;
            let (id, tail) = (path.id, path.tail);
            engine.bury(key, id, now);
            let session = engine.sessions.get(key).unwrap();
            let mut tails = session.peer_tails.iter();
            let broken = tails.find(|it| it.id() == tail).unwrap().broken_until;
            assert_eq!(broken.is_none(), explained);
        }
    }

    #[test]
    fn own_tails_that_all_share_a_relay_are_parted() {
        let mut world = World::connected(2);
        let key = key(&world);
        let own = |world: &World| world.nodes[CLIENT].engine.sessions[key].own_tails.clone();
        let tails = &mut world.nodes[CLIENT].engine.tails;
        // As if the first relay of each were the same one.
        let shared = world.relays[7].short;
        let all: Vec<TailKey> = tails.iter().map(|(key, _)| key).collect();
        let before = own(&world);
        let tails = &mut world.nodes[CLIENT].engine.tails;
        for at in all.into_iter().filter(|at| before.contains(at)) {
            let (_, tail) = tails.iter_mut().find(|(key, _)| *key == at).unwrap();
            tail.relays[0] = shared;
        }
        assert!(tails.in_all(&before).contains(&shared));
        world.run(Duration::from_secs(3));
        let after = own(&world);
        let tails = &world.nodes[CLIENT].engine.tails;
        assert!(tails.in_all(&after).is_empty(), "{after:?}");
        // One is enough.
        assert_eq!(after.iter().filter(|it| before.contains(it)).count(), 3);
    }
}
