//! What can stop the daemon, or a request, through no fault of who asks.

use std::path::PathBuf;

/// The result of the daemon's parts.
pub type Result<T> = std::result::Result<T, Error>;

/// Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not usable.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with key and line if it is one key.
        reason: String,
    },
    /// The state directory, or a file in it, is not usable.
    #[error("{}: {reason}", path.display())]
    State {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another daemon works on the same state.
    #[error(
        "{}: in use by another mixline-directory; stop that one, or give this one a state_dir \
         of its own",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The store does not work.
    #[error("store: {0}")]
    Store(String),
    /// The address to listen at cannot be had.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        reason: String,
    },
    /// A snapshot could not be made.
    #[error("snapshot: {0}")]
    Snapshot(#[source] mixline_protocol::Error),
}
