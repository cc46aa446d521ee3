//! What can be wrong with bytes from outside.

/// The result of reading or making protocol bytes.
pub type Result<T> = std::result::Result<T, Error>;

/// Why bytes were refused. No variant carries secret or attacker-sized data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer or more bytes than the format says.
    #[error("{what}: {got} bytes where {expected} were expected")]
    Length {
        /// The thing that was read.
        what: &'static str,
        /// How many bytes the format asks for.
        expected: usize,
        /// How many there were.
        got: usize,
    },
    /// A field holds a value that the format does not allow.
    #[error("{what}: malformed")]
    Malformed {
        /// The thing that was read.
        what: &'static str,
    },
    /// A signature, MAC or AEAD tag does not verify.
    #[error("{what}: does not authenticate")]
    Authentication {
        /// The thing that was checked.
        what: &'static str,
    },
    /// An X25519 point of low order: the shared secret would be zero (RFC 7748, section 6.1).
    #[error("low-order X25519 point")]
    LowOrder,
    /// A path header authenticates, and yet its command is none of ours.
    #[error("unknown path command {0}")]
    UnknownCommand(u8),
    /// A message is one of ours, but its kind is none.
    #[error("unknown kind of message {0}")]
    UnknownKind(u8),
    /// A record's life is over.
    #[error("{what}: expired at unix time {at}")]
    Expired {
        /// The record.
        what: &'static str,
        /// Unix time, seconds.
        at: u64,
    },
    /// A record's life has not begun: most likely a clock is wrong.
    #[error("{what}: not valid before unix time {from}")]
    NotYetValid {
        /// The record.
        what: &'static str,
        /// Unix time, seconds.
        from: u64,
    },
    /// Signed by another version of the network's roster than the one that counts.
    #[error("signed by version {said} of the roster; version {held} counts")]
    Roster {
        /// The version that counts.
        held: u32,
        /// The version that has signed.
        said: u32,
    },
    /// A version that this implementation does not speak.
    #[error("{what}: unknown version")]
    Version {
        /// The thing that was read.
        what: &'static str,
    },
    /// A documented bound would be passed.
    #[error("{what}: over the limit")]
    Limit {
        /// What is bounded.
        what: &'static str,
    },
    /// Seen before, or too old to tell.
    #[error("replayed")]
    Replay,
}
