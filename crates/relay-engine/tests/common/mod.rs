//! Relays on plain buffers, joined by links that were made by real handshakes.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of this")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::Receiver;
use mixline_protocol::identity::{ShortId, X25519Secret};
use mixline_protocol::link::{CellKind, Established, Initiator, Responder, Timestamp};
use mixline_protocol::path::{
    Head, HeadSecrets, Hop, MailboxToken, OnionSecret, TailKeys, TailSecrets, build_head,
    build_tail,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::size::{CELL_OFFSET, Cell, DATAGRAM, Datagram, PATH_HEADER, Payload};
use mixline_relay_engine::batch::Batch;
use mixline_relay_engine::link_sessions::index;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::next_hops::Link;
use mixline_relay_engine::outcome::Outcome;
use mixline_relay_engine::pipeline::{Assembly, Behaviour, Common, Honest, Pipeline, Setup};
use mixline_relay_engine::queues::{ControlQueues, WorkerQueues};
use mixline_relay_engine::quota::NeighbourUsage;
use mixline_relay_engine::slow_path::{Job, Keyring, Opened, open};
use mixline_relay_engine::wake::NeverSleeps;

/// The epoch of all onion keys here.
pub const KEY: u32 = 7;

/// Two ends of a link session.
pub struct Ends {
    pub a: Established,
    pub b: Established,
}

/// A session between two fresh keys; each end calls it as said.
pub fn establish(index_a: u32, index_b: u32) -> Ends {
    let mut rng = OsRandom::new();
    let (a, b) = (
        X25519Secret::generate(&mut rng),
        X25519Secret::generate(&mut rng),
    );
    let at = Timestamp::from(SystemTime::now());
    let (mut initiator, initiation) =
        Initiator::start(&a, &b.public(), index_a, at, None, &mut rng).unwrap();
    let mut responder = Responder::new(&b, Instant::now(), &mut rng);
    let (b, response) = responder.respond(&initiation, index_b, &mut rng).unwrap();
    Ends {
        a: initiator.finish(&response).unwrap(),
        b,
    }
}

/// One end of a link, in a test's hands.
pub struct Neighbour {
    pub end: Established,
    pub address: SocketAddr,
    pub number: u32,
    pub index: u32,
}

impl Neighbour {
    /// A datagram for the relay with this cell inside.
    pub fn seal(&self, cell: &Cell, kind: CellKind) -> Datagram {
        let mut datagram = [0; DATAGRAM];
        datagram[CELL_OFFSET..][..cell.len()].copy_from_slice(cell);
        self.end.seal.seal(&mut datagram, kind).unwrap();
        datagram
    }

    /// The cell inside a datagram that the relay has sent here.
    pub fn open(&self, datagram: &Datagram) -> (CellKind, Cell) {
        let mut datagram = *datagram;
        let kind = self.end.open.open(&mut datagram).unwrap();
        (kind, *datagram[CELL_OFFSET..].first_chunk().unwrap())
    }
}

/// A relay with one worker, without threads or sockets.
pub struct TestRelay<B: Behaviour = Honest> {
    pub pipeline: Pipeline<B>,
    pub queues: WorkerQueues,
    pub jobs: Receiver<Job>,
    pub control: Arc<ControlQueues>,
    pub common: Arc<Common>,
    pub replay: Arc<ReplayFilter>,
    pub onion: Arc<OnionSecret>,
    pub keyring: Keyring,
    pub short: ShortId,
    pub now: Instant,
    neighbours: u32,
}

impl TestRelay<Honest> {
    pub fn new(short: u8) -> Self {
        Self::with(short, Honest, 4096, None)
    }

    /// One whose replay filter has so many bytes.
    pub fn of_filter(short: u8, bytes: usize) -> Self {
        Self::of(short, Honest, 4096, None, bytes)
    }
}

impl<B: Behaviour> TestRelay<B> {
    pub fn with(short: u8, behaviour: B, paths: usize, mean_delay: Option<Duration>) -> Self {
        Self::of(short, behaviour, paths, mean_delay, 1 << 20)
    }

    fn of(
        short: u8,
        behaviour: B,
        paths: usize,
        mean_delay: Option<Duration>,
        filter: usize,
    ) -> Self {
        let mut rng = OsRandom::new();
        let now = Instant::now();
        let short = ShortId([short; 8]);
        let replay = Arc::new(ReplayFilter::new(filter, [1; 16], now).unwrap());
        // A second worker, for datagrams that are not this one's.
        let Assembly {
            common,
            mut workers,
            jobs,
        } = Common::assemble(
            short,
            Arc::clone(&replay),
            2,
            mean_delay.is_some(),
            Arc::new(NeverSleeps),
        );
        let setup = Setup {
            worker: 0,
            paths,
            mean_delay,
            behaviour,
        };
        let onion = Arc::new(OnionSecret::generate(&mut rng));
        Self {
            pipeline: Pipeline::new(Arc::clone(&common), setup, &mut rng),
            queues: workers.swap_remove(0),
            jobs,
            control: Arc::clone(&common.control),
            replay,
            common,
            keyring: vec![(KEY, Arc::clone(&onion))],
            onion,
            short,
            now,
            neighbours: 0,
        }
    }

    /// The relay as a hop of a path.
    pub fn hop(&self) -> Hop {
        Hop {
            relay: self.short,
            onion: self.onion.public(),
        }
    }

    /// A neighbour with a session in both directions.
    pub fn neighbour(&mut self) -> Neighbour {
        let number = self.neighbours;
        self.neighbours += 1;
        let local = index(0, number as usize, 9);
        let Ends { a, b } = establish(1000 + number, local);
        let address = SocketAddr::from(([10, 0, 0, (number % 250) as u8 + 1], 7000));
        self.pipeline.apply(Command::Session {
            open: Arc::new(b.open),
            neighbour: number,
            usage: NeighbourUsage::default(),
            source: address,
        });
        let link = Link {
            seal: Arc::new(b.seal),
            to: address,
        };
        self.pipeline.apply(Command::Link(number, Some(link)));
        Neighbour {
            end: a,
            address,
            number,
            index: local,
        }
    }

    /// Says which relays there are.
    pub fn relays(&mut self, relays: &[(ShortId, Option<u32>)]) {
        self.pipeline.apply(Command::Relays(relays.into()));
    }

    /// Says whose a mailbox is.
    pub fn mailbox(&mut self, token: MailboxToken, neighbour: Option<u32>) {
        self.pipeline
            .apply(Command::Mailboxes([token].into(), neighbour));
    }

    /// Takes datagrams through the pipeline, in batches; what is sent at once.
    pub fn process(&mut self, datagrams: &[(Datagram, SocketAddr)]) -> Vec<(Datagram, SocketAddr)> {
        let mut bytes = datagrams.to_vec();
        let mut sent = Vec::new();
        for part in bytes.chunks_mut(64) {
            let mut batch = Batch::new();
            for (datagram, source) in part {
                batch.push(datagram, *source);
            }
            self.pipeline.process(&mut batch, self.now);
            sent.extend(batch.to_send().map(|(bytes, to)| (*bytes, to)));
        }
        sent
    }

    /// Lets the slow path answer all that it is asked, and what was held go on.
    pub fn slow_path(&mut self) -> Vec<(Datagram, SocketAddr)> {
        let mut sent = Vec::new();
        while let Ok(Job { header, .. }) = self.jobs.try_recv() {
            let path = open(&self.keyring, &header);
            self.pipeline.take_opened(Opened { header, path }, self.now);
            sent.extend(self.again());
        }
        sent
    }

    /// Lets go on what has come back.
    pub fn again(&mut self) -> Vec<(Datagram, SocketAddr)> {
        let mut sent = Vec::new();
        while self.pipeline.process_again(self.now, |batch| {
            sent.extend(batch.to_send().map(|(bytes, to)| (*bytes, to)));
        }) {}
        sent
    }

    /// All of these.
    pub fn relay(&mut self, datagrams: &[(Datagram, SocketAddr)]) -> Vec<(Datagram, SocketAddr)> {
        let mut sent = self.process(datagrams);
        sent.extend(self.slow_path());
        sent.extend(self.again());
        sent
    }

    pub fn count(&self, outcome: Outcome) -> u64 {
        self.pipeline.counters().of(outcome)
    }
}

/// A whole path as its two ends know it.
pub struct TestPath {
    pub head: Head,
    pub tail: TailKeys,
    pub token: MailboxToken,
}

/// A path through `head` and `tail`.
pub fn path(head: &[Hop], tail: &[Hop], token: u64) -> TestPath {
    let mut rng = OsRandom::new();
    let token = MailboxToken(token.to_be_bytes());
    let (published, keys) = build_tail(&TailSecrets::random(&mut rng), tail, token).unwrap();
    let head = build_head(&HeadSecrets::random(&mut rng), head, &published).unwrap();
    TestPath {
        head,
        tail: keys,
        token,
    }
}

impl TestPath {
    /// A cell for the first relay with this message.
    pub fn cell(&self, message: u64) -> Cell {
        let mut payload: Payload = [3; 1072];
        payload[..8].copy_from_slice(&message.to_be_bytes());
        // Real payloads are encrypted, so no two of two paths begin alike.
        payload[8..16].copy_from_slice(&self.token.0);
        self.head.wrap(&mut payload);
        let mut cell = [0; 1368];
        cell[..PATH_HEADER].copy_from_slice(self.head.header());
        cell[PATH_HEADER..].copy_from_slice(&payload);
        cell
    }

    /// The message in a cell that was delivered, whose other bytes must be as they were.
    pub fn message(&self, cell: &Cell) -> u64 {
        assert_eq!(cell[..8], self.token.0);
        assert!(cell[8..PATH_HEADER].iter().all(|byte| *byte == 0));
        let mut payload: Payload = *cell[PATH_HEADER..].first_chunk().unwrap();
        self.tail.unwrap(&mut payload);
        assert_eq!(payload[8..16], self.token.0);
        assert!(payload[16..].iter().all(|byte| *byte == 3));
        u64::from_be_bytes(*payload.first_chunk().unwrap())
    }
}
