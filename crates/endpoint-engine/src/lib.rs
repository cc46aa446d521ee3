//! The anonymous communication stack without I/O: guards, path selection, tails, sessions,
//! failover, directory requests.
//!
//! An [`engine::Engine`] is one endpoint. Time, randomness, datagrams, packets and commands go in;
//! datagrams, packets, answers and events come out of the queues that it owns. Nothing here reads
//! a clock or has a socket, so whole networks of engines and relays run in one thread of a test:
//!
//! ```
//! use mixline_endpoint_engine::testing::{World, udp};
//! use std::time::Duration;
//!
//! // A network in memory: eight relays, the directory (node 0), a service (1), a client (2).
//! let mut world = World::pair(7);
//! let (client, service) = (world.ipv4(2), world.ipv4(1));
//!
//! // An application of the client sends a packet to the service's virtual address. The client's
//! // engine asks the directory whose it is, opens a session through six relays, and sends it.
//! let packet = udp(client, service, (4000, 53), b"hello");
//! world.send(2, &[packet.clone()]);
//! world.run(Duration::from_secs(3));
//!
//! // It comes out at the service as it was.
//! assert_eq!(world.take(1), [packet]);
//! ```
//!
//! `crates/endpoint` is the driver that gives an engine sockets, a device, a clock and a disk.
//!
//! State stands below, steps above. What one session, the own tails or the links to the guards
//! are is in `session/`, `tails/` and `guard_links/`, which know nothing of the engine; what
//! happens to them, and in which order, is in [`engine`], a step to a file. The driver sees the
//! engine and what crosses its border; the rest is private, and what tests look into is in
//! `testing::internals`.
//!
//! | module | has |
//! |---|---|
//! | [`engine`] | the steps: packets out, datagrams in, handshakes, liveness, publication, requests to the directory |
//! | [`command`], [`messages`], [`status`] | what the outside asks, what peers ask the service, and what the outside is told |
//! | [`config`], [`policy`], [`clock`], [`outbox`] | settings, the time as it is passed in, datagrams on their way out |
//! | `session` | one session with one peer: keys, paths, flows, lanes of cells |
//! | `tails` | the own tails and the mailboxes at their guards |
//! | `guard_links` | the links to the guards |
//! | `directory` | descriptors, questions under way, the throw-away IDs that ask them, the own publication |
//! | `relays` | the snapshot's relays: which to choose, which to blame, which are guards |
//! | `packets` | IP headers, ICMP errors, batches, packets that wait |
//! | `effort` | what strangers have to spend on initiations, and who of them is served first |
//! | [`access`] | who may open sessions, and what services with a list of clients are shown |
//! | `limits` | how much others may make this endpoint do |

pub mod access;
pub mod clock;
pub mod command;
pub mod config;
mod directory;
mod effort;
pub mod engine;
pub mod error;
mod guard_links;
mod keys;
mod limits;
pub mod messages;
pub mod outbox;
mod packets;
pub mod policy;
mod random;
mod relays;
mod session;
pub mod status;
mod tails;
#[cfg(feature = "testing")]
pub mod testing;
mod token_bucket;

pub use config::{Config, Identity};
pub use directory::own_versions::{OwnVersions, OwnVersionsError};
pub use directory::pending::{MAX_QUERIES, QUERY_DEADLINE};
pub use effort::searches::SearchTask;
pub use error::{ConfigError, QueryError};
pub use guard_links::{Families, GuardTarget, PathFinding};
pub use keys::SessionKey;
pub use packets::batch::{BATCH_BYTES, BATCH_PACKETS, MAX_PACKET, PacketBatch};
pub use policy::{AddressRange, MAX_DUPLICATES, PathPolicy, PolicyRule};
pub use relays::guards::{Guards, GuardsError};
pub use status::{Event, Status};
