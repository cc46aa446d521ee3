//! The endpoint without I/O.
//!
//! Time, randomness, datagrams, packets and commands go in by `handle_*`; datagrams, packets,
//! messages and events come out of the queues that the engine owns. Nothing here reads a clock
//! or a socket, so whole networks of engines and relays run in a test.
//!
//! After any `handle_*` calls, [`Engine::finish_batch`] sends what they have begun. Then the
//! driver empties [`Engine::outbox`] and [`Engine::inbound`], and calls
//! [`Engine::handle_timeout`] when [`Engine::next_timeout`] says so.

mod answering;
mod build_path;
mod control_frames;
mod directory_requests;
mod handshakes;
mod inbound;
mod lifecycle;
pub(crate) mod liveness;
#[cfg(feature = "testing")]
mod misbehaviour;
mod opening;
mod outbound;
mod ping;
mod publishing;
mod reconfigure;
mod returning;
mod room;
mod silence;
mod status_report;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use mixline_protocol::address;
use mixline_protocol::identity::{AnonymousId, ShortId, X25519Public};
use mixline_protocol::records::{ServiceDescriptor, Snapshot};
use rand_core::SeedableRng;

use crate::access::Authorisations;
use crate::clock::Now;
use crate::command::{Outcome, RequestNumber};
use crate::directory::descriptors::Descriptors;
use crate::directory::own_versions::OwnVersions;
use crate::directory::pending::Queries;
use crate::directory::pseudonyms::{Pseudonym, Pseudonyms};
use crate::directory::publication::Publication;
use crate::directory::said_time::NetworkTime;
use crate::directory::unreachable::Unreachable;
use crate::effort::searches::Searches;
use crate::effort::strangers::Strangers;
use crate::guard_links::{Families, LinkEvent, Links, PathFinding};
use crate::keys::SessionKey;
use crate::limits::{DOUBTS_BURST, DOUBTS_PER_SECOND, HandshakeLimits};
use crate::messages::ServiceRequest;
use crate::outbox::Outbox;
use crate::packets::headers::AddressKey;
use crate::packets::lookups::{LOOKUPS_BURST, LOOKUPS_PER_SECOND, Lookup};
use crate::relays::blame::Blame;
use crate::relays::budget::Budgets;
use crate::relays::guards::Guards;
use crate::relays::key_changes::KeyChanges;
use crate::relays::network::Network;
use crate::session::Session;
use crate::session::away::Away;
use crate::session::ending::Ending;
use crate::session::initiation_replay::InitiationReplayCache;
use crate::tails::Tails;
use crate::tails::mailboxes::Mailboxes;
use crate::token_bucket::TokenBucket;
use slotmap::SlotMap;

use crate::config::Config;
use crate::config::Identity;
use crate::error::QueryError;
use crate::packets::batch::PacketBatch;
use crate::status::{Counters, Event};

/// Time between two timeouts while something is going on ...
pub const BUSY_TICK: Duration = Duration::from_millis(50);
/// ... and while nothing is.
pub const IDLE_TICK: Duration = Duration::from_millis(250);
/// At most so many events wait to be taken; the oldest goes first.
pub const MAX_EVENTS: usize = 256;
/// When the driver comes so late, silence of others says nothing.
const STALL: Duration = Duration::from_millis(1000);
/// When it comes so late, others may have given us up.
const AWAY: Duration = Duration::from_millis(2500);
/// How often what changes slowly is looked at.
const SLOW_TICK: Duration = Duration::from_secs(1);
/// The stream of random numbers for puzzles.
const PUZZLES: u64 = 1;
/// How long a shutdown waits for the directory to hear of it.
pub const SHUTDOWN: Duration = Duration::from_millis(1500);

/// The endpoint without I/O.
pub struct Engine {
    config: Config,
    rng: ChaCha20Rng,
    /// For what others see of puzzles, apart from all else.
    puzzle_rng: ChaCha20Rng,
    started: Now,
    /// Whether somebody answers messages.
    answers: bool,
    network: Option<Network>,
    guards: Guards,
    key_changes: KeyChanges,
    budgets: Budgets,
    links: Links,
    mailboxes: Mailboxes,
    pub(crate) tails: Tails,
    /// Relays behind the guards that tails, and heads of any session, had better do without, as far as
    /// there are others in the second layer: a session remembers by itself what it knows of the rest. A peer
    /// can bring that about, and it moves the choice of all sessions, so it counts little where
    /// heads are built.
    inner_blame: Blame,
    spares_short: bool,
    shortage: Option<String>,
    pseudonyms: Pseudonyms,
    authorisations: Authorisations,
    /// The own IPv6 address.
    ipv6: Ipv6Addr,
    sessions: SlotMap<SessionKey, Session>,
    by_peer: HashMap<(Pseudonym, AnonymousId), SessionKey>,
    by_address: HashMap<AddressKey, SessionKey>,
    descriptors: Descriptors,
    unreachable: Unreachable,
    away: Away,
    lookups: HashMap<IpAddr, Lookup>,
    lookup_bucket: TokenBucket,
    queries: Queries,
    /// Measurements of paths, for people.
    measurements: Vec<ping::Measurement>,
    publication: Publication,
    own_versions: OwnVersions,
    network_time: NetworkTime,
    initiation_replays: InitiationReplayCache,
    handshake_limits: HandshakeLimits,
    strangers: Strangers,
    searches: Searches,
    icmp_bucket: TokenBucket,
    doubts_bucket: TokenBucket,
    outbox: Outbox,
    inbound: PacketBatch,
    requests: VecDeque<ServiceRequest>,
    /// Answers to questions of the outside: one for each, taken after each step.
    answers_ready: VecDeque<(RequestNumber, Outcome)>,
    events: VecDeque<Event>,
    dirty: Vec<SessionKey>,
    /// Something happened that other parts may have to act on at once.
    needs_maintenance: bool,
    online: bool,
    /// Whether it was, and is not any more.
    was_online: bool,
    last_tick: Option<Now>,
    last_slow: Option<Instant>,
    stopping: Option<Instant>,
    counters: Counters,
}

impl Engine {
    /// An engine with the guards that were stored, if any.
    ///
    /// `answers`: whether messages of peers are to be given to a service. `seed` is where all its
    /// randomness comes from.
    #[must_use]
    pub fn new(
        config: Config,
        identity: Identity,
        guards: Option<Guards>,
        families: Families,
        answers: bool,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut puzzle_rng = ChaCha20Rng::from_seed(seed);
        puzzle_rng.set_stream(PUZZLES);
        let authorisations = Authorisations::new(&identity.access, &identity.key);
        let pseudonyms = Pseudonyms::new(identity, now.instant, &mut rng);
        let at = now.instant;
        Self {
            guards: guards.unwrap_or_else(|| Guards::new(config.guards)),
            key_changes: KeyChanges::default(),
            budgets: Budgets::new(at),
            config,
            started: now,
            answers,
            network: None,
            links: Links::new(families),
            mailboxes: Mailboxes::default(),
            tails: Tails::default(),
            inner_blame: Blame::default(),
            spares_short: false,
            shortage: None,
            ipv6: address::ipv6(&pseudonyms.get(Pseudonym::Own).id),
            pseudonyms,
            authorisations,
            sessions: SlotMap::with_key(),
            by_peer: HashMap::new(),
            by_address: HashMap::new(),
            descriptors: Descriptors::default(),
            unreachable: Unreachable::default(),
            away: Away::default(),
            lookups: HashMap::new(),
            lookup_bucket: TokenBucket::new(LOOKUPS_PER_SECOND, LOOKUPS_BURST, at),
            queries: Queries::default(),
            measurements: Vec::new(),
            publication: Publication::new(at),
            own_versions: OwnVersions::default(),
            network_time: NetworkTime::default(),
            initiation_replays: InitiationReplayCache::default(),
            handshake_limits: HandshakeLimits::new(at),
            strangers: Strangers::new(at),
            searches: Searches::default(),
            icmp_bucket: TokenBucket::new(
                crate::packets::icmp::PER_SECOND,
                crate::packets::icmp::BURST,
                at,
            ),
            doubts_bucket: TokenBucket::new(DOUBTS_PER_SECOND, DOUBTS_BURST, at),
            outbox: Outbox::new(),
            inbound: PacketBatch::new(),
            requests: VecDeque::new(),
            answers_ready: VecDeque::new(),
            events: VecDeque::new(),
            dirty: Vec::new(),
            needs_maintenance: false,
            online: false,
            was_online: false,
            last_tick: None,
            last_slow: None,
            stopping: None,
            counters: Counters::default(),
            rng,
            puzzle_rng,
        }
    }

    /// Goes on with the versions of what an earlier run said. To be called before anything else.
    pub fn set_own_versions(&mut self, versions: OwnVersions) {
        self.own_versions = versions;
        self.pseudonyms
            .get_mut(Pseudonym::Own)
            .go_on_after(versions.last_initiation());
    }

    /// There is a new, verified snapshot of the network.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Now) {
        self.network_time.learn(&snapshot, now);
        let network = Network::new(snapshot);
        if let Some(before) = &self.network {
            let anew = self.key_changes.follow(before, &network, now.instant);
            self.links.have_started_anew(&anew, now.instant);
        }
        self.tails.check_keys(&network);
        let changes = &self.key_changes;
        self.inner_blame.explain(&network, changes, now.instant);
        for (_, session) in self.sessions.iter_mut() {
            session.paths.check_keys(&network, changes, now.instant);
            session.blame.explain(&network, changes, now.instant);
        }
        self.network = Some(network);
        self.retarget_to_directory(now);
        self.last_slow = None;
        self.maintain(now);
        self.finish_batch(now);
    }

    /// Which kinds of addresses can be sent to from now on.
    pub fn set_families(&mut self, families: Families) {
        self.links.set_families(families);
    }

    /// Where guards are reached.
    pub fn guard_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.links.addresses()
    }

    /// The guards whose silence is worth looking at the way to them: who, where, and the link key.
    pub fn silent_guards(
        &self,
        now: Now,
    ) -> impl Iterator<Item = (ShortId, SocketAddr, X25519Public)> {
        self.links.silent(now.instant)
    }

    /// The way to a guard has been looked at.
    pub fn handle_finding(&mut self, guard: &ShortId, finding: PathFinding) {
        self.links.looked_at(guard, finding);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.maintain(now);
        self.last_tick = Some(now);
        self.finish_batch(now);
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self, now: Now) -> Instant {
        let busy = !self.online
            || self.stopping.is_some()
            || self.tails.unregistered
            || !self.queries.is_empty()
            || self.is_measuring()
            || self.strangers.waiting() > 0
            || self.links.is_solving()
            || self
                .sessions
                .iter()
                .any(|(_, session)| session.opening.is_some() || session.in_use(now.instant));
        let every = if busy { BUSY_TICK } else { IDLE_TICK };
        self.last_tick
            .map_or(now.instant, |last| last.instant + every)
    }

    /// Ends a batch: sends partly filled cells, and does what has become possible.
    pub fn finish_batch(&mut self, now: Now) {
        self.flush(now);
        // What is done may make more possible: a registered mailbox a handshake, say.
        for _ in 0..4 {
            if !std::mem::take(&mut self.needs_maintenance) {
                break;
            }
            self.maintain(now);
            self.flush(now);
        }
    }

    /// Datagrams for the sockets.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Packets for the device; to be cleared when they are handed over.
    pub fn inbound(&mut self) -> &mut PacketBatch {
        &mut self.inbound
    }

    /// The next message that the service is to answer.
    pub fn next_request(&mut self) -> Option<ServiceRequest> {
        self.requests.pop_front()
    }

    /// The service's answer to a message. Dropped if the session is gone meanwhile.
    pub fn respond(&mut self, to: SessionKey, message: &[u8], now: Now) {
        self.send_message(to, message, now);
    }

    /// What has happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The guards as they are to be stored, if they have changed since [`Self::guards_stored`].
    pub fn guards_to_store(&self) -> Option<String> {
        self.guards.has_changed().then(|| self.guards.save())
    }

    /// What [`Self::guards_to_store`] returned last is stored.
    pub fn guards_stored(&mut self) {
        self.guards.set_unchanged();
    }

    /// The versions of what the own ID says as they are to be stored before what is in the outbox is sent, if
    /// they have changed since [`Self::own_versions_stored`].
    pub fn own_versions_to_store(&self) -> Option<String> {
        self.own_versions.unstored()
    }

    /// What [`Self::own_versions_to_store`] returned last is stored.
    pub fn own_versions_stored(&mut self) {
        self.own_versions.set_stored();
    }

    /// The own descriptor, if it has changed since the last call.
    pub fn changed_descriptor(&mut self) -> Option<Arc<ServiceDescriptor>> {
        if std::mem::take(&mut self.publication.changed) {
            self.publication.descriptor.clone()
        } else {
            None
        }
    }

    /// Whether peers and the directory can be reached.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// Says goodbye to everybody. It is over when [`Self::is_stopped`].
    pub fn shut_down(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.instant);
        for query in self.queries.drain() {
            if let Some(number) = query.asker.number() {
                self.reply(number, Err(QueryError::Stopped));
            }
        }
        for ping in std::mem::take(&mut self.measurements) {
            self.reply(ping.number, Err(QueryError::Stopped));
        }
        self.withdraw(now);
        for key in self.sessions.keys().collect::<Vec<_>>() {
            if self
                .sessions
                .get(key)
                .is_some_and(|session| session.pseudonym == Pseudonym::Own)
            {
                self.end(key, &Ending::Stopping, now);
            }
        }
        self.needs_maintenance = true;
    }

    /// Whether all has been said. Links are closed when it is asked for the first time after
    /// that; the outbox has to be emptied once more.
    pub fn is_stopped(&mut self, now: Now) -> bool {
        let Some(since) = self.stopping else {
            return false;
        };
        let late = now.instant.saturating_duration_since(since) >= SHUTDOWN;
        if !late && !self.queries.is_empty() {
            return false;
        }
        for key in self.sessions.keys().collect::<Vec<_>>() {
            self.end(key, &Ending::Stopping, now);
        }
        self.links.close(&mut self.outbox);
        true
    }

    fn maintain(&mut self, now: Now) {
        self.notice_gap(now);
        let slow = |at: Instant| now.instant.saturating_duration_since(at) >= SLOW_TICK;
        if self.last_slow.is_none_or(slow) {
            self.last_slow = Some(now.instant);
            self.slow_tick(now);
        }
        self.links.poll(now, &mut self.outbox, &mut self.rng);
        self.link_events(now);
        if self.stopping.is_none() {
            self.build_spares(now);
            self.publish(now);
        }
        let grace = self.grace();
        self.mailboxes
            .register(&mut self.tails, &self.links, now, grace, &mut self.outbox);
        self.drive_queries(now);
        self.drive_strangers(now);
        for key in self.sessions.keys().collect::<Vec<_>>() {
            self.maintain_session(key, now);
        }
        self.drive_pings(now);
        self.go_online();
    }

    /// What changes slowly: guards, and what ends.
    fn slow_tick(&mut self, now: Now) {
        // A clock that is days ahead must not cost the guards: they are looked at only while the
        // snapshot, which the directory has signed, says that the time may be right.
        if let Some(network) = &self.network
            && network.is_plausible(now.unix())
        {
            let links = &self.links;
            self.guards.update(
                network,
                now,
                |guard| links.is_up(guard),
                |relay| links.can_reach(relay),
                &mut self.rng,
            );
            let (length, deep) = (self.config.longest(), self.config.has_third_layers());
            let at = now.unix();
            self.guards
                .update_layers(network, length, deep, at, &mut self.rng);
        }
        if let Some(network) = &self.network {
            let wanted: Vec<_> = self.guards.in_use().map(|(id, _)| id).collect();
            self.links
                .want(network, wanted.into_iter(), now, &mut self.rng);
        }
        let grace = self.grace();
        self.tails.expire(now, grace);
        self.descriptors.expire(now);
        for packet in self.away.expire(now.instant) {
            self.inbound.push(&packet);
        }
        for address in self.away.due(now.instant) {
            self.resolve(address, None, now);
        }
        self.renew_pseudonyms(now);
    }

    fn link_events(&mut self, now: Now) {
        for event in self.links.take_events() {
            match event {
                LinkEvent::Up { guard, fresh } => {
                    if fresh {
                        self.tails.register_again(&guard);
                    }
                }
                LinkEvent::Down(_) => {}
                LinkEvent::Registered {
                    guard,
                    request,
                    refused,
                } => {
                    let (taken, useless) = self.tails.registered(&guard, request, &refused);
                    self.mailboxes
                        .answered(&guard, taken, !useless.is_empty(), now.instant);
                    for tail in useless {
                        self.tails.drop_now(tail);
                    }
                }
            }
            self.needs_maintenance = true;
        }
    }

    fn go_online(&mut self) {
        let online = self.network.is_some() && self.links.any_up() && self.shortage.is_none();
        if online == self.online {
            return;
        }
        self.online = online;
        if online {
            // Before guards count as dead, they have been silent for as long as peers wait for us.
            if std::mem::take(&mut self.was_online) {
                self.doubt_sessions();
            }
            self.event(Event::Online);
        } else {
            self.was_online = true;
            // Nothing comes through anywhere, and no relay behind the guards is to blame for that.
            self.inner_blame.forget();
            let why = self.problems().join("; ");
            self.event(Event::Offline(why));
        }
    }

    /// The time as one of the own IDs tells it to others.
    fn said(&self, pseudonym: Pseudonym, now: Now) -> Now {
        let behind = self.pseudonyms.get(pseudonym).behind;
        self.network_time.said(behind, now)
    }

    fn grace(&self) -> u64 {
        self.network
            .as_ref()
            .map_or(0, |network| network.parameters().grace_seconds.into())
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
