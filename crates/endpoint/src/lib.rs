//! The anonymous communication stack: guards, path selection, tails, sessions, failover,
//! directory queries.
//!
//! [`Endpoint::start`] runs it: application packets come from and go to a [`PacketDevice`],
//! messages to a [`MessageService`]; the [`Handle`] asks the directory and shows the
//! [`Status`]. The heart is the [`engine`], which does no I/O: time, randomness, datagrams and
//! packets go in; datagrams, packets and events come out.

pub mod config;
pub mod device;
pub mod directory_queries;
mod driver;
pub mod engine;
pub mod error;
pub mod handle;
pub mod policy;
pub mod service;
mod sockets;
mod state;
pub mod status;

pub use config::{Config, Identity};
pub use device::{NoDevice, PacketBatch, PacketDevice};
pub use directory_queries::{DirectoryQueries, NamedService};
pub use engine::queries::MAX_QUERIES;
pub use error::{Error, QueryError};
pub use handle::{Endpoint, Handle};
pub use policy::{AddressRange, MAX_DUPLICATES, PathPolicy, PolicyRule};
pub use service::MessageService;
pub use status::{Event, Status};

/// The result of starting an endpoint.
pub type Result<T> = std::result::Result<T, Error>;
