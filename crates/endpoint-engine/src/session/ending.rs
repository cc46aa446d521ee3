//! Why a session ends, and what is said of it.

use std::fmt;

use mixline_protocol::session::close;

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing went over it for long, or its place is needed.
    Idle,
    /// The peer has said so.
    ClosedByPeer,
    /// The peer does not answer.
    Unreachable(&'static str),
    /// The peer is not on the list of clients any more.
    NotAuthorised,
    /// This endpoint stops, or takes another ID.
    Stopping,
}

impl Ending {
    /// The reason that the peer is told; none if it knows, or cannot be told.
    #[must_use]
    pub fn told(&self) -> Option<u8> {
        match self {
            Self::Idle => Some(close::IDLE),
            Self::Stopping => Some(close::STOPPING),
            Self::NotAuthorised => Some(close::REFUSED),
            Self::ClosedByPeer | Self::Unreachable(_) => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::ClosedByPeer => "closed by the peer",
            Self::Unreachable(why) => why,
            Self::NotAuthorised => "the peer is not on the list of clients",
            Self::Stopping => "this endpoint stops",
        })
    }
}
