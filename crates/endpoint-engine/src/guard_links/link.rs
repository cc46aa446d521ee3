//! The link to one guard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::identity::{RelayId, ShortId, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::{Peer, Upkeep};
use mixline_protocol::link::{CellKind, OpenKey, REJECT_AFTER, SealKey, Window};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::size::{CELL, CELL_OFFSET, Cell, Datagram};
use rand_core::CryptoRng;

use crate::clock::Now;
use crate::guard_links::findings::PathFinding;
use crate::outbox::Outbox;
use crate::relays::network::Relay;

/// A guard that has been silent for this long is pinged ...
pub const PING_AFTER: Duration = Duration::from_millis(1500);
/// ... so often ...
pub const PING_EVERY: Duration = Duration::from_millis(500);
/// ... and counts as dead after this long, if `PINGS` of them are unanswered.
pub const DEAD_AFTER: Duration = Duration::from_millis(3200);
/// A program that was stopped for a while must not take the guards for dead.
const PINGS: u32 = 3;
/// With so many unanswered, a handshake is tried: a guard that has been killed and has started again knows
/// nothing of the session, and says nothing to it.
const PINGS_BEFORE_HANDSHAKE: u32 = 1;
/// A guard that was heard so lately needs no other session, whatever the snapshot says of it.
const HEARD_LATELY: Duration = Duration::from_millis(500);
/// After a sleep or a move, a handshake without an answer is repeated after this ...
const AGAIN: Duration = Duration::from_millis(700);
/// ... so often, and then as always.
const TRIES: u32 = 4;
/// Sessions of one link: three of its peer, and old ones that may yet come back.
pub(crate) const MAX_SESSIONS: usize = 5;

/// Something that tails and paths want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The link works. Mailboxes have to be registered anew if `fresh`.
    Up {
        /// To which guard.
        guard: ShortId,
        /// Whether the session is a new one.
        fresh: bool,
    },
    /// The guard is dead or gone.
    Down(ShortId),
    /// The guard's answer to a registration.
    Registered {
        /// Which guard.
        guard: ShortId,
        /// Which registration.
        request: u32,
        /// The tokens that it did not take.
        refused: Vec<MailboxToken>,
    },
}

/// A link that is begun anew.
pub(crate) struct Anew {
    since: Instant,
    /// Handshakes that were repeated.
    tries: u32,
}

pub(crate) struct LinkSession {
    pub(super) index: u32,
    pub(super) open: Arc<OpenKey>,
    pub(super) window: Window,
    pub(super) since: Instant,
    pub(super) told: Option<Instant>,
}

/// The link to one guard.
pub(crate) struct GuardLink {
    pub(super) relay: ShortId,
    pub(super) id: RelayId,
    pub(super) secret: X25519Secret,
    pub(super) peer: Peer,
    pub(super) sessions: ArrayVec<LinkSession, MAX_SESSIONS>,
    pub(super) seal: Option<(Arc<SealKey>, Instant)>,
    pub(super) handshake: Option<u32>,
    /// The index of the handshake that effort is made for.
    pub(super) draft: Option<u32>,
    /// When some of that was last made.
    pub(super) solved: Option<Instant>,
    pub(super) addresses: ArrayVec<SocketAddr, 4>,
    pub(super) at: usize,
    pub(super) attempts: usize,
    pub(super) alive: bool,
    pub(super) heard: Instant,
    pub(super) pinged: Instant,
    /// Pings since anything was heard.
    pub(super) pings: u32,
    /// The number of the last ping.
    pub(super) ping: u64,
    pub(super) rtt: Option<Duration>,
    /// Since when it does not work.
    pub(super) down: Option<Instant>,
    pub(super) finding: Option<PathFinding>,
    pub(super) anew: Option<Anew>,
    pub(super) leaving: Option<Instant>,
    pub(super) last_error: Option<String>,
}

impl GuardLink {
    pub(crate) fn new(
        relay: &Relay,
        addresses: ArrayVec<SocketAddr, 4>,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let secret = X25519Secret::generate(rng);
        Self {
            relay: relay.short,
            id: relay.id,
            peer: Peer::new(secret.public(), relay.link, Upkeep::Always, now),
            secret,
            sessions: ArrayVec::new(),
            seal: None,
            handshake: None,
            draft: None,
            solved: None,
            addresses,
            at: 0,
            attempts: 0,
            alive: false,
            heard: now,
            pinged: now,
            pings: 0,
            ping: 0,
            rtt: None,
            down: None,
            finding: None,
            anew: None,
            leaving: None,
            last_error: None,
        }
    }

    pub(crate) fn initiate(
        &mut self,
        index: u32,
        now: Now,
        outbox: &mut Outbox,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        // A cookie is good where it is from.
        let here = self.addresses.get(self.at).copied();
        let again = here.is_some() && here == self.peer.hurried_to();
        if self.attempts > 0 && !self.addresses.is_empty() && !again {
            self.at = (self.at + 1) % self.addresses.len();
            self.last_error
                .get_or_insert_with(|| "no answer to the last handshake".into());
        }
        self.attempts += 1;
        let Some(to) = self.addresses.get(self.at).copied() else {
            self.last_error = Some("it has no address of a kind that this machine has".into());
            return;
        };
        match self
            .peer
            .initiate(&self.secret, index, to, now.timestamp(), now.instant, rng)
        {
            Ok(Some(datagram)) => {
                self.handshake = Some(index);
                if let Some(slot) = outbox.push(to) {
                    *slot = *datagram;
                }
            }
            Ok(None) => self.draft = Some(index),
            Err(error) => self.last_error = Some(format!("handshake: {error}")),
        }
    }

    /// Makes some of the effort that the guard asks for, if it does.
    pub(crate) fn solve(&mut self, hashes: u32, now: Instant, outbox: &mut Outbox) {
        let Some((datagram, to)) = self.peer.solve(hashes, now) else {
            return;
        };
        self.handshake = self.draft.take();
        if let Some(slot) = outbox.push(to) {
            *slot = *datagram;
        }
    }

    /// Pings when it is silent; says when it is dead.
    pub(crate) fn watch(&mut self, now: Instant, outbox: &mut Outbox, events: &mut Vec<LinkEvent>) {
        if self.alive {
            self.down = None;
        } else {
            self.down.get_or_insert(now);
        }
        self.try_again(now);
        if self.seal.is_none() {
            return;
        }
        let silent = now.saturating_duration_since(self.heard);
        let ping_due = self.pings == 0 || now.saturating_duration_since(self.pinged) >= PING_EVERY;
        if silent >= PING_AFTER && ping_due {
            if self.alive && self.pings == PINGS_BEFORE_HANDSHAKE {
                self.renew_peer(now);
            }
            self.ping(now, outbox);
        }
        if self.alive && silent >= DEAD_AFTER && self.pings > PINGS {
            self.alive = false;
            self.last_error = Some("the relay does not answer".into());
            events.push(LinkEvent::Down(self.relay));
            self.renew_peer(now);
        }
    }

    /// Begins handshakes at once, and keeps the old sessions for as long as they are good.
    pub(crate) fn renew_peer(&mut self, now: Instant) {
        self.peer = self.peer.afresh(now);
        (self.handshake, self.draft) = (None, None);
        self.attempts = 0;
    }

    /// The guard has lost its onion keys, and with them its sessions.
    pub(crate) fn has_started_anew(&mut self, now: Instant) {
        if now.saturating_duration_since(self.heard) >= HEARD_LATELY {
            self.begin_anew(now);
        }
    }

    /// The host has slept or moved: begins handshakes at once, and not only every five seconds.
    pub(crate) fn begin_anew(&mut self, now: Instant) {
        self.renew_peer(now);
        self.anew = Some(Anew {
            since: now,
            tries: 0,
        });
    }

    /// Tries again soon, while it is not known whether the guard can be reached as before.
    fn try_again(&mut self, now: Instant) {
        let Some(anew) = &mut self.anew else { return };
        let waits = now.saturating_duration_since(anew.since) < AGAIN * (anew.tries + 1);
        // Effort that is under way is for the initiation to come.
        if waits || self.peer.is_solving() {
            return;
        }
        anew.tries += 1;
        if anew.tries >= TRIES {
            self.anew = None;
        }
        let attempts = self.attempts;
        self.renew_peer(now);
        // The next address comes next.
        self.attempts = attempts;
    }

    pub(crate) fn silence(&mut self, events: &mut Vec<LinkEvent>) {
        self.seal = None;
        if std::mem::take(&mut self.alive) {
            events.push(LinkEvent::Down(self.relay));
        }
    }

    /// Sessions that no peer minds any more end by age.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        let old = |since: Instant| now.saturating_duration_since(since) >= REJECT_AFTER;
        self.sessions.retain(|session| !old(session.since));
        self.seal.take_if(|(_, since)| old(*since));
    }

    pub(crate) fn ping(&mut self, now: Instant, outbox: &mut Outbox) {
        self.pings += 1;
        self.ping += 1;
        self.pinged = now;
        self.send(Some(&Control::Ping(self.ping)), outbox);
    }

    /// Sends a control message, or cover.
    pub(crate) fn send(&self, control: Option<&Control>, outbox: &mut Outbox) {
        if let (Some((seal, _)), Some(to)) = (&self.seal, self.addresses.get(self.at)) {
            seal_control(seal, *to, control, outbox);
        }
    }
}

/// The cell within a datagram.
pub(crate) fn cell_mut(datagram: &mut Datagram) -> Option<&mut Cell> {
    datagram
        .get_mut(CELL_OFFSET..CELL_OFFSET + CELL)?
        .try_into()
        .ok()
}

pub(crate) fn seal_control(
    seal: &SealKey,
    to: SocketAddr,
    control: Option<&Control>,
    outbox: &mut Outbox,
) {
    let Some(datagram) = outbox.push(to) else {
        return;
    };
    let kind = if control.is_some() {
        CellKind::Control
    } else {
        CellKind::Cover
    };
    let written = cell_mut(datagram).is_some_and(|cell| {
        cell.fill(0);
        control.is_none_or(|control| control.encode_into(cell).is_ok())
    });
    if !written || seal.seal(datagram, kind).is_err() {
        outbox.retract();
    }
}
