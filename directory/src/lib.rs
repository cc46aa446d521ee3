//! The Mixline service directory.
//!
//! It holds four kinds of signed record (relays, services, names, leases of virtual
//! addresses) and signs *snapshots* of the network. Its public part is HTTP (`http`):
//! the snapshot, registration of relays, a page for people. Its private part
//! (`query_service`) answers over sessions that come through the relays: the directory is an
//! endpoint of the network that it describes, and does not learn who asks.
//!
//! `registry` decides, `store` keeps, `rounds` makes snapshots, alone or with other directories, `board` hands them out, `reload` changes what they do; the rest is
//! the daemon.

mod board;
pub mod cli;
mod config;
pub mod control;
pub mod daemon;
mod endpoint;
mod error;
mod http;
pub mod keys;
mod limit;
pub mod link;
mod metrics;
pub mod migrate;
mod query_service;
mod registry;
mod reload;
pub mod roster_file;
mod rounds;
mod service;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::Config;
pub use error::{ConfigProblem, Error, Result};
pub use rounds::several::Membership;
