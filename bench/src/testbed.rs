//! A testbed: a relay's pipeline between two neighbours, on plain buffers.
//!
//! What it is fed are datagrams as a neighbour seals them, each with a counter and a
//! message of its own, so that the pipeline does all that it does on a wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use crossbeam::channel::Receiver;
use mixline_protocol::identity::{ShortId, X25519Secret};
use mixline_protocol::link::{
    CellKind, Established, Initiator, Responder, SealKey, Timestamp, without_handshake,
};
use mixline_protocol::path::{
    HeadSecrets, Hop, KnownPath, OnionSecret, PublishedTail, build_head, open_header,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram, Header, PATH_HEADER};
use mixline_relay_engine::batch::{BATCH, Batch};
use mixline_relay_engine::link_sessions::index;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::next_hops::Link;
use mixline_relay_engine::pipeline::{Assembly, Common, Honest, Pipeline, Setup};
use mixline_relay_engine::quota::NeighbourUsage;
use mixline_relay_engine::slow_path::{Job, Opened};
use mixline_relay_engine::wake::NeverSleeps;
use rand_core::Rng;

use crate::machine::resident;

/// Datagrams that are sealed before a round and processed in it: 0.7 MB.
pub const PER_ROUND: usize = 8 * BATCH;

/// Bytes of a generation of the replay filter: what a relay has by default in both.
const REPLAY_BYTES: usize = 16 << 20;

const KEY: u32 = 1;
const NEXT_RELAY: ShortId = ShortId(*b"nextnext");

/// See the module's description.
pub struct Testbed {
    pipeline: Pipeline<Honest>,
    /// Which it shares with other workers of the relay.
    replay: Arc<ReplayFilter>,
    jobs: Receiver<Job>,
    /// The neighbours', whose datagrams come in. There is one to begin with.
    neighbours: Vec<SealKey>,
    /// The relay's own, for paths through it.
    onion: Arc<OnionSecret>,
    datagrams: Vec<Datagram>,
    message: u64,
    address: SocketAddr,
}

/// A path through the relay, as its sender knows it and as the relay does.
pub struct Path {
    /// What its cells begin with.
    pub header: Header,
    /// The header opened.
    pub known: KnownPath,
}

impl Testbed {
    /// A relay with room for `paths` paths, none of which it knows yet.
    ///
    /// # Errors
    /// If there is no memory, or a handshake fails, which it does not.
    pub fn new(paths: usize) -> Result<Self> {
        Self::several(1, paths)?.pop().context("no worker")
    }

    /// A relay's workers, each with room for `paths` paths. They share what a relay's workers share.
    ///
    /// # Errors
    /// As [`Testbed::new`].
    pub fn several(workers: usize, paths: usize) -> Result<Vec<Self>> {
        let rng = &mut OsRandom::new();
        let now = Instant::now();
        let mut key = [0; 16];
        rng.fill_bytes(&mut key);
        let replay = Arc::new(ReplayFilter::new(REPLAY_BYTES, key, now)?);
        remember_some(&replay);
        let Assembly { common, jobs, .. } = Common::assemble(
            ShortId(*b"this one"),
            Arc::clone(&replay),
            workers,
            false,
            Arc::new(NeverSleeps),
        );
        let all = (0..workers).map(|worker| Self::worker(&common, &replay, &jobs, worker, paths));
        all.collect()
    }

    fn worker(
        common: &Arc<Common>,
        replay: &Arc<ReplayFilter>,
        jobs: &Receiver<Job>,
        worker: usize,
        paths: usize,
    ) -> Result<Self> {
        let rng = &mut OsRandom::new();
        let setup = Setup {
            worker,
            paths,
            mean_delay: None,
            behaviour: Honest,
        };
        let mut pipeline = Pipeline::new(Arc::clone(common), setup, rng);
        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        let (neighbour, relay) = handshake(index(worker, 0, rng.next_u32()))?;
        pipeline.apply(Command::Session {
            open: Arc::new(relay.open),
            neighbour: 0,
            usage: NeighbourUsage::default(),
            source: address,
        });
        let (to_next, _) = handshake(1)?;
        pipeline.apply(Command::Relays(Arc::new([(NEXT_RELAY, Some(1))])));
        let link = Link {
            seal: Arc::new(to_next.seal),
            to: address,
        };
        pipeline.apply(Command::Link(1, Some(link)));
        Ok(Self {
            pipeline,
            replay: Arc::clone(replay),
            jobs: jobs.clone(),
            neighbours: vec![neighbour.seal],
            onion: Arc::new(OnionSecret::generate(rng)),
            datagrams: vec![[0; DATAGRAM]; PER_ROUND],
            message: 0,
            address,
        })
    }

    /// How much of the replay filter's present generation is in use.
    #[must_use]
    pub fn replay_fill(&self) -> f64 {
        self.replay.fill()
    }

    /// The relay's onion key.
    #[must_use]
    pub fn onion(&self) -> Arc<OnionSecret> {
        Arc::clone(&self.onion)
    }

    /// Adds neighbours until there are `n`, each with a session that has seen no handshake but is
    /// otherwise as any. Returns how much the relay's memory grew by.
    ///
    /// # Errors
    /// None that happen.
    pub fn add_neighbours(&mut self, n: usize) -> Result<u64> {
        let rng = &mut OsRandom::new();
        let first = self.neighbours.len();
        let mut opening = Vec::new();
        for number in first..n {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            let (seal, open) = without_handshake(&key, index(0, number, rng.next_u32()));
            opening.push(open);
            self.neighbours.push(seal);
        }
        let before = resident();
        for (neighbour, open) in (u32::try_from(first)?..).zip(opening.drain(..)) {
            self.pipeline.apply(Command::Session {
                open: Arc::new(open),
                neighbour,
                usage: NeighbourUsage::default(),
                source: self.address,
            });
        }
        Ok(resident().saturating_sub(before))
    }

    /// Makes the relay know a path, in the way that it learns each: from a datagram whose
    /// header is opened on the slow path, which `known` is the answer of.
    ///
    /// # Errors
    /// If the pipeline does something else.
    pub fn learn(&mut self, path: Path) -> Result<()> {
        let now = Instant::now();
        let known = self.pipeline.known().1;
        self.fill(0, 0, &path.header)?;
        let mut batch = Batch::new();
        batch.push(&mut self.datagrams[0], self.address);
        self.pipeline.process(&mut batch, now);
        let job = self.jobs.try_recv().context("no header to be opened")?;
        ensure!(*job.header == path.header, "another header to be opened");
        let opened = Opened {
            header: job.header,
            path: Some((path.known, KEY)),
        };
        self.pipeline.take_opened(opened, now);
        let mut sent = 0;
        self.pipeline
            .process_again(now, |batch| sent = batch.order.len());
        ensure!(sent == 1, "the first datagram of a path was not sent");
        ensure!(
            self.pipeline.known().1 == known + 1,
            "the path is not known"
        );
        Ok(())
    }

    /// Processes [`PER_ROUND`] datagrams in batches; `header` says of which path each is.
    /// Returns the nanoseconds for one, sealing by the neighbour not included.
    ///
    /// # Errors
    /// If one of them was not sent on.
    pub fn round<'a>(&mut self, header: impl FnMut() -> &'a Header) -> Result<f64> {
        self.round_from(|| 0, header)
    }

    /// The same; `neighbour` says from whom each is, by number.
    ///
    /// # Errors
    /// If one of them was not sent on.
    pub fn round_from<'a>(
        &mut self,
        mut neighbour: impl FnMut() -> usize,
        mut header: impl FnMut() -> &'a Header,
    ) -> Result<f64> {
        for at in 0..self.datagrams.len() {
            self.fill(at, neighbour(), header())?;
        }
        let mut took = Duration::ZERO;
        let mut sent = 0;
        for datagrams in self.datagrams.chunks_mut(BATCH) {
            let began = Instant::now();
            let mut batch = Batch::new();
            for datagram in datagrams {
                batch.push(datagram, self.address);
            }
            self.pipeline.process(&mut batch, began);
            took += began.elapsed();
            sent += batch.to_send().count();
        }
        // A Bloom filter takes a new message for an old one once in 10,000 times or less.
        ensure!(
            sent + 4 >= PER_ROUND,
            "{sent} of {PER_ROUND} datagrams were sent on"
        );
        Ok(nanoseconds(took) / PER_ROUND as f64)
    }

    fn fill(&mut self, at: usize, neighbour: usize, header: &Header) -> Result<()> {
        let datagram = &mut self.datagrams[at];
        self.message += 1;
        datagram[CELL_OFFSET..CELL_OFFSET + PATH_HEADER].copy_from_slice(header);
        datagram[CELL_OFFSET + PATH_HEADER..][..8].copy_from_slice(&self.message.to_be_bytes());
        self.neighbours[neighbour].seal(datagram, CellKind::Cell)?;
        Ok(())
    }
}

/// Touches all memory of the filter, as that of a relay is that has run for a while.
fn remember_some(replay: &ReplayFilter) {
    for tag in 0..200_000_u128 {
        let _ = replay.check_and_set(&tag.to_be_bytes());
    }
}

/// The header of a new path whose first relay has this onion key, and whose next one is
/// the testbed's next relay.
///
/// # Errors
/// None that happen.
pub fn header(onion: &OnionSecret) -> Result<Header> {
    let hop = Hop {
        relay: ShortId([0; 8]),
        onion: onion.public(),
    };
    header_over(&hop, NEXT_RELAY)
}

/// The header of a new path over one hop, whose next relay is `next`.
///
/// # Errors
/// None that happen.
pub fn header_over(hop: &Hop, next: ShortId) -> Result<Header> {
    let rng = &mut OsRandom::new();
    let mut tail = PublishedTail {
        first: next,
        alpha: [0; 32],
        gamma: [0; 16],
        beta: [0; 100],
        seed: [0; 16],
    };
    rng.fill_bytes(&mut tail.alpha);
    rng.fill_bytes(&mut tail.gamma);
    rng.fill_bytes(&mut tail.beta);
    rng.fill_bytes(&mut tail.seed);
    let head = build_head(&HeadSecrets::random(rng), std::slice::from_ref(hop), &tail)?;
    Ok(*head.header())
}

/// A new path through the relay with this onion key.
///
/// # Errors
/// None that happen.
pub fn path(onion: &OnionSecret) -> Result<Path> {
    let header = header(onion)?;
    let known = open_header(onion, &header)?;
    Ok(Path { header, known })
}

/// A link session: the initiator's side and that of who answers, who calls it `index`.
///
/// # Errors
/// None that happen.
pub fn handshake(index: u32) -> Result<(Established, Established)> {
    let rng = &mut OsRandom::new();
    let (ours, theirs) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
    let at = Timestamp::from(SystemTime::now());
    let (mut initiator, initiation) = Initiator::start(&ours, &theirs.public(), 1, at, None, rng)?;
    let mut responder = Responder::new(&theirs, Instant::now(), rng);
    let (answered, response) = responder.respond(&initiation, index, rng)?;
    Ok((initiator.finish(&response)?, answered))
}

/// A duration as a number.
#[must_use]
pub fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
