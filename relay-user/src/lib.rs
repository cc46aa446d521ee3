//! The Mixline relay: a constant-length mix of links and paths.
//!
//! From the outside in:
//!
//! - [`config`], [`mod@run`], [`status`], [`metrics`], [`doctor`]: the daemon;
//! - [`control`]: link handshakes, the directory, onion keys; on one thread, in tokio;
//! - [`worker`]: a thread for each core that forwards, each with a [`port`] and a
//!   [`pipeline`] of its own;
//! - [`slow_path`], [`workers::slow_path`]: how the headers of new paths are opened;
//! - [`queues`], [`messages`], [`wake`]: what is between all these.
//!
//! What happens to a datagram of a known path is in [`pipeline`], and nowhere else.

pub mod batch;
pub mod config;
pub mod control;
pub mod doctor;
pub mod headers;
pub mod links;
pub mod messages;
pub mod metrics;
pub mod onion_keys;
pub mod pipeline;
pub mod pool;
pub mod port;
pub mod port_kind;
pub mod queues;
pub mod run;
pub mod sessions;
pub mod share;
pub mod slow_path;
pub mod state_dir;
pub mod status;
pub mod threads;
pub mod verdict;
pub mod wake;
pub mod worker;
pub mod workers;

pub use config::Config;
pub use run::run;
