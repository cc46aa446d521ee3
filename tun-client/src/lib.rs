//! The Mixline client: it gives applications a network interface, `.anon` names and a
//! command line, and leaves anonymity to the endpoint beneath.

pub mod cli;
mod config;
pub mod control;
pub mod daemon;
pub mod detach;
mod dns;
pub mod doctor;
mod error;
pub mod host;
pub mod host_dns;
pub mod join;
pub mod ping;
pub mod progress;
pub mod qr;
pub mod show;
pub mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod tun;

pub use config::{Config, ConfigError, ConfigProblem, DEFAULT_PATH, Lock, default_state_dir};
pub use error::{ContentProblem, ControlProblem, Error, Result};
