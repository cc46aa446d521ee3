//! Measuring the paths to a peer, for a person who asks.
//!
//! Each round sends one probe over each path of the session. They have the numbers of the
//! session's own probes, so the peer cannot tell them apart, but what becomes of them says nothing
//! about which path lives: that is the business of `liveness.rs`.

use std::time::{Duration, Instant};

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::ServiceDescriptor;
use mixline_protocol::session::Control;

use super::Engine;
use crate::clock::Now;
use crate::command::{Answer, MAX_MEASUREMENTS, MAX_PINGS, PING_INTERVAL, RequestNumber};
use crate::directory::pending::Asker;
use crate::directory::pseudonyms::Pseudonym;
use crate::error::QueryError;
use crate::keys::SessionKey;
use crate::session::Phase;
use crate::session::lanes::Route;
use crate::session::transmit::{Load, Sender};
use crate::status::{PathPing, PingReport, RoundTrip, milliseconds};

/// Paths that one of them tells apart.
const MAX_PATHS: usize = 32;
/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first round waits for all paths of a new session.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a session may take to come to be, a question to the directory included.
const OPENING: Duration = Duration::from_secs(15);
/// The longest time between two rounds.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// One path that is measured.
struct Measured {
    /// Its number in the session.
    path: u32,
    head: Vec<String>,
    tail: String,
    /// The probes, and what became of them.
    probes: Vec<(u32, Instant, Option<Duration>)>,
}

/// One measurement.
pub struct Measurement {
    pub(super) number: RequestNumber,
    id: AnonymousId,
    /// The session that the probes went over.
    key: Option<SessionKey>,
    /// Rounds that are still to be sent.
    left: u32,
    interval: Duration,
    began: Instant,
    /// Whether there was no session.
    opened: bool,
    opened_after: Option<Duration>,
    next: Instant,
    paths: Vec<Measured>,
}

impl Engine {
    /// Begins a measurement.
    pub(super) fn begin_ping(
        &mut self,
        number: RequestNumber,
        id: AnonymousId,
        count: u32,
        interval: Duration,
        now: Now,
    ) {
        if self.measurements.len() >= MAX_MEASUREMENTS {
            return self.reply(number, Err(QueryError::Busy));
        }
        if id == self.pseudonyms.get(Pseudonym::Own).id {
            let why = "that is this endpoint's own ID: no path leads there".to_owned();
            return self.reply(number, Err(QueryError::Refused(why)));
        }
        let known = self.by_peer.contains_key(&(Pseudonym::Own, id));
        self.measurements.push(Measurement {
            number,
            id,
            key: None,
            left: count.clamp(1, MAX_PINGS),
            interval: interval.clamp(PING_INTERVAL, LONGEST_INTERVAL),
            began: now.instant,
            opened: !known,
            opened_after: None,
            next: now.instant,
            paths: Vec::new(),
        });
        self.needs_maintenance = true;
        if known {
            return;
        }
        match self.descriptors.get(&id, now).cloned() {
            Some(descriptor) => self.open_for_ping(&descriptor, number, now),
            None => {
                let body = self
                    .authorisations
                    .lookup(id, self.said(Pseudonym::Asking, now).unix());
                self.ask_directory(body, Asker::Ping(id, number), now);
            }
        }
    }

    /// The directory has said where the peer is.
    pub(super) fn open_for_ping(
        &mut self,
        descriptor: &ServiceDescriptor,
        number: RequestNumber,
        now: Now,
    ) {
        if self.open(Pseudonym::Own, descriptor, false, now).is_none() {
            let why = "the peer offers no tail that is still good".to_owned();
            self.fail_ping(number, QueryError::Refused(why));
        }
    }

    /// A measurement that cannot be made.
    pub(super) fn fail_ping(&mut self, number: RequestNumber, error: QueryError) {
        if let Some(at) = self.measurements.iter().position(|p| p.number == number) {
            self.measurements.swap_remove(at);
            self.reply(number, Err(error));
        }
    }

    /// Whether the clock has to be looked at often.
    pub(super) fn is_measuring(&self) -> bool {
        !self.measurements.is_empty()
    }

    /// Sends the rounds that are due, and answers what is over.
    pub(super) fn drive_pings(&mut self, now: Now) {
        let mut measurements = std::mem::take(&mut self.measurements);
        measurements.retain_mut(|ping| match self.step(ping, now) {
            None => true,
            Some(outcome) => {
                let answer = outcome.map(|report| Answer::Ping(Box::new(report)));
                self.answers_ready.push_back((ping.number, answer));
                false
            }
        });
        self.measurements = measurements;
    }

    /// What becomes of a measurement; `None` while it goes on.
    fn step(&mut self, ping: &mut Measurement, now: Now) -> Option<Result<PingReport, QueryError>> {
        let since = |at: Instant| now.instant.saturating_duration_since(at);
        let key = self.by_peer.get(&(Pseudonym::Own, ping.id)).copied();
        let established = key.filter(|key| {
            let session = self.sessions.get(*key);
            session.is_some_and(|session| session.phase == Phase::Established)
        });
        let Some(key) = established else {
            // Gone: what was measured is told. Not there yet: it may come.
            if ping.key.is_some() {
                return Some(Ok(self.ping_report(ping)));
            }
            let asked = self.queries.is_finding(ping.number);
            let over = since(ping.began) >= OPENING || (key.is_none() && !asked);
            return over.then(|| Err(QueryError::Timeout("the peer does not answer".into())));
        };
        if ping.key.replace(key).is_none() {
            ping.opened_after = ping.opened.then(|| since(ping.began));
            ping.next = now.instant;
            if let Some(session) = self.sessions.get_mut(key) {
                session.carries_packets = true;
            }
        }
        if now.instant < ping.next {
            return None;
        }
        if ping.left == 0 {
            return Some(Ok(self.ping_report(ping)));
        }
        let session = self.sessions.get_mut(key)?;
        session.used = now.instant;
        let settled = session.paths.good(now.instant) >= super::liveness::PATHS
            || since(session.since) >= SETTLE;
        if ping.paths.is_empty() && !settled {
            return None;
        }
        self.ping_round(ping, key, now);
        ping.left -= 1;
        let wait = if ping.left == 0 {
            PATIENCE
        } else {
            ping.interval
        };
        ping.next = now.instant + wait;
        None
    }

    fn ping_round(&mut self, ping: &mut Measurement, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let paths: Vec<_> = session
            .paths
            .iter()
            .map(|path| (path.id, path.relays.clone(), path.tail_first))
            .collect();
        for (id, relays, tail) in paths {
            let at = match ping.paths.iter().position(|path| path.path == id) {
                Some(at) => at,
                None if ping.paths.len() >= MAX_PATHS => continue,
                None => {
                    ping.paths.push(Measured {
                        path: id,
                        head: relays.iter().map(|relay| self.relay_name(relay)).collect(),
                        tail: self.relay_name(&tail),
                        probes: Vec::new(),
                    });
                    ping.paths.len() - 1
                }
            };
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            let probe = session.paths.next_probe();
            let mut sender = Sender {
                links: &self.links,
                outbox: &mut self.outbox,
                counters: &mut self.counters,
                now: now.instant,
            };
            if let Ok(body) = (Control::Probe { id: probe }).encode()
                && session.pack(Load::Control(&body), Route::Path(id), &mut sender)
            {
                ping.paths[at].probes.push((probe, now.instant, None));
            }
        }
        self.wake(key);
    }

    /// A probe of a session was answered: perhaps one of ours.
    pub(super) fn ping_answered(&mut self, key: SessionKey, probe: u32, now: Now) {
        for ping in self.measurements.iter_mut().filter(|p| p.key == Some(key)) {
            let probes = ping.paths.iter_mut().flat_map(|path| &mut path.probes);
            for (_, sent, trip) in probes.filter(|(id, ..)| *id == probe) {
                trip.get_or_insert(now.instant.saturating_duration_since(*sent));
            }
            let answered = |path: &Measured| path.probes.iter().all(|(.., trip)| trip.is_some());
            if ping.left == 0 && ping.paths.iter().all(answered) {
                ping.next = now.instant;
                self.needs_maintenance = true;
            }
        }
    }

    fn ping_report(&self, ping: &Measurement) -> PingReport {
        let session = ping.key.and_then(|key| self.sessions.get(key));
        let one = |path: &Measured| {
            let trips = || path.probes.iter().filter_map(|(.., trip)| *trip);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            PathPing {
                head: path.head.clone(),
                tail: path.tail.clone(),
                sent: count(path.probes.len()),
                answered: count(trips().count()),
                rtt_ms: RoundTrip::of(trips()),
                replies: path
                    .probes
                    .iter()
                    .map(|(.., trip)| trip.map(milliseconds))
                    .collect(),
            }
        };
        PingReport {
            peer: ping.id.to_string(),
            ipv4: session
                .and_then(|session| session.ipv4)
                .map(|(ip, _)| ip.to_string()),
            ipv6: mixline_protocol::address::ipv6(&ping.id).to_string(),
            opened: ping.opened,
            opened_ms: ping.opened_after.map(milliseconds),
            paths: ping.paths.iter().map(one).collect(),
        }
    }
}
