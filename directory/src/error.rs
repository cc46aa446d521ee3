//! What can stop the daemon, or a request, through no fault of the asker.

use std::path::PathBuf;

/// The result of the daemon's parts.
pub type Result<T> = std::result::Result<T, Error>;

/// Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not usable.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ConfigProblem,
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
    /// The store is away for the moment, or takes nothing more; it is tried again with every request.
    #[error("store: {0}")]
    Unavailable(String),
    /// A change may have been made, or not, or may yet be.
    #[error("store: whether a change was made is not known: {0}")]
    Unknown(String),
    /// The store holds what is being moved, or was moved, to another.
    #[error("{store}: {reason}")]
    Condition {
        /// Which store.
        store: String,
        /// What is the matter, and what to do.
        reason: String,
    },
    /// Records were not moved.
    #[error("not migrated: {0}")]
    Migration(String),
    /// The address to listen at cannot be had.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        reason: String,
    },
    /// The directory was not started from a file.
    #[error("this directory was not started from a file")]
    NoFile,
    /// What is logged cannot be changed.
    #[error(transparent)]
    Log(mixline_daemon::logging::LoggingError),
    /// A snapshot could not be made.
    #[error("snapshot: {0}")]
    Snapshot(#[source] mixline_protocol::Error),
    /// The roster, or this directory's place in it, is not what it should be.
    #[error("roster: {0}")]
    Roster(String),
}

/// What is wrong with a configuration: one line that names the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(std::io::Error),
    /// The file is not as documented.
    #[error("{0}")]
    Form(
        /// What the parser says, with key and line.
        String,
    ),
    /// A number is not within its bounds.
    #[error("{key} is {value}; it must be {low} to {high}")]
    Range {
        /// The key.
        key: &'static str,
        /// As configured.
        value: u64,
        /// The least that it may be.
        low: u64,
        /// The most that it may be.
        high: u64,
    },
    /// The network of virtual addresses is none.
    #[error("network `{network}`: {error}; it looks like 10.0.0.0/8, with a length of 8 to 22")]
    Network {
        /// As configured.
        network: String,
        /// Why it is none.
        error: mixline_protocol::Error,
    },
    /// The store cannot be where it is said to be.
    #[error("store.etcd: {0}")]
    Etcd(
        /// What is wrong, with the key.
        String,
    ),
    /// A value of the private part cannot be.
    #[error("endpoint: {0}")]
    Endpoint(
        /// What the endpoint says, with the key.
        String,
    ),
}
