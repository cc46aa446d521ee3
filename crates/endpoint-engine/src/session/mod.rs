//! A session with one peer: its keys, tails, paths, and what waits to be sent.

pub(crate) mod away;
pub(crate) mod ending;
pub(crate) mod flows;
pub(crate) mod initiation_replay;
pub(crate) mod keys;
pub(crate) mod lanes;
pub(crate) mod paths;
pub(crate) mod transmit;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::address;
use mixline_protocol::effort::{Effort, EffortTerms};
use mixline_protocol::frames::{FragmentIds, Reassembly};
use mixline_protocol::identity::{AnonymousId, X25519Public};
use mixline_protocol::path::TailId;
use mixline_protocol::records::{ServiceDescriptor, TailOffer};
use mixline_protocol::session::{MAX_OFFERS, SessionInitiator};
use mixline_protocol::size::Payload;
use mixline_protocol::time::UnixTime;

use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::effort::searches::SearchNumber;
use crate::engine::liveness::TROUBLE;
use crate::keys::TailKey;
use crate::limits::{
    PEER_ANSWERS_BURST, PEER_ANSWERS_PER_SECOND, PEER_TRIES_BURST, PEER_TRIES_PER_SECOND,
};
use crate::packets::held::Held;
use crate::relays::blame::Blame;
use crate::relays::budget::Partner;
use crate::session::flows::Flows;
use crate::session::keys::KeyRing;
use crate::session::lanes::Lane;
use crate::session::paths::Paths;
use crate::status::Traffic;
use crate::token_bucket::TokenBucket;

/// Initiations of one handshake.
pub const MAX_ATTEMPTS: usize = 10;
/// Handshakes from both sides within this of one another are one: see
/// [`Session::keeps_own_keys`].
pub const CROSSING: Duration = Duration::from_secs(10);
/// A session without packets is in use for so long after the last one.
pub const IN_USE: Duration = Duration::from_secs(4);
/// Probes of a peer that are answered: at once, and in a second.
const ACKS_BURST: u32 = 40;
const ACKS_PER_SECOND: u32 = 40;
/// One initiation.
pub struct Attempt {
    /// What opens its answer.
    pub initiator: SessionInitiator,
    /// When it was made.
    pub at: Instant,
}

/// Handshakes with a peer that answers no probes any more, from the first one on until it does. New keys
/// alone are no answer.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// The first probe that was not answered.
    pub since: Instant,
    /// When the directory was last asked.
    pub refreshed: Option<Instant>,
}

/// Where an initiation can go.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// One of the peer's tails.
    pub offer: TailOffer,
    /// What is to be spent on it, if everybody knows the tail.
    pub terms: Option<EffortTerms>,
}

impl Target {
    /// The tails of a descriptor that are good.
    pub fn of(descriptor: &ServiceDescriptor, now: UnixTime) -> impl Iterator<Item = Self> {
        let terms = Some(descriptor.effort);
        let alive = descriptor.tails.iter().filter(move |it| it.alive(now));
        alive.map(move |offer| Self {
            offer: *offer,
            terms,
        })
    }

    /// A tail that the peer has named to us alone.
    #[must_use]
    pub fn private(offer: TailOffer) -> Self {
        Self { offer, terms: None }
    }

    /// Whether it leads to the peer still.
    #[must_use]
    pub fn is_alive(&self, now: UnixTime) -> bool {
        self.offer.alive(now)
    }

    /// Whether nothing has to be spent on it, whatever is asked for.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.terms.is_none()
    }
}

/// An initiation that was made and waits for its puzzle to be solved, or to be sent.
pub struct Prepared {
    /// What opens its answer.
    pub initiator: SessionInitiator,
    /// Times before its own, for those that are sent before it is solved.
    pub times: Range<u64>,
    /// The initiation.
    pub payload: Box<Payload>,
    /// Where it goes ...
    pub target: Target,
    /// ... and over which guard.
    pub guard: usize,
    /// When it was made.
    pub made: Instant,
    /// The search for a solution; none when it is found, or nothing has to be.
    pub search: Option<SearchNumber>,
}

/// A handshake that this side has begun.
pub struct Opening {
    /// When it began.
    pub since: Instant,
    /// When it is given up.
    pub deadline: Instant,
    /// When the next initiation is due.
    pub next: Instant,
    /// The next one.
    pub prepared: Option<Prepared>,
    /// Those under way.
    pub attempts: ArrayVec<Attempt, MAX_ATTEMPTS>,
    /// How many there have been.
    pub made: usize,
    /// Where they go, in random order.
    pub targets: Vec<Target>,
    /// When the directory was asked for a newer descriptor.
    pub refreshed: Option<Instant>,
    /// The peer of an established session says nothing any more.
    pub recovers: bool,
    /// The peer was unreachable a moment ago: packets are rejected, not held.
    pub background: bool,
}

impl Opening {
    /// Whether all tails of a descriptor are among its targets.
    #[must_use]
    pub fn goes_to_all_of(&self, descriptor: &ServiceDescriptor) -> bool {
        let known = |offer: &TailOffer| self.targets.iter().any(|target| target.offer == *offer);
        descriptor.tails.iter().all(known)
    }

    /// A handshake that begins now.
    #[must_use]
    pub fn new(targets: Vec<Target>, patience: Duration, background: bool, now: Instant) -> Self {
        Self {
            since: now,
            deadline: now + patience,
            next: now,
            prepared: None,
            attempts: ArrayVec::new(),
            made: 0,
            targets,
            refreshed: None,
            recovers: false,
            background,
        }
    }
}

impl Opening {
    /// Whether one of the tails that it goes through is good.
    #[must_use]
    pub fn has_way(&self, now: UnixTime) -> bool {
        self.targets.iter().any(|target| target.is_alive(now))
    }
}

/// This host was away, and the peer may have given the session up: packets wait until it has
/// answered, or until new keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Only an answer to a later probe than this one counts.
    pub after: u32,
    /// When the peer was asked; not before a guard can be reached.
    pub asked: Option<Instant>,
    /// The directory has been asked for its descriptor.
    pub refreshed: bool,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Initiations are under way.
    Opening,
    /// An initiation was answered, and the initiator has not been heard since.
    Unconfirmed,
    /// Both sides have the keys.
    Established,
}

/// A tail of the peer's.
pub struct PeerTail {
    /// The tail.
    pub offer: TailOffer,
    /// Nothing came through it lately; used again from then on.
    pub broken_until: Option<Instant>,
}

impl PeerTail {
    /// The tail's name.
    #[must_use]
    pub fn id(&self) -> TailId {
        self.offer.tail.id()
    }
}

/// A session with one peer.
pub struct Session {
    /// As which of our IDs.
    pub pseudonym: Pseudonym,
    /// With whom.
    pub peer: AnonymousId,
    /// The peer's session key.
    pub remote: X25519Public,
    /// How far it is.
    pub phase: Phase,
    /// Whether this side began it, and so replaces its keys.
    pub initiated: bool,
    /// Whether this side began it, whoever has made the keys since.
    pub begun_here: bool,
    /// The effort that the peer has spent on it, if it has begun it.
    pub effort: Effort,
    /// By how many doublings that was less than what it was asked for.
    pub shortfall: u32,
    /// Which client of the own list the peer is.
    pub client: Option<X25519Public>,
    /// Its keys.
    pub keys: KeyRing,
    /// When the keys in use were made.
    pub keyed: Instant,
    /// They are to be replaced before their time: the certificate has changed.
    pub rekey: bool,
    /// The peer has a list of clients, and has not been shown that we are on it: new keys show that,
    /// whoever has made those in use.
    pub introduce: bool,
    /// The handshake under way.
    pub opening: Option<Opening>,
    /// Our tails that the peer has.
    pub own_tails: ArrayVec<TailKey, MAX_OFFERS>,
    /// Their version, counted from the handshake on.
    pub own_version: u32,
    /// The peer has to be told of them; when it was told last.
    pub own_unacknowledged: Option<Option<Instant>>,
    /// The peer's tails.
    pub peer_tails: ArrayVec<PeerTail, MAX_OFFERS>,
    /// When it last named them.
    pub tails_came: Option<Instant>,
    /// Their version.
    pub peer_version: Option<u32>,
    /// Paths to the peer.
    pub paths: Paths,
    /// When a path was last built.
    pub built: Option<Instant>,
    /// Cells that are being filled.
    pub lanes: Vec<Lane>,
    /// Names fragments.
    pub ids: FragmentIds,
    /// Puts the peer's fragments together.
    pub reassembly: Reassembly,
    /// Flows to the peer.
    pub flows: Flows,
    /// Packets that wait.
    pub held: Held,
    /// Probes of the peer to answer with the next cells.
    pub acks: ArrayVec<u32, 16>,
    /// Bounds them.
    pub ack_bucket: TokenBucket,
    /// Bounds what is tried as a handshake message of the peer's.
    pub tries: TokenBucket,
    /// Bounds the keys that it makes.
    pub answers: TokenBucket,
    /// Control frames to send with the next cells.
    pub controls: Vec<Vec<u8>>,
    /// Relays that heads had better do without.
    pub blame: Blame,
    /// When it was made.
    pub since: Instant,
    /// When the last packet or message went either way.
    pub used: Instant,
    /// Whether any packet ever did: sessions for messages only end sooner.
    pub carries_packets: bool,
    /// When something was last heard.
    pub heard: Instant,
    /// The first probe since then.
    pub waiting: Option<Instant>,
    /// The first probe since the peer has answered one: it may be heard and not hear.
    pub unanswered: Option<Instant>,
    /// What has been done about that.
    pub recovery: Option<Recovery>,
    /// It has been silent for so long that the host's packets to it are rejected.
    pub unreachable: bool,
    /// Whether the peer still knows the session is in question.
    pub doubt: Option<Doubt>,
    /// When own tails were last replaced because nothing came through them.
    pub troubled: Option<Instant>,
    /// When one was last replaced because all shared a relay.
    pub parted: Option<Instant>,
    /// The peer's leased address.
    pub ipv4: Option<(Ipv4Addr, UnixTime)>,
    /// When the last lease that is known of the peer ends, or has ended.
    pub lease_until: Option<UnixTime>,
    /// When its renewal was last asked for.
    pub lease_asked: Option<Instant>,
    /// The peer's derived address.
    pub ipv6: Ipv6Addr,
    /// It has cells or control to flush.
    pub dirty: bool,
    /// What went over it.
    pub traffic: Traffic,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

impl Session {
    /// A session that is to be opened, or that a peer has asked for. `salt` is random.
    #[must_use]
    pub fn new(
        pseudonym: Pseudonym,
        peer: AnonymousId,
        remote: X25519Public,
        initiated: bool,
        salt: u64,
        now: Instant,
    ) -> Self {
        Self {
            pseudonym,
            peer,
            remote,
            phase: if initiated {
                Phase::Opening
            } else {
                Phase::Unconfirmed
            },
            initiated,
            begun_here: initiated,
            effort: 0,
            shortfall: 0,
            client: None,
            keys: KeyRing::default(),
            keyed: now,
            rekey: false,
            introduce: false,
            opening: None,
            own_tails: ArrayVec::new(),
            own_version: 0,
            own_unacknowledged: None,
            peer_tails: ArrayVec::new(),
            tails_came: None,
            peer_version: None,
            paths: Paths::default(),
            built: None,
            lanes: Vec::new(),
            ids: FragmentIds::new(),
            reassembly: Reassembly::new(),
            flows: Flows::new(salt),
            held: Held::default(),
            acks: ArrayVec::new(),
            ack_bucket: TokenBucket::new(ACKS_PER_SECOND, ACKS_BURST, now),
            tries: TokenBucket::new(PEER_TRIES_PER_SECOND, PEER_TRIES_BURST, now),
            answers: TokenBucket::new(PEER_ANSWERS_PER_SECOND, PEER_ANSWERS_BURST, now),
            controls: Vec::new(),
            blame: Blame::default(),
            since: now,
            used: now,
            carries_packets: false,
            heard: now,
            waiting: None,
            unanswered: None,
            recovery: None,
            unreachable: false,
            doubt: None,
            troubled: None,
            parted: None,
            ipv4: None,
            lease_until: None,
            lease_asked: None,
            ipv6: address::ipv6(&peer),
            dirty: false,
            traffic: Traffic::default(),
            last_error: None,
        }
    }

    /// Whom the session is with, and as whom.
    #[must_use]
    pub fn partner(&self) -> Partner {
        (self.pseudonym, self.peer)
    }

    /// Whether keys that the peer has initiated give way to those that we have: when both began
    /// at about the same time, the side with the smaller ID wins.
    #[must_use]
    pub fn keeps_own_keys(&self, own: &AnonymousId, now: Instant) -> bool {
        self.phase == Phase::Established
            && self.initiated
            && now.saturating_duration_since(self.keyed) < CROSSING
            && *own < self.peer
    }

    /// Whether packets or messages went over it just now.
    #[must_use]
    pub fn in_use(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IN_USE
    }

    /// Nobody could be heard, so the peer's silence says nothing.
    pub fn forgive_silence(&mut self) {
        self.waiting = None;
        self.unanswered = None;
        self.recovery = None;
    }

    /// Whether no path works although one should, or a handshake had no answer at first.
    #[must_use]
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        let long = |at: Instant| now.saturating_duration_since(at) >= TROUBLE;
        let again = self.opening.as_ref().is_some_and(|it| it.made > 0);
        let silent = self.unanswered_since().is_some_and(long);
        again || (silent && !self.paths.any_alive(now))
    }

    /// Since when probes are not answered, whatever else the peer says.
    #[must_use]
    pub fn unanswered_since(&self) -> Option<Instant> {
        let recovery = self.recovery.map(|it| it.since);
        recovery.or(self.unanswered)
    }

    /// The peer's tails that it has named to us alone, as far as they are good.
    pub fn private_tails(&self, now: Now) -> impl Iterator<Item = TailOffer> {
        let offers = self.peer_tails.iter().map(|tail| tail.offer);
        offers.filter(move |offer| offer.alive(now.unix()))
    }

    /// The session's peer is told of new tails with the next cells.
    pub fn own_tails_changed(&mut self) {
        self.own_version = self.own_version.wrapping_add(1);
        self.own_unacknowledged = Some(None);
    }

    /// Takes the peer's tails as they are now. Paths over others are to be replaced.
    pub fn set_peer_tails(&mut self, offers: &[TailOffer], now: Instant) {
        self.tails_came = Some(now);
        let old = std::mem::take(&mut self.peer_tails);
        for offer in offers.iter().take(MAX_OFFERS) {
            let broken_until = old
                .iter()
                .find(|tail| tail.id() == offer.tail.id())
                .and_then(|tail| tail.broken_until);
            self.peer_tails.push(PeerTail {
                offer: *offer,
                broken_until,
            });
        }
        for path in self.paths.iter_mut() {
            if !self.peer_tails.iter().any(|tail| tail.id() == path.tail) {
                path.retiring.get_or_insert(now);
            }
        }
    }
}
