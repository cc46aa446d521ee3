//! What can go wrong when an endpoint starts, and when a question is asked.

use std::path::PathBuf;

/// Why an endpoint does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number in the configuration is out of its range.
    #[error("configuration: {key} is {got}, but has to be {allowed}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it says.
        got: usize,
        /// What it may say.
        allowed: &'static str,
    },
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
        reason: String,
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

/// Why a question to the directory has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No answer before the deadline. Says what the last obstacle was.
    #[error("the directory did not answer: {0}")]
    Timeout(String),
    /// The directory says no, and why.
    #[error("the directory refused: {0}")]
    Refused(String),
    /// The answer does not verify, or answers something else.
    #[error("the directory's answer is not valid: {0}")]
    Invalid(String),
    /// More questions under way than [`crate::MAX_QUERIES`].
    #[error("too many questions to the directory at once")]
    Busy,
    /// The endpoint has stopped.
    #[error("the endpoint has stopped")]
    Stopped,
}
