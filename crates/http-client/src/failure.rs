//! Why there is no answer.

use std::error::Error as StdError;
use std::io;

use tokio::time::error::Elapsed;

/// Why there is no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no connection, for this reason: one line. The server has not had the request.
    #[error("{0}")]
    Unsent(String),
    /// It took too long.
    #[error("{}", IN_TIME)]
    Timeout,
    /// The network, or the other end, does not do what it should: one line.
    #[error("{0}")]
    Network(String),
    /// The body is longer than this, in bytes.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

const IN_TIME: &str = "no answer in time";

impl Failure {
    /// Whether it is certain that the server has not had the request.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Unsent(_))
    }

    /// The same, of a request that has not left.
    pub(crate) fn before_sending(self) -> Self {
        Self::Unsent(self.to_string())
    }
}

/// The innermost cause: `Connection refused`, rather than that a request failed.
pub(crate) fn failure(error: &(dyn StdError + 'static)) -> Failure {
    let mut cause = error;
    loop {
        let system = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if cause.is::<Elapsed>() || system == Some(io::ErrorKind::TimedOut) {
            return Failure::Timeout;
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return Failure::Network(one_line(&cause.to_string())),
        }
    }
}

/// Words from outside, fit for a log: one line of at most 200 printable characters.
#[must_use]
pub fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim().chars().take(200).collect()
}
