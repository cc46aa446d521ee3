//! A network in memory: relays made of the protocol's own parts, a directory, endpoints, and
//! wires that delay, lose, repeat and reorder. Time moves from event to event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::clock::Now;
use crate::command::{Command, Outcome, Question, RequestNumber};
use crate::config::Config;
use crate::config::Identity;
use crate::directory::own_versions::OwnVersions;
use crate::effort::searches::SearchTask;
use crate::engine::Engine;
use crate::guard_links::Families;
use crate::packets::batch::PacketBatch;
use crate::relays::guards::Guards;
use crate::status::Event;
use crate::status::Status;
use chacha20::ChaCha20Rng;
use mixline_protocol::address::ipv4_candidate;
use mixline_protocol::identity::{AnonymousId, IdentityKey, ShortId, X25519Secret};
use mixline_protocol::path::{HeadSecrets, PublishedTail, build_head};
use mixline_protocol::records::{
    DirectoryEntry, Lease, Parameters, Roster, ServiceDescriptor, Snapshot,
};
use mixline_protocol::size::{Datagram, Payload};
use mixline_protocol::time::UnixTime;
use rand_core::{Rng, SeedableRng};

use super::packets::udp;
use super::relay::{Action, SimRelay};
use super::snapshots::{ROUND, VALID, snapshot};
use super::store::Store;

/// How long a datagram takes from one node to the next.
pub const HOP: Duration = Duration::from_millis(3);

/// Datagrams that wait for a node that does not run.
const SOCKET: usize = 4000;

/// What is on its way to whom.
pub enum Delivery {
    /// A datagram to a relay, or to an endpoint.
    Datagram {
        to: SocketAddr,
        from: SocketAddr,
        bytes: Box<Datagram>,
    },
    /// A search that a node's other core has gone on with.
    Searched { node: usize, task: Box<SearchTask> },
    /// A cell from relay to relay: their links are not what is tested here.
    Cell {
        to: usize,
        from: Option<usize>,
        cell: Box<[u8; 1368]>,
    },
}

/// Hashes that a node's other core makes in a second.
pub const HASHES_PER_SECOND: u32 = 4_000_000;

/// What the wires do.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub repeat: f64,
    /// Up to so much is added to the delay of each.
    pub jitter: Duration,
    /// So much is.
    pub delay: Duration,
}

/// One endpoint.
pub struct Node {
    pub engine: Engine,
    config: Config,
    seed: [u8; 32],
    session: [u8; 32],
    pub address: SocketAddr,
    pub id: AnonymousId,
    /// Packets that came out.
    pub received: Vec<Vec<u8>>,
    pub events: Vec<Event>,
    /// Answers to questions, once each.
    pub answers: HashMap<RequestNumber, Outcome>,
    pub guards: Option<String>,
    /// The versions of its records, as they are on its disk.
    pub own_versions: Option<String>,
    pub descriptor: Option<Arc<ServiceDescriptor>>,
    /// It has been killed: it neither sends nor receives.
    pub dead: bool,
    /// Its network is away: it runs, but nothing comes or goes.
    pub unplugged: bool,
    /// It does not run. What comes waits in its socket.
    pub frozen: bool,
    /// By how much its wall clock is ahead, milliseconds.
    pub clock: i64,
    /// It answers only the probes of this node that come over the oldest path.
    pub answers_one_path_of: Option<usize>,
    /// It answers no probes, and everything else.
    pub answers_no_probes: bool,
    backlog: Vec<Box<Datagram>>,
    /// Its other core is busy.
    searches: bool,
    /// Hashes that it has made there, at most.
    pub hashes: u64,
    /// It answers messages as the directory does.
    pub is_directory: bool,
}

pub struct World {
    start: Now,
    /// How many questions were asked.
    questions: u64,
    pub now: Now,
    pub relays: Vec<SimRelay>,
    pub nodes: Vec<Node>,
    pub store: Store,
    pub directory_key: IdentityKey,
    pub weather: Weather,
    pub parameters: Parameters,
    /// There are several directories, which agree on a snapshot a round.
    pub rounds: bool,
    /// What they have agreed on last, if they do not agree any more.
    pub agreed: Option<Arc<Snapshot>>,
    queue: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
    rng: ChaCha20Rng,
    /// Datagrams that went from endpoints to relays.
    pub sent: u64,
    /// The relays that a node's guards have sent its cells to, and got cells for it from: what the
    /// second places of its heads, and the second-last ones of its tails, look like from there.
    pub next_to_guards: HashMap<usize, HashSet<ShortId>>,
}

impl World {
    /// Relays in different /16 networks, and a directory (node 0). The directory has not said
    /// anything yet.
    pub fn new(relays: usize, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha20Rng::from_seed(bytes);
        let now = Now {
            instant: Instant::now(),
            unix_ms: 1_800_000_123_000,
        };
        let directory_key = IdentityKey::generate(&mut rng);
        let mut world = Self {
            start: now,
            questions: 0,
            now,
            relays: Vec::new(),
            nodes: Vec::new(),
            store: Store::default(),
            directory_key,
            weather: Weather::default(),
            parameters: Parameters::default(),
            rounds: false,
            agreed: None,
            queue: BTreeMap::new(),
            sequence: 0,
            rng,
            sent: 0,
            next_to_guards: HashMap::new(),
        };
        for number in 0..relays {
            let relay = SimRelay::new(number, &world.parameters, now, &mut world.rng);
            world.relays.push(relay);
        }
        let key = IdentityKey::from_seed(*world.directory_key.seed());
        world.add(key, |config| {
            config.accept_sessions = true;
        });
        world.nodes[0].is_directory = true;
        world
    }

    /// A network in which everything has started: the directory is node 0.
    pub fn settled(relays: usize, seed: u64) -> Self {
        let mut world = Self::new(relays, seed);
        world.publish_snapshot();
        world.run(Duration::from_secs(3));
        assert!(
            world.nodes[0].descriptor.is_some(),
            "the directory has tails"
        );
        world.publish_snapshot();
        world
    }

    /// A network with a service (1) and a client (2), both ready.
    pub fn pair(seed: u64) -> Self {
        let mut world = Self::settled(8, seed);
        world.service();
        world.client(|_| {});
        let id = world.nodes[1].id;
        assert!(
            world.run_until(Duration::from_secs(5), |world| world
                .store
                .services
                .contains_key(&id)),
            "the service publishes itself: {:#?}",
            world.status(1)
        );
        world
    }

    /// The same, with a session between the two, and all paths proven.
    pub fn connected(seed: u64) -> Self {
        let mut world = Self::pair(seed);
        let (client, service) = (world.ipv4(2), world.ipv4(1));
        world.send(2, &[udp(client, service, (1, 1), b"hello")]);
        world.run(Duration::from_secs(2));
        assert_eq!(world.take(1).len(), 1);
        let ready = |world: &Self, a: usize, b: usize| {
            let paths = world.session(a, b).paths;
            paths.len() == 4 && paths.iter().all(|path| path.state == "alive")
        };
        assert!(
            ready(&world, 1, 2) && ready(&world, 2, 1),
            "{:#?}",
            world.status(2)
        );
        world
    }

    /// What `node` says of its session with `peer`.
    pub fn session(&self, node: usize, peer: usize) -> crate::status::SessionStatus {
        let id = self.nodes[peer].id.to_string();
        let sessions = self.status(node).sessions;
        sessions
            .into_iter()
            .find(|session| session.peer == id)
            .expect("a session")
    }

    /// A relay comes back after a crash.
    pub fn restart(&mut self, relay: usize) {
        let (parameters, now) = (self.parameters, self.now);
        self.relays[relay].restart(&parameters, now, &mut self.rng);
    }

    /// A relay comes back after an orderly stop.
    pub fn restart_in_order(&mut self, relay: usize) {
        let (parameters, now) = (self.parameters, self.now);
        self.relays[relay].restart_in_order(&parameters, now, &mut self.rng);
    }

    /// A program that was killed starts again, with what it had stored and the newest snapshot.
    pub fn restart_node(&mut self, number: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.time(number);
        let snapshot = self.snapshot();
        let node = &mut self.nodes[number];
        let guards = node.guards.as_ref();
        let guards = guards.map(|text| Guards::load(node.config.guards, text).unwrap());
        let identity = Identity {
            key: IdentityKey::from_seed(node.seed),
            session: X25519Secret::from_bytes(node.session),
            access: Access::default(),
        };
        let families = Families { v4: true, v6: true };
        let config = node.config.clone();
        let answers = node.is_directory;
        node.engine = Engine::new(config, identity, guards, families, answers, seed, now);
        if let Some(versions) = &node.own_versions {
            let versions = OwnVersions::load(versions).unwrap();
            node.engine.set_own_versions(versions);
        }
        node.dead = false;
        node.engine.handle_snapshot(snapshot, now);
        self.drain(number);
    }

    /// More relays, in other networks.
    pub fn add_relays(&mut self, more: usize) {
        for _ in 0..more {
            let number = self.relays.len();
            let relay = SimRelay::new(number, &self.parameters, self.now, &mut self.rng);
            self.relays.push(relay);
        }
    }

    /// Adds an endpoint.
    pub fn add(&mut self, key: IdentityKey, change: impl FnOnce(&mut Config)) -> usize {
        self.add_with(key, None, change)
    }

    /// Adds an endpoint that has guards already.
    pub fn add_with(
        &mut self,
        key: IdentityKey,
        guards: Option<Guards>,
        change: impl FnOnce(&mut Config),
    ) -> usize {
        let number = self.nodes.len();
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let id = key.anonymous_id();
        let identity = Identity {
            key,
            session: X25519Secret::generate(&mut self.rng),
            access: Access::default(),
        };
        let (key_seed, session) = (*identity.key.seed(), *identity.session.to_bytes());
        let kept = config.clone();
        let families = Families { v4: true, v6: true };
        let answers = number == 0;
        let engine = Engine::new(config, identity, guards, families, answers, seed, self.now);
        let last = u8::try_from(number).unwrap();
        self.nodes.push(Node {
            engine,
            config: kept,
            seed: key_seed,
            session,
            address: SocketAddr::from(([192, 0, 2, last], 40_000)),
            id,
            received: Vec::new(),
            answers: HashMap::new(),
            events: Vec::new(),
            guards: None,
            own_versions: None,
            descriptor: None,
            dead: false,
            unplugged: false,
            frozen: false,
            clock: 0,
            answers_one_path_of: None,
            answers_no_probes: false,
            backlog: Vec::new(),
            searches: false,
            hashes: 0,
            is_directory: false,
        });
        if number > 0 {
            let snapshot = self.snapshot();
            self.nodes[number]
                .engine
                .handle_snapshot(snapshot, self.now);
            self.drain(number);
        }
        number
    }

    /// Adds a client with a leased address.
    pub fn client(&mut self, change: impl FnOnce(&mut Config)) -> usize {
        let key = IdentityKey::generate(&mut self.rng);
        let lease = self.grant(key.anonymous_id());
        let node = self.add(key, change);
        self.command(node, Command::SetLease(Box::new(lease)));
        node
    }

    /// Adds a service with a leased address that publishes itself.
    pub fn service(&mut self) -> usize {
        self.client(|config| {
            config.accept_sessions = true;
            config.publish = true;
        })
    }

    pub fn random_key(&mut self) -> IdentityKey {
        IdentityKey::generate(&mut self.rng)
    }

    pub fn grant(&mut self, id: AnonymousId) -> Lease {
        let ipv4 = ipv4_candidate(&id, 0, &self.parameters.network);
        let lease = Lease::grant(ipv4, id, self.unix().plus(7200), &self.directory_key);
        self.store.leases.insert(ipv4, lease);
        lease
    }

    pub fn unix(&self) -> UnixTime {
        self.now.unix()
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        if let Some(last) = &self.agreed {
            return last.clone();
        }
        let own = self.nodes.first().and_then(|node| node.descriptor.clone());
        let directory = self.directory_key.anonymous_id();
        let empty = ServiceDescriptor {
            id: directory,
            version: self.now.unix_ms,
            issued: self.unix(),
            expires: self.unix().plus(3600),
            session: mixline_protocol::identity::X25519Public([9; 32]),
            effort: mixline_protocol::effort::EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; 64],
        };
        let empty = empty.sign(&self.directory_key).unwrap();
        let alive = self.relays.iter().filter(|relay| !relay.unlisted);
        let (parameters, now) = (self.parameters, self.unix());
        let service = own.map_or(empty, |descriptor| (*descriptor).clone());
        let (issued, valid) = match self.rounds {
            true => (UnixTime(now.0 / ROUND * ROUND), VALID),
            false => (now, 3600),
        };
        let snapshot = Snapshot {
            network: directory.into(),
            parameters,
            directories: vec![DirectoryEntry {
                service: Some(service),
                ..DirectoryEntry::default()
            }],
            relays: alive
                .map(|relay| relay.listed(&parameters, issued))
                .collect(),
            ..snapshot(issued, valid, self.rounds)
        };
        if self.rounds {
            return Arc::new(snapshot.ordered().unwrap());
        }
        let signed = snapshot.sign(&self.directory_key).unwrap();
        let bytes = signed.encode();
        let roster = Roster::alone(directory);
        Arc::new(Snapshot::decode_and_verify(&bytes, &roster, now).unwrap())
    }

    /// Renews a node's lease.
    pub fn renew_lease(&mut self, node: usize) {
        let lease = self.grant(self.nodes[node].id);
        self.command(node, Command::SetLease(Box::new(lease)));
    }

    /// Gives everybody a snapshot of how things are.
    pub fn publish_snapshot(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.publish_snapshot_to(&all);
    }

    /// Gives some nodes a snapshot of how things are.
    pub fn publish_snapshot_to(&mut self, nodes: &[usize]) {
        for relay in &mut self.relays {
            relay.renew_onion_keys(&self.parameters, self.now.unix(), &mut self.rng);
        }
        let snapshot = self.snapshot();
        for number in nodes.iter().copied() {
            let now = self.time(number);
            self.nodes[number]
                .engine
                .handle_snapshot(snapshot.clone(), now);
            self.drain(number);
        }
    }

    /// The time as a node's clocks show it.
    pub fn time(&self, number: usize) -> Now {
        let clock = self.nodes.get(number).map_or(0, |node| node.clock);
        Now {
            instant: self.now.instant,
            unix_ms: self.now.unix_ms.saturating_add_signed(clock),
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now.instant + time;
        loop {
            let delivery = self.queue.keys().next().map(|(at, _)| *at);
            let timeout = self
                .nodes
                .iter()
                .filter(|node| !node.dead && !node.frozen)
                .map(|node| node.engine.next_timeout(self.now))
                .min();
            let next = [delivery, timeout, Some(until)]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            let next = next.max(self.now.instant);
            self.advance(next);
            if next >= until {
                break;
            }
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now.instant {
                    break;
                }
                let delivery = entry.remove();
                self.deliver(delivery);
            }
            for number in 0..self.nodes.len() {
                let now = self.time(number);
                let node = &mut self.nodes[number];
                if !node.dead && !node.frozen && node.engine.next_timeout(now) <= now.instant {
                    node.engine.handle_timeout(now);
                    self.drain(number);
                }
            }
        }
    }

    /// A node does not run for a while, as when its machine sleeps or its program is stopped. Then
    /// it does, and finds what has come meanwhile.
    pub fn sleep(&mut self, node: usize, time: Duration) {
        self.nodes[node].frozen = true;
        self.run(time);
        self.wake(node);
    }

    /// A node runs again.
    pub fn wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.frozen = false;
        let backlog = std::mem::take(&mut node.backlog);
        let now = self.time(number);
        let node = &mut self.nodes[number];
        for mut datagram in backlog {
            node.engine.handle_datagram(&mut datagram, now);
        }
        node.engine.finish_batch(now);
        self.drain(number);
    }

    /// Lets time pass until something holds; whether it does within `time`.
    pub fn run_until(&mut self, time: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now.instant + time;
        while self.now.instant < until {
            if holds(self) {
                return true;
            }
            self.run(Duration::from_millis(10));
        }
        holds(self)
    }

    fn advance(&mut self, to: Instant) {
        self.now.instant = self.now.instant.max(to);
        let passed = self
            .now
            .instant
            .saturating_duration_since(self.start.instant);
        self.now.unix_ms = self.start.unix_ms + u64::try_from(passed.as_millis()).unwrap();
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Datagram {
                to,
                from,
                mut bytes,
            } => {
                if let Some(at) = self.relays.iter().position(|r| r.addresses.contains(&to)) {
                    let actions =
                        self.relays[at].datagram(&mut bytes, from, self.now, &mut self.rng);
                    for action in &actions {
                        if let Action::Pass(next, _) = action {
                            self.saw_next_to_guard(from, *next);
                        }
                    }
                    self.act(at, actions);
                } else if let Some(at) = self.nodes.iter().position(|node| node.address == to) {
                    let now = self.time(at);
                    let node = &mut self.nodes[at];
                    if node.frozen && !node.unplugged {
                        if node.backlog.len() < SOCKET {
                            node.backlog.push(bytes);
                        }
                    } else if !node.dead && !node.unplugged {
                        node.engine.handle_datagram(&mut bytes, now);
                        if let Some(of) = node.answers_one_path_of {
                            let probes = self.nodes[of].engine.probes_of_oldest_paths();
                            self.nodes[at].engine.keep_acks(&probes);
                        }
                        if self.nodes[at].answers_no_probes {
                            self.nodes[at].engine.keep_acks(&[]);
                        }
                        self.nodes[at].engine.finish_batch(now);
                        self.drain(at);
                    }
                }
            }
            Delivery::Searched { node, task } => {
                let now = self.time(node);
                self.nodes[node].searches = false;
                self.nodes[node].engine.handle_searched(*task, now);
                self.nodes[node].engine.finish_batch(now);
                self.drain(node);
            }
            Delivery::Cell { to, from, mut cell } => {
                let actions = self.relays[to].cell(&mut cell, self.now, &mut self.rng);
                for action in &actions {
                    if let (Action::Send(node, _), Some(before)) = (action, from) {
                        self.saw_next_to_guard(*node, self.relays[before].short);
                    }
                }
                self.act(to, actions);
            }
        }
    }

    fn saw_next_to_guard(&mut self, node: SocketAddr, relay: ShortId) {
        if let Some(node) = self.nodes.iter().position(|it| it.address == node) {
            self.next_to_guards.entry(node).or_default().insert(relay);
        }
    }

    /// For networks whose epochs are changed after the relays were made.
    pub fn renew_onion_keys_from_scratch(&mut self) {
        for relay in 0..self.relays.len() {
            self.restart(relay);
        }
    }

    pub fn random_secret(&mut self) -> X25519Secret {
        X25519Secret::generate(&mut self.rng)
    }

    pub fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.rng
    }

    /// Sends a payload through a published tail, over a head of one relay.
    pub fn inject(&mut self, payload: &Payload, tail: &PublishedTail) {
        self.inject_all(std::slice::from_ref(payload), tail);
    }

    /// Sends payloads that are nothing through a published tail, so many of them, over one head of one relay.
    pub fn flood(&mut self, count: usize, tail: &PublishedTail) {
        let at = usize::try_from(self.rng.next_u32()).unwrap() % self.relays.len();
        let hop = self.relays[at].hop();
        let head = build_head(&HeadSecrets::random(&mut self.rng), &[hop], tail).unwrap();
        for _ in 0..count {
            let mut cell = Box::new([0; 1368]);
            self.rng.fill_bytes(&mut cell[..]);
            cell[..296].copy_from_slice(head.header());
            self.post(Delivery::Cell {
                to: at,
                from: None,
                cell,
            });
        }
    }

    /// Carries datagrams through the relays at once, without delay; those that come to `to`.
    pub fn carry(
        &mut self,
        from: SocketAddr,
        datagrams: Vec<(SocketAddr, Box<Datagram>)>,
        to: SocketAddr,
    ) -> Vec<Box<Datagram>> {
        let mut arrived = Vec::new();
        for (relay, mut bytes) in datagrams {
            let Some(at) = self
                .relays
                .iter()
                .position(|r| r.addresses.contains(&relay))
            else {
                continue;
            };
            let mut todo: Vec<(usize, Action)> = self.relays[at]
                .datagram(&mut bytes, from, self.now, &mut self.rng)
                .into_iter()
                .map(|action| (at, action))
                .collect();
            while let Some((_, action)) = todo.pop() {
                match action {
                    Action::Send(whom, bytes) if whom == to => arrived.push(bytes),
                    Action::Send(..) => {}
                    Action::Pass(short, mut cell) => {
                        let next = self.relays.iter().position(|r| r.short == short).unwrap();
                        let actions = self.relays[next].cell(&mut cell, self.now, &mut self.rng);
                        todo.extend(actions.into_iter().map(|action| (next, action)));
                    }
                }
            }
        }
        arrived
    }

    /// Frees what the relays remember of cells.
    pub fn forget_replays(&mut self) {
        self.relays.iter_mut().for_each(SimRelay::forget_replays);
    }

    fn act(&mut self, relay: usize, actions: Vec<Action>) {
        for action in actions {
            let delivery = match action {
                Action::Send(to, bytes) => {
                    let from = self.relays[relay].addresses[0];
                    Delivery::Datagram { to, from, bytes }
                }
                Action::Pass(short, cell) => {
                    let Some(to) = self.relays.iter().position(|r| r.short == short) else {
                        continue;
                    };
                    Delivery::Cell {
                        to,
                        from: Some(relay),
                        cell,
                    }
                }
            };
            self.post(delivery);
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && (self.rng.next_u32() as f64) < share * f64::from(u32::MAX)
    }

    pub(super) fn post(&mut self, delivery: Delivery) {
        if self.chance(self.weather.loss) {
            return;
        }
        if self.chance(self.weather.repeat) {
            let copy = match &delivery {
                Delivery::Datagram { to, from, bytes } => Delivery::Datagram {
                    to: *to,
                    from: *from,
                    bytes: bytes.clone(),
                },
                Delivery::Cell { to, from, cell } => Delivery::Cell {
                    to: *to,
                    from: *from,
                    cell: cell.clone(),
                },
                Delivery::Searched { .. } => return self.enqueue(delivery),
            };
            self.enqueue(copy);
        }
        self.enqueue(delivery);
    }

    fn enqueue(&mut self, delivery: Delivery) {
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let at = self.now.instant + HOP + self.weather.delay + self.weather.jitter.mul_f64(share);
        self.sequence += 1;
        self.queue.insert((at, self.sequence), delivery);
    }

    /// Takes what an engine has made.
    pub fn drain(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let from = node.address;
        // As on a real disk, before anything is sent.
        if let Some(versions) = node.engine.own_versions_to_store() {
            node.own_versions = Some(versions);
            node.engine.own_versions_stored();
        }
        let mut out = Vec::new();
        for (_, datagram, to) in node.engine.outbox().waiting() {
            out.push((to, Box::new(*datagram)));
        }
        node.engine.outbox().clear();
        let inbound = node.engine.inbound();
        node.received.extend(inbound.iter().map(<[u8]>::to_vec));
        inbound.clear();
        while let Some(event) = node.engine.next_event() {
            node.events.push(event);
        }
        while let Some((request, outcome)) = node.engine.next_answer() {
            let before = node.answers.insert(request, outcome);
            assert!(before.is_none(), "one answer to each question");
        }
        if let Some(guards) = node.engine.guards_to_store() {
            node.guards = Some(guards);
            node.engine.guards_stored();
        }
        if let Some(descriptor) = node.engine.changed_descriptor() {
            node.descriptor = Some(descriptor);
        }
        let mut requests = Vec::new();
        while let Some(request) = node.engine.next_request() {
            requests.push(request);
        }
        let search = match node.searches {
            true => None,
            false => node.engine.next_search(),
        };
        let dead = node.dead || node.unplugged;
        if let Some(mut task) = search {
            let hashes = task.go_on();
            self.nodes[number].searches = true;
            self.nodes[number].hashes += u64::from(hashes);
            let takes = Duration::from_secs(1) * hashes / HASHES_PER_SECOND;
            self.sequence += 1;
            let at = (self.now.instant + takes, self.sequence);
            self.queue.insert(
                at,
                Delivery::Searched {
                    node: number,
                    task: Box::new(task),
                },
            );
        }
        for (to, bytes) in out {
            if !dead {
                self.sent += 1;
                self.post(Delivery::Datagram { to, from, bytes });
            }
        }
        if !requests.is_empty() {
            for request in requests {
                let answer = self.store.answer(
                    request.from,
                    &request.message,
                    self.now.unix(),
                    &self.directory_key,
                );
                self.nodes[number]
                    .engine
                    .respond(request.session, &answer, self.now);
            }
            self.nodes[number].engine.finish_batch(self.now);
            self.drain(number);
        }
    }

    /// Gives a command to an endpoint.
    pub fn command(&mut self, node: usize, command: Command) {
        let now = self.time(node);
        self.nodes[node].engine.handle_command(command, now);
        self.nodes[node].engine.finish_batch(now);
        self.drain(node);
    }

    /// Asks a question and lets time pass until it is answered.
    pub fn ask(&mut self, node: usize, question: Question) -> Outcome {
        self.questions += 1;
        let number = RequestNumber(self.questions);
        self.command(node, Command::Ask(number, question));
        for _ in 0..2000 {
            if let Some(outcome) = self.nodes[node].answers.remove(&number) {
                return outcome;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("no answer, not even a timeout");
    }

    /// An application sends packets.
    pub fn send(&mut self, node: usize, packets: &[Vec<u8>]) {
        let mut batch = PacketBatch::new();
        for packet in packets {
            assert!(batch.push(packet));
        }
        let mut at = 0;
        while at < batch.len() {
            let now = self.time(node);
            let engine = &mut self.nodes[node].engine;
            at = engine.handle_packets(&batch, at, now);
            engine.finish_batch(now);
            self.drain(node);
        }
    }

    pub fn status(&self, node: usize) -> Status {
        self.nodes[node].engine.status(self.time(node))
    }

    pub fn ipv4(&self, node: usize) -> Ipv4Addr {
        self.status(node).ipv4.unwrap().parse().unwrap()
    }

    pub fn ipv6(&self, node: usize) -> Ipv6Addr {
        self.status(node).ipv6.parse().unwrap()
    }

    /// Packets that came out at a node since the last call.
    pub fn take(&mut self, node: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.nodes[node].received)
    }

    /// The relay of a name.
    pub fn relay_named(&self, name: &str) -> usize {
        self.relays
            .iter()
            .position(|relay| relay.name == name)
            .unwrap()
    }
}
