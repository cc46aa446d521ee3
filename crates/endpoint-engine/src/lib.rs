//! The anonymous communication stack without I/O.

pub mod clock;
pub mod command;
pub mod config;
pub mod directory;
pub mod engine;
pub mod error;
pub mod guard_links;
pub mod outbox;
pub mod packets;
pub mod policy;
pub mod relays;
pub mod session;
pub mod slab;
pub mod status;
pub mod tails;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token_bucket;

pub use config::{Config, Identity};
pub use directory::pending::MAX_QUERIES;
pub use error::{ConfigError, QueryError};
pub use packets::batch::PacketBatch;
pub use policy::{AddressRange, MAX_DUPLICATES, PathPolicy, PolicyRule};
pub use status::{Event, Status};
