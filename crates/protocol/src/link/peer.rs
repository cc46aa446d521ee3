//! One neighbour: which session is in use, and what to do next.
//!
//! A [`Peer`] is owned by one thread (the relay's control plane, an endpoint's driver) and
//! told what happened; it answers with [`Action`]s. Workers never see it: they hold what
//! [`Action::Install`] and [`Action::Use`] gave them.
//!
//! # Sessions
//!
//! As in WireGuard, a neighbour has at most three:
//!
//! - `current`: what we send under;
//! - `previous`: the one before, kept to receive what is still under way;
//! - `next`: one that the neighbour initiated and that we have answered, not used before
//!   something arrives under it, since only then is it sure that the neighbour has the keys.
//!   A replayed initiation that gets this far disturbs nothing.
//!
//! If both initiate at the same time, both sessions come to be and both can be received
//! under; when the second is confirmed, both sides take the one whose initiator has the
//! smaller public key as current and keep the other as previous.
//!
//! # Effort
//!
//! A responder under load serves those first who have made an effort ([`super::MAX_EFFORT`] at most).
//! [`Peer::initiate`] then begins to solve a puzzle instead of returning an initiation, and the owner calls
//! [`Peer::solve`] now and then, for as much as it can spare at a time, until there is one.
//!
//! # Bounds
//!
//! Three sessions, one handshake in flight and one that is solved for, a few cookies, and the actions not yet polled for, of
//! which each event makes at most five.

use super::cookie::Cookie;
use super::cookie_jar::CookieJar;
use super::effort::MIN_EFFORT;
use super::handshake::{Draft, Established, Initiator, Timestamp};
use super::timers::{
    ACCEPT_INTERVAL, CROSSING, HANDSHAKE_GIVE_UP, HANDSHAKE_JITTER, HANDSHAKE_RETRY, REJECT_AFTER,
    REKEY_AFTER, REKEY_AFTER_AS_RESPONDER,
};
use super::traffic::Traffic;
use super::transport::{CellKind, OpenKey, REKEY_AFTER_DATAGRAMS, SealKey};
use crate::effort::{NONCE, Search, Solution};
use crate::identity::{X25519Public, X25519Secret};
use crate::size::Datagram;
use crate::{Error, Result};
use rand_core::CryptoRng;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When this side makes handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upkeep {
    /// There is to be a session all the time: a client and its guards.
    Always,
    /// There is to be one while something is sent: a relay and another.
    OnDemand,
    /// Never: a relay and a client, which has no address to initiate to.
    Never,
}

/// What the owner of a [`Peer`] has to do.
pub enum Action {
    /// Choose a free index, call [`Peer::initiate`] and send what it returns.
    Initiate,
    /// Receive under this key, by its local index, with a fresh window.
    Install(Arc<OpenKey>),
    /// Send under this key from now on.
    Use(Arc<SealKey>),
    /// There is no key to send under any more.
    Silence,
    /// This index, of a session or of a handshake in flight, is free again.
    Remove(u32),
    /// Seal a cover datagram under the key in use and send it.
    KeepAlive,
    /// Seal a [`super::control::Control::Ping`] under the key in use and send it.
    Ping,
    /// [`HANDSHAKE_GIVE_UP`] has passed without an answer. What waits for this neighbour can
    /// be dropped. With [`Upkeep::Always`] it goes on trying all the same.
    Unreachable,
}

/// One session as its owner sees it.
struct Session {
    local_index: u32,
    seal: Arc<SealKey>,
    since: Instant,
    initiated: bool,
}

/// Initiations until one is answered.
struct Attempt {
    began: Instant,
    /// When the next initiation is due.
    due: Instant,
    /// `Action::Initiate` was returned and `initiate` has not been called yet.
    asked: bool,
    /// The next initiation, for which effort is made.
    draft: Option<Effortful>,
    flight: Option<Flight>,
    /// A cookie has brought one initiation forward already.
    hurried: bool,
    /// Where that one is to go, until it is made.
    hurried_to: Option<SocketAddr>,
    /// A cookie was used once without the effort that came with it.
    tried_without: bool,
}

struct Flight {
    initiator: Initiator,
    /// Where it was sent.
    to: SocketAddr,
    /// What it carries.
    cookie: Option<Cookie>,
}

struct Effortful {
    draft: Draft,
    to: SocketAddr,
    cookie: Cookie,
    search: Search,
}

impl Attempt {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            due: now,
            asked: false,
            draft: None,
            flight: None,
            hurried: false,
            hurried_to: None,
            tried_without: false,
        }
    }
}

/// One neighbour's state.
pub struct Peer {
    local: X25519Public,
    remote: X25519Public,
    upkeep: Upkeep,
    current: Option<Session>,
    previous: Option<Session>,
    next: Option<Session>,
    attempt: Option<Attempt>,
    /// Something is to be sent and there was no session.
    wanted: bool,
    /// No attempt begins before this.
    not_before: Instant,
    /// From one initiation to the next.
    pause: Duration,
    cookies: CookieJar,
    /// Of our last initiation.
    own_timestamp: Option<Timestamp>,
    /// Of the neighbour's last initiation.
    their_timestamp: Option<Timestamp>,
    accepted: Option<Instant>,
    traffic: Traffic,
    actions: VecDeque<Action>,
}

impl Peer {
    /// A neighbour without a session. `local` is our own public key.
    #[must_use]
    pub fn new(local: X25519Public, remote: X25519Public, upkeep: Upkeep, now: Instant) -> Self {
        Self {
            local,
            remote,
            upkeep,
            current: None,
            previous: None,
            next: None,
            attempt: None,
            wanted: false,
            not_before: now,
            pause: HANDSHAKE_RETRY,
            cookies: CookieJar::default(),
            own_timestamp: None,
            their_timestamp: None,
            accepted: None,
            traffic: Traffic::new(now),
            actions: VecDeque::new(),
        }
    }

    /// The same neighbour without a session, for an owner that begins anew and has kept what it
    /// was told to install. What was said to the neighbour is remembered: the next initiation is
    /// newer than the last, wherever the wall clock has gone meanwhile.
    #[must_use]
    pub fn afresh(&self, now: Instant) -> Self {
        Self {
            cookies: self.cookies.clone(),
            own_timestamp: self.own_timestamp,
            their_timestamp: self.their_timestamp,
            ..Self::new(self.local, self.remote, self.upkeep, now)
        }
    }

    /// The neighbour's static key.
    #[must_use]
    pub fn remote(&self) -> X25519Public {
        self.remote
    }

    /// The key to send under.
    #[must_use]
    pub fn seal_key(&self) -> Option<&Arc<SealKey>> {
        self.current.as_ref().map(|session| &session.seal)
    }

    /// Whether there is a key to send under.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.current.is_some()
    }

    /// How old the session in use is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.current
            .as_ref()
            .map(|session| now.saturating_duration_since(session.since))
    }

    /// Whether there is neither a session nor a handshake: the owner may drop the peer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
            && self.previous.is_none()
            && self.next.is_none()
            && self.attempt.is_none()
            && self.actions.is_empty()
    }

    /// Makes another choice about handshakes, for example when a relay that was only a neighbour
    /// becomes a next hop.
    pub fn set_upkeep(&mut self, upkeep: Upkeep) {
        self.upkeep = upkeep;
        if upkeep == Upkeep::Never {
            self.end_attempt();
        }
    }

    /// Something is to be sent. Begins a handshake if there is no session.
    pub fn want(&mut self) {
        self.wanted = self.current.is_none() && self.upkeep != Upkeep::Never;
    }

    /// The next thing to do; called until it returns `None`, after each event and
    /// at least every [`super::POLL_EVERY`].
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            self.expire(now);
            self.keep_alive(now);
            self.handshake(now);
        }
        self.actions.pop_front()
    }

    /// Where the next initiation had better go, if a cookie from there has brought it forward: to another address
    /// of the neighbour it would be of no use. That is once in each handshake, so who forges cookies keeps nobody from
    /// the other addresses.
    #[must_use]
    pub fn hurried_to(&self) -> Option<SocketAddr> {
        self.attempt.as_ref()?.hurried_to
    }

    /// Makes an initiation that is to be sent to this address, as [`Action::Initiate`] asks; none
    /// if effort has to be made for it first ([`Self::solve`]). `at` is the wall clock; if it has not grown
    /// since the last initiation, the least larger time is used. The index of the initiation that this one
    /// replaces is given back by [`Action::Remove`].
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the neighbour's key is bad. `index` is then free.
    pub fn initiate(
        &mut self,
        local: &X25519Secret,
        index: u32,
        to: SocketAddr,
        at: Timestamp,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Option<Box<Datagram>>> {
        let at = self.own_timestamp.map_or(at, |last| at.max(last.next()));
        let cookie = self.cookies.take(to, now, rng);
        let made = Draft::new(local, &self.remote, index, at, rng);

        let mut random = [0; 4];
        rng.fill_bytes(&mut random);
        let fraction = f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX);
        self.pause = HANDSHAKE_RETRY + HANDSHAKE_JITTER.mul_f64(fraction);
        let attempt = self.attempt.get_or_insert(Attempt::new(now));
        attempt.due = now + self.pause;
        attempt.asked = false;
        attempt.hurried_to = None;
        let draft = made?;
        self.own_timestamp = Some(at);
        // A responder knows its neighbours and other relays, and may serve them without. What a cookie says of
        // effort may be anybody's word, too.
        let may_be_known = self.current.is_some() || self.upkeep == Upkeep::OnDemand;
        let effortful = cookie.as_ref().filter(|it| it.effort() >= MIN_EFFORT);
        let tries_without = effortful.is_some() && may_be_known && !attempt.tried_without;
        attempt.tried_without |= tries_without;
        if let Some(cookie) = effortful.filter(|_| !tries_without) {
            let mut nonce = [0; NONCE];
            rng.fill_bytes(&mut nonce);
            let search = draft.puzzle(cookie).search(cookie.effort(), nonce);
            let effortful = Effortful {
                draft,
                to,
                cookie: cookie.clone(),
                search,
            };
            if let Some(old) = attempt.draft.replace(effortful) {
                self.actions.push_back(Action::Remove(old.draft.index()));
            }
            return Ok(None);
        }
        let (initiator, datagram) = draft.finish(cookie.as_ref(), &Solution::default());
        self.fly(Flight {
            initiator,
            to,
            cookie,
        });
        Ok(Some(datagram))
    }

    /// Whether effort is to be made for an initiation.
    #[must_use]
    pub fn is_solving(&self) -> bool {
        self.attempt.as_ref().is_some_and(|it| it.draft.is_some())
    }

    /// Goes on with the effort for an initiation, by so many hashes at most. Returns the initiation
    /// when that is done, and where it is to be sent.
    pub fn solve(&mut self, hashes: u32, now: Instant) -> Option<(Box<Datagram>, SocketAddr)> {
        let attempt = self.attempt.as_mut()?;
        let solution = attempt.draft.as_mut()?.search.go_on(hashes)?;
        let Effortful {
            draft, to, cookie, ..
        } = attempt.draft.take()?;
        attempt.due = now + self.pause;
        let (initiator, datagram) = draft.finish(Some(&cookie), &solution);
        self.fly(Flight {
            initiator,
            to,
            cookie: Some(cookie),
        });
        Some((datagram, to))
    }

    /// An initiation is on its way, in place of the one before.
    fn fly(&mut self, flight: Flight) {
        let attempt = self.attempt.as_mut();
        if let Some(old) = attempt.and_then(|attempt| attempt.flight.replace(flight)) {
            self.actions
                .push_back(Action::Remove(old.initiator.index()));
        }
    }

    /// The initiation that [`Action::Initiate`] has asked for cannot be made now. It is asked for again
    /// after [`HANDSHAKE_RETRY`].
    pub fn postpone(&mut self, now: Instant) {
        if let Some(attempt) = &mut self.attempt {
            attempt.due = now + HANDSHAKE_RETRY;
            attempt.asked = false;
        }
    }

    /// A response whose receiver index is that of the handshake in flight. Returns where the initiation was
    /// sent that it answers: the neighbour has received there, wherever the response came from.
    ///
    /// # Errors
    /// Those of [`Initiator::finish`], and [`Error::Malformed`] if no handshake is in flight;
    /// nothing changes.
    pub fn response(&mut self, datagram: &Datagram, now: Instant) -> Result<SocketAddr> {
        let flight = self
            .attempt
            .as_mut()
            .and_then(|attempt| attempt.flight.as_mut());
        let flight = flight.ok_or(Error::Malformed {
            what: "link response",
        })?;
        let established = flight.initiator.finish(datagram)?;
        let to = flight.to;
        if let Some(cookie) = &flight.cookie {
            self.cookies.proved(cookie);
        }
        if let Some(unsent) = self.attempt.take().and_then(|attempt| attempt.draft) {
            self.actions.push_back(Action::Remove(unsent.draft.index()));
        }
        let session = self.install(established, now);
        self.promote(session, now);
        // The neighbour does not use the session before it has received something.
        self.actions.push_back(Action::KeepAlive);
        Ok(to)
    }

    /// A cookie whose receiver index is that of the handshake in flight. Whoever sees the initiation can
    /// make one, so a few are kept, and initiations carry them in turn. The first cookie of a handshake
    /// brings the next initiation forward to now.
    ///
    /// # Errors
    /// Those of [`Initiator::open_cookie`], and [`Error::Malformed`] if no handshake is in
    /// flight; nothing changes.
    pub fn cookie(&mut self, datagram: &Datagram, now: Instant) -> Result<()> {
        let what = Error::Malformed {
            what: "link cookie",
        };
        let attempt = self.attempt.as_mut().ok_or(what.clone())?;
        let flight = attempt.flight.as_mut().ok_or(what)?;
        let cookie = flight.initiator.open_cookie(datagram)?;
        self.cookies.add(cookie, flight.to, now);
        if !attempt.hurried && flight.cookie.is_none() {
            attempt.hurried = true;
            attempt.hurried_to = Some(flight.to);
            attempt.due = now;
        }
        Ok(())
    }

    /// Whether an initiation of the neighbour with this time is newer than all that were accepted.
    #[must_use]
    pub fn is_new(&self, timestamp: Timestamp) -> bool {
        self.their_timestamp.is_none_or(|last| timestamp > last)
    }

    /// A [`super::Responder`] has answered the neighbour's initiation. The owner polls, and so
    /// installs the key, before it sends the response.
    ///
    /// # Errors
    /// [`Error::Replay`] if the initiation is not newer than the last, [`Error::Limit`] if it
    /// is less than [`ACCEPT_INTERVAL`] after it, [`Error::Malformed`] if it is somebody
    /// else's. Nothing changes; the response is not sent, and the index is free.
    pub fn accept(&mut self, established: Established, now: Instant) -> Result<()> {
        if established.remote != self.remote || established.initiated {
            return Err(Error::Malformed {
                what: "link initiation",
            });
        }
        if !self.is_new(established.timestamp) {
            return Err(Error::Replay);
        }
        if self
            .accepted
            .is_some_and(|last| now < last + ACCEPT_INTERVAL)
        {
            return Err(Error::Limit {
                what: "link initiations",
            });
        }
        self.their_timestamp = Some(established.timestamp);
        self.accepted = Some(now);
        let session = self.install(established, now);
        let old = self.next.replace(session);
        self.remove(old);
        Ok(())
    }

    /// Something has authenticated under the session `local_index`. The owner tells at once of
    /// the first under that session, and of the rest about once a second; `kind` is other than
    /// cover if anything else was among them.
    pub fn heard(&mut self, local_index: u32, kind: CellKind, now: Instant) {
        let is = |session: &Option<Session>| {
            session
                .as_ref()
                .is_some_and(|session| session.local_index == local_index)
        };
        if is(&self.next) {
            if let Some(session) = self.next.take() {
                self.confirm(session, now);
            }
        } else if !is(&self.current) && !is(&self.previous) {
            return;
        }
        if let Some(current) = &self.current {
            self.traffic.observe(&current.seal, now);
        }
        self.traffic.heard(kind, now);
    }

    /// Ends all sessions and the handshake: the neighbour has said `Close` under one of them,
    /// or we have. A link that is kept up is tried again after [`HANDSHAKE_RETRY`].
    pub fn close(&mut self, now: Instant) {
        self.end_attempt();
        self.wanted = false;
        if self.current.is_some() {
            self.actions.push_back(Action::Silence);
        }
        for session in [self.current.take(), self.previous.take(), self.next.take()] {
            self.remove(session);
        }
        self.not_before = now + HANDSHAKE_RETRY;
    }

    /// A session that can be received under from now on.
    fn install(&mut self, established: Established, now: Instant) -> Session {
        let Established {
            local_index,
            seal,
            open,
            initiated,
            ..
        } = established;
        self.actions.push_back(Action::Install(Arc::new(open)));
        Session {
            local_index,
            seal: Arc::new(seal),
            since: now,
            initiated,
        }
    }

    /// A session that the neighbour initiated has been used by it.
    fn confirm(&mut self, session: Session, now: Instant) {
        let crossing = self.current.as_ref().is_some_and(|current| {
            let (a, b) = (current.since, session.since);
            current.initiated && a.max(b).saturating_duration_since(a.min(b)) < CROSSING
        });
        self.end_attempt();
        if crossing && self.local.0 < self.remote.0 {
            let old = self.previous.replace(session);
            self.remove(old);
        } else {
            self.promote(session, now);
        }
    }

    fn promote(&mut self, session: Session, now: Instant) {
        self.actions
            .push_back(Action::Use(Arc::clone(&session.seal)));
        let old = std::mem::replace(&mut self.previous, self.current.replace(session));
        self.remove(old);
        self.traffic = Traffic::new(now);
        self.wanted = false;
    }

    fn remove(&mut self, session: Option<Session>) {
        if let Some(session) = session {
            self.actions.push_back(Action::Remove(session.local_index));
        }
    }

    fn end_attempt(&mut self) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let flight = attempt.flight.map(|flight| flight.initiator.index());
        let draft = attempt.draft.map(|effortful| effortful.draft.index());
        let indices = flight.into_iter().chain(draft);
        self.actions.extend(indices.map(Action::Remove));
    }

    fn expire(&mut self, now: Instant) {
        let old = |session: &mut Session| {
            now.saturating_duration_since(session.since) >= REJECT_AFTER
                || session.seal.sent() >= super::MAX_COUNTER
        };
        let current = self.current.take_if(old);
        if current.is_some() {
            self.actions.push_back(Action::Silence);
        }
        for session in [current, self.previous.take_if(old), self.next.take_if(old)] {
            self.remove(session);
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        self.traffic.observe(&current.seal, now);
        if self.upkeep == Upkeep::Always && self.traffic.take_ping(now) {
            self.actions.push_back(Action::Ping);
        } else if self.traffic.take_keepalive(now) {
            self.actions.push_back(Action::KeepAlive);
        }
    }

    fn handshake(&mut self, now: Instant) {
        if self.upkeep == Upkeep::Never {
            return;
        }
        match &mut self.attempt {
            Some(attempt) if now.saturating_duration_since(attempt.began) >= HANDSHAKE_GIVE_UP => {
                self.end_attempt();
                self.wanted = false;
                self.traffic.forgive_silence();
                self.not_before = now + HANDSHAKE_RETRY;
                self.actions.push_back(Action::Unreachable);
            }
            Some(attempt) => {
                if now >= attempt.due && !attempt.asked && attempt.draft.is_none() {
                    attempt.asked = true;
                    self.actions.push_back(Action::Initiate);
                }
            }
            None => {
                if now >= self.not_before && self.is_session_due(now) {
                    self.attempt = Some(Attempt {
                        asked: true,
                        ..Attempt::new(now)
                    });
                    self.actions.push_back(Action::Initiate);
                }
            }
        }
    }

    /// Whether a handshake is to begin.
    fn is_session_due(&self, now: Instant) -> bool {
        let always = self.upkeep == Upkeep::Always;
        let Some(current) = &self.current else {
            return self.wanted || always;
        };
        let rekey = if current.initiated {
            REKEY_AFTER
        } else {
            REKEY_AFTER_AS_RESPONDER
        };
        let due = current.since + rekey;
        (now >= due && (always || self.traffic.is_used_since(due)))
            || current.seal.sent() >= REKEY_AFTER_DATAGRAMS
            || self.traffic.is_silent(now)
    }
}
