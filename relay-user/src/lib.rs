//! The daemon of a Mixline relay: a constant-length mix of links and paths.
//!
//! What happens to a datagram is in [`mixline_relay_engine`], and nowhere else. Here is what
//! brings it there and takes it away:
//!
//! - [`config`], [`mod@run`], [`state_dir`], [`onion_keys`]: the daemon and what it keeps;
//! - [`port`]: how datagrams get in and out;
//! - [`workers`]: a thread for each core that forwards, and those that open the headers of
//!   new paths;
//! - [`control`]: link handshakes, the directory, onion keys; on one thread, in tokio;
//! - [`observe`]: `status` and metrics;
//! - [`doctor`]: whether a machine carries a relay.

pub mod config;
pub mod control;
pub mod doctor;
pub mod observe;
pub mod onion_keys;
pub mod port;
pub mod run;
pub mod state_dir;
pub mod workers;

pub use config::Config;
pub use run::run;
