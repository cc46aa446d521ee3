//! What can go wrong with a question to the kernel.

use std::io;

use netlink_packet_core::DecodeError;

/// The result of asking the kernel.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket could not be made, written or read.
    #[error("netlink socket: {0}")]
    Socket(io::Error),
    /// The kernel has refused the question: there is no such thing, or no privilege for it.
    #[error("the kernel says: {0}")]
    Refused(io::Error),
    /// A message of the kernel does not parse.
    #[error("netlink message: {0}")]
    Malformed(DecodeError),
    /// The kernel's answer lacks what was asked for.
    #[error("netlink: no {0} in the answer")]
    Missing(&'static str),
}

impl From<Error> for io::Error {
    /// The kernel's own error where there is one.
    fn from(error: Error) -> Self {
        match error {
            Error::Socket(error) | Error::Refused(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}
