//! The Mixline client: it gives applications a network interface, `.anon` names and a
//! command line, and leaves anonymity to the endpoint beneath.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod detach;
pub mod dns;
pub mod error;
pub mod host_dns;
pub mod net;
pub mod progress;
pub mod show;
pub mod state;
pub mod tun;

pub use config::Config;
pub use error::{Error, Result};
