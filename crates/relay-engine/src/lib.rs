//! What a Mixline relay does with datagrams, without sockets, threads or a clock.
//!
//! - [`pipeline`]: what happens to a batch of datagrams, a stage to a file;
//! - [`batch`], [`headers`], [`outcome`]: datagrams in place, and what becomes of each;
//! - [`link_sessions`], [`next_hops`]: what a worker knows of its neighbours;
//! - [`quota`]: the bounds on what one neighbour may have held;
//! - [`queues`], [`messages`], [`wake`]: what is between workers, control plane and slow path;
//! - [`slow_path`]: how the headers of new paths are opened;
//! - [`port_kind`]: how datagrams get in and out.
//!
//! These are public for a relay that is built around them. What only tests look into, the bounds
//! and what is held within them, is in `testing`, behind a feature.
//!
//! Bytes, time and randomness go in; bytes, addresses and counts come out. A driver owns the
//! sockets and the threads: it fills a [`Batch`](batch::Batch), calls
//! [`Pipeline::process`](pipeline::Pipeline::process), and sends what the batch then says. What
//! waits for another thread stands in a queue, and [`Wake`](wake::Wake) tells that thread.
//!
//! # A batch through a pipeline
//!
//! One relay between a neighbour that sends and a client that receives. The first cell of a path
//! waits until its header is opened; those that come after it go through at once.
//!
//! ```
//! # use std::net::SocketAddr;
//! # use std::sync::Arc;
//! # use std::time::{Instant, SystemTime};
//! # use mixline_protocol::identity::{ShortId, X25519Secret};
//! # use mixline_protocol::link::{CellKind, Established, Initiator, Responder, Timestamp};
//! # use mixline_protocol::path::{HeadSecrets, Hop, MailboxToken, OnionSecret, TailSecrets};
//! # use mixline_protocol::path::{build_head, build_tail};
//! # use mixline_protocol::random::OsRandom;
//! # use mixline_protocol::replay::ReplayFilter;
//! # use mixline_protocol::size::{DATAGRAM, PATH_HEADER};
//! use mixline_relay_engine::batch::Batch;
//! use mixline_relay_engine::headers::cell_of;
//! use mixline_relay_engine::link_sessions::index;
//! use mixline_relay_engine::messages::Command;
//! use mixline_relay_engine::next_hops::Link;
//! use mixline_relay_engine::outcome::Outcome;
//! use mixline_relay_engine::pipeline::{Common, Honest, Pipeline, Setup};
//! use mixline_relay_engine::slow_path::{Opened, open};
//! use mixline_relay_engine::wake::NeverSleeps;
//! # /// A link session: the end that began it, and the end that calls it `index`.
//! # fn link_session(index: u32) -> mixline_protocol::Result<(Established, Established)> {
//! #     let rng = &mut OsRandom::new();
//! #     let (ours, theirs) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
//! #     let at = Timestamp::from(SystemTime::now());
//! #     let (mut one, message) = Initiator::start(&ours, &theirs.public(), 1, at, None, rng)?;
//! #     let mut other = Responder::new(&theirs, Instant::now(), rng);
//! #     let (answered, response) = other.respond(&message, index, rng)?;
//! #     Ok((one.finish(&response)?, answered))
//! # }
//! # fn main() -> mixline_protocol::Result<()> {
//! # let (now, mut rng) = (Instant::now(), OsRandom::new());
//! # let (sender, client): (SocketAddr, SocketAddr) =
//! #     (([192, 0, 2, 1], 7000).into(), ([192, 0, 2, 2], 7000).into());
//!
//! // A relay with one worker.
//! let own = ShortId(*b"thisone!");
//! let replay = Arc::new(ReplayFilter::new(1 << 20, [1; 16], now)?);
//! let assembly = Common::assemble(own, replay, 1, false, Arc::new(NeverSleeps));
//! let setup = Setup { worker: 0, paths: 100, mean_delay: None, behaviour: Honest };
//! let mut pipeline = Pipeline::new(assembly.common, setup, &mut rng);
//!
//! // Neighbour 0 sends to it, neighbour 1 has a mailbox at it.
//! let (from, session) = link_session(index(0, 0, 9))?;
//! pipeline.apply(Command::Session {
//!     open: Arc::new(session.open),
//!     neighbour: 0,
//!     usage: Default::default(),
//!     source: sender,
//! });
//! let (link, to) = link_session(2)?;
//! let mailbox = MailboxToken([7; 8]);
//! pipeline.apply(Command::Link(1, Some(Link { seal: Arc::new(link.seal), to: client })));
//! pipeline.apply(Command::Mailboxes([mailbox].into(), Some(1)));
//!
//! // A path whose head and whose tail is this relay, and two cells of it.
//! let onion = Arc::new(OnionSecret::generate(&mut rng));
//! let hop = [Hop { relay: own, onion: onion.public() }];
//! let (published, tail) = build_tail(&TailSecrets::random(&mut rng), &hop, mailbox)?;
//! let head = build_head(&HeadSecrets::random(&mut rng), &hop, &published)?;
//! let mut datagrams = Vec::new();
//! for message in [1, 2] {
//!     let mut payload = [message; 1072];
//!     head.wrap(&mut payload);
//!     let mut datagram = [0; DATAGRAM];
//!     let cell = cell_of(&mut datagram);
//!     cell[..PATH_HEADER].copy_from_slice(head.header());
//!     cell[PATH_HEADER..].copy_from_slice(&payload);
//!     from.seal.seal(&mut datagram, CellKind::Cell)?;
//!     datagrams.push(datagram);
//! }
//!
//! let mut batch = Batch::new();
//! for datagram in &mut datagrams {
//!     batch.push(datagram, sender);
//! }
//! pipeline.process(&mut batch, now);
//! assert_eq!(batch.to_send().count(), 0);
//!
//! // The slow path, which is a thread of its own in a relay, opens the headers.
//! let keyring = vec![(1, onion)];
//! let mut sent = Vec::new();
//! while let Ok(job) = assembly.jobs.try_recv() {
//!     let path = open(&keyring, &job.header);
//!     pipeline.take_opened(Opened { header: job.header, path }, now);
//!     pipeline.process_again(now, |batch| {
//!         sent.extend(batch.to_send().map(|(datagram, to)| (*datagram, to)));
//!     });
//! }
//! assert_eq!(pipeline.counters().of(Outcome::Delivered), 2);
//! for (mut datagram, address) in sent {
//!     assert_eq!(address, client);
//!     to.open.open(&mut datagram)?;
//!     let mut payload = [0; 1072];
//!     payload.copy_from_slice(&cell_of(&mut datagram)[PATH_HEADER..]);
//!     tail.unwrap(&mut payload);
//!     assert!([[1; 1072], [2; 1072]].contains(&payload));
//! }
//! # Ok(())
//! # }
//! ```

pub mod allowance;
pub mod batch;
mod buffer_pool;
pub mod headers;

mod limits;
pub mod link_sessions;
pub mod messages;
pub mod next_hops;
pub mod outcome;
pub mod pipeline;
pub mod port_kind;
pub mod queues;
pub mod quota;
pub mod room;
pub mod slow_path;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wake;
