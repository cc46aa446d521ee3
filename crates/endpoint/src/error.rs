//! What can go wrong when an endpoint starts.

use std::path::PathBuf;

/// The result of starting an endpoint.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an endpoint does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number in the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] mixline_endpoint_engine::ConfigError),
    /// The state directory, or a file in it, cannot be used.
    #[error("state {path}: {source}")]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file in the state directory does not hold what it should.
    #[error("state {path}: {reason}; remove the file to start afresh")]
    StateContent {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: mixline_endpoint_engine::GuardsError,
    },
    /// Neither an IPv4 nor an IPv6 socket can be made.
    #[error("no UDP socket: {0}")]
    Socket(std::io::Error),
    /// The thread or its runtime cannot be started.
    #[error("cannot start the endpoint's thread: {0}")]
    Thread(std::io::Error),
    /// The device failed.
    #[error("packet device: {0}")]
    Device(std::io::Error),
    /// The protocol refused something of our own making.
    #[error(transparent)]
    Protocol(#[from] mixline_protocol::Error),
}
