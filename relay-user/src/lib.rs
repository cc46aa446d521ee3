//! The daemon of a Mixline relay: a constant-length mix of links and paths.
//!
//! What happens to a datagram is in [`mixline_relay_engine`], and nowhere else. Here is what
//! brings it there and takes it away:
//!
//! - `config`, `reload`, `run`, `drain`, `state_dir`, `erasable`, `onion_keys`: the daemon and what it keeps;
//! - `port`: how datagrams get in and out;
//! - `workers`: a thread for each core that forwards, and those that open the headers of
//!   new paths;
//! - `control`: link handshakes, the directory, onion keys; on one thread, in tokio;
//! - [`observe`]: `status` and metrics; `service`: what the service manager hears;
//! - [`top`]: what `status` says, live in the terminal;
//! - [`doctor`]: whether a machine carries a relay.
//!
//! Public is what starts a relay and what asks one how it is doing. What only tests look into is
//! in `testing`, behind a feature.

mod believed_time;
mod bytes;
mod config;
mod control;
mod default_route;
pub mod doctor;
mod drain;
mod durable;
mod erasable;
mod given_up;
pub mod init;
pub mod observe;
mod onion_keys;
mod port;
mod reload;
mod run;
mod service;
mod standing;
mod state_dir;
#[cfg(feature = "testing")]
pub mod testing;
pub mod top;
mod volume;
mod workers;

pub use bytes::{Bytes, NoBytes};
pub use config::{Config, ConfigError, PortKind, Workers, XdpSend};
pub use port::{InterfaceError, OpenError, XdpError};
pub use run::{RunError, run};
pub use state_dir::StateError;
