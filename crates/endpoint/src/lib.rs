//! The anonymous communication stack: guards, path selection, tails, sessions, failover,
//! directory queries.
//!
//! [`Endpoint::start`] runs it: application packets come from and go to a [`PacketDevice`],
//! messages to a [`MessageService`]; the [`Handle`] asks the directory and shows the
//! [`Status`]. The heart is [`mixline_endpoint_engine`], which does no I/O: time, randomness,
//! datagrams and packets go in; datagrams, packets and events come out.

mod clock;
pub mod device;
pub mod directory_queries;
mod driver;
pub mod error;
pub mod handle;
mod requests;
pub mod service;
mod sockets;
mod state;

pub use mixline_endpoint_engine::{config, policy, status};

pub use device::{NoDevice, PacketBatch, PacketDevice};
pub use directory_queries::DirectoryQueries;
pub use error::Error;
pub use handle::{Endpoint, Handle};
pub use mixline_endpoint_engine::command::NamedService;
pub use mixline_endpoint_engine::{
    AddressRange, Config, Event, Identity, MAX_DUPLICATES, MAX_QUERIES, PathPolicy, PolicyRule,
    QueryError, Status,
};
pub use service::MessageService;

/// The result of starting an endpoint.
pub type Result<T> = std::result::Result<T, Error>;
