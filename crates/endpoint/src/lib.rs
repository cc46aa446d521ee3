//! The anonymous communication stack: guards, path selection, tails, sessions, failover,
//! directory queries.
//!
//! [`Endpoint::start`] runs it: application packets come from and go to a [`PacketDevice`],
//! messages to a [`MessageService`]; the [`Handle`] asks the directory and shows the
//! [`Status`]. The heart is [`mixline_endpoint_engine`], which does no I/O: time, randomness,
//! datagrams and packets go in; datagrams, packets and events come out.

mod clock;
mod config;
pub mod device;
mod diagnosis;
mod directory_queries;
mod driver;
mod error;
pub mod guard_probes;
mod handle;
mod requests;
mod service;
mod sockets;
mod state;
mod ways;

pub use mixline_endpoint_engine::status;

pub use config::Config;
pub use device::{NoDevice, PacketBatch, PacketDevice};
pub use directory_queries::DirectoryQueries;
pub use driver::Endpoint;
pub use error::{Error, Result};
pub use guard_probes::{
    AddressProbe, GuardProbe, GuardsProbed, Nat, NatKind, ProbeOptions, probe_guards,
};
pub use handle::Handle;
pub use mixline_endpoint_engine::access::Access;
pub use mixline_endpoint_engine::command::{MAX_MEASUREMENTS, NamedService, PING_INTERVAL};
pub use mixline_endpoint_engine::{
    AddressRange, Config as EngineConfig, ConfigError, Event, GuardTarget, Identity,
    MAX_DUPLICATES, MAX_QUERIES, PathPolicy, PolicyRule, QueryError, Status,
};
pub use service::MessageService;
