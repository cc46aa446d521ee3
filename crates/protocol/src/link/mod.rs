//! The link between two neighbours: stub docs.

pub mod control;
mod cookie;
mod handshake;
pub mod peer;
pub mod timers;
mod transport;
mod window;

pub use cookie::{Admission, Cookie, LoadMeter, SourceLimiter};
pub use handshake::{Established, Incoming, Initiator, Responder, Timestamp};
pub use timers::*;
pub use transport::{CellKind, MAX_COUNTER, OpenKey, REKEY_AFTER_DATAGRAMS, SealKey};
pub use window::{SlidingWindow, Window};

use crate::Result;
use crate::identity::{X25519Public, X25519Secret};
use crate::size::Datagram;

/// A neighbour's static secret.
pub type LinkSecret = X25519Secret;
/// A neighbour's static public key.
pub type LinkPublic = X25519Public;

/// What a datagram is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramType {
    /// First message of a handshake.
    Initiation,
    /// Second message of a handshake.
    Response,
    /// Sent instead of a response by a responder under load.
    Cookie,
    /// Sealed transport data.
    Data,
}

/// The type of a datagram; checks the length and the three zero bytes.
///
/// # Errors
/// `Length`, `Malformed`.
pub fn datagram_type(_bytes: &[u8]) -> Result<DatagramType> {
    todo!()
}

/// The receiver index in the header.
#[must_use]
pub fn receiver_index(_datagram: &Datagram) -> u32 {
    todo!()
}

/// The counter in the header.
#[must_use]
pub fn counter(_datagram: &Datagram) -> u64 {
    todo!()
}
