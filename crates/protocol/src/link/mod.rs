//! The link between two neighbours: relay and relay, or client and relay.
//!
//! After the manner of WireGuard, with constant length and a key exchange that a later
//! quantum computer does not open. Every datagram has [`DATAGRAM`] bytes and begins with
//!
//! ```text
//! header 16 = type 1 | zero 3 | receiver index 4 | counter 8
//! ```
//!
//! Integers are big-endian. The receiver index is what the receiver called the session (in
//! an initiation, where there is none yet, what the *sender* calls it). The counter is zero
//! outside of data.
//!
//! ```text
//! 1 initiation  header | e 32 | s 48 | sealed 1212 | zero 68 | mac1 16 | mac2 16
//! 2 response    header | e 32 | sealed 1108 | zero 220 | mac1 16 | zero 16
//! 3 cookie      header | nonce 12 | sealed cookie 32 | zero 1348
//! 4 data        header | sealed 1376 | tag 16
//! ```
//!
//! - [`Initiator`] and [`Responder`] turn the first three into keys,
//! - [`SealKey`], [`OpenKey`] and [`Window`] are what workers need for the fourth,
//! - [`peer::Peer`] decides which keys are in use and what to send when,
//! - [`control`] is what neighbours tell one another inside data.
//!
//! A worker's order for data: look the index up, `window.check(counter)`, `open`,
//! `window.accept(counter)`. Nothing is remembered of a datagram that does not authenticate.

pub mod control;
mod cookie;
mod handshake;
mod mac;
pub(crate) mod noise;
pub mod peer;
mod responder;
mod timers;
mod traffic;
mod transport;
mod window;

pub use cookie::{
    COOKIE_LIFE, Cookie, LOAD_HOLD, LOAD_INITIATIONS_PER_SECOND, LoadMeter, MAX_SOURCES,
    SOURCE_BURST, SOURCE_REFILL, SourceLimiter,
};
pub use handshake::{Established, Incoming, Initiator, MAX_RESPONSES, Timestamp};
pub use responder::{Admission, MAX_TIMESTAMPS, Responder};
pub use timers::{
    ACCEPT_INTERVAL, CROSSING, HANDSHAKE_GIVE_UP, HANDSHAKE_JITTER, HANDSHAKE_RETRY, KEEPALIVE,
    POLL_EVERY, REJECT_AFTER, REKEY_AFTER, REKEY_AFTER_AS_RESPONDER, SILENCE_LIMIT, UPKEEP_PING,
};
#[doc(hidden)]
pub use transport::without_handshake;
pub use transport::{CellKind, MAX_COUNTER, OpenKey, REKEY_AFTER_DATAGRAMS, SealKey};
pub use window::{SlidingWindow, Window};

use crate::identity::{X25519Public, X25519Secret};
use crate::size::{DATAGRAM, Datagram, LINK_HEADER};
use crate::{Error, Result};
use mixline_relay_common::wire::{
    COUNTER_OFFSET, INDEX_OFFSET, TYPE_COOKIE, TYPE_DATA, TYPE_INITIATION, TYPE_OFFSET,
    TYPE_RESPONSE,
};

/// A neighbour's static secret. A relay keeps one; a client makes one for each run.
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
    /// What a responder under load sends instead of a response.
    Cookie,
    /// Sealed transport data.
    Data,
}

impl DatagramType {
    const fn byte(self) -> u8 {
        match self {
            Self::Initiation => TYPE_INITIATION,
            Self::Response => TYPE_RESPONSE,
            Self::Cookie => TYPE_COOKIE,
            Self::Data => TYPE_DATA,
        }
    }
}

/// The type of a UDP payload.
///
/// # Errors
/// [`Error::Length`] if it is not [`DATAGRAM`] bytes; [`Error::Malformed`] if the type is
/// none of ours or one of the three bytes after it is not zero.
pub fn datagram_type(bytes: &[u8]) -> Result<DatagramType> {
    if bytes.len() != DATAGRAM {
        return Err(Error::Length {
            what: "datagram",
            expected: DATAGRAM,
            got: bytes.len(),
        });
    }
    match bytes[TYPE_OFFSET..INDEX_OFFSET] {
        [TYPE_INITIATION, 0, 0, 0] => Ok(DatagramType::Initiation),
        [TYPE_RESPONSE, 0, 0, 0] => Ok(DatagramType::Response),
        [TYPE_COOKIE, 0, 0, 0] => Ok(DatagramType::Cookie),
        [TYPE_DATA, 0, 0, 0] => Ok(DatagramType::Data),
        _ => Err(Error::Malformed {
            what: "datagram type",
        }),
    }
}

/// The receiver index in the header.
#[must_use]
pub fn receiver_index(datagram: &Datagram) -> u32 {
    u32::from_be_bytes(field(datagram, INDEX_OFFSET))
}

/// The counter in the header.
#[must_use]
pub fn counter(datagram: &Datagram) -> u64 {
    u64::from_be_bytes(field(datagram, COUNTER_OFFSET))
}

/// The `N` bytes at `offset`, which are inside a datagram.
fn field<const N: usize>(datagram: &Datagram, offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&datagram[offset..offset + N]);
    out
}

/// Writes the 16 bytes at the front.
fn write_header(datagram: &mut Datagram, kind: DatagramType, index: u32, counter: u64) {
    datagram[..INDEX_OFFSET].fill(0);
    datagram[TYPE_OFFSET] = kind.byte();
    datagram[INDEX_OFFSET..COUNTER_OFFSET].copy_from_slice(&index.to_be_bytes());
    datagram[COUNTER_OFFSET..LINK_HEADER].copy_from_slice(&counter.to_be_bytes());
}

/// Checks the header of a handshake message: its type, and a counter of zero.
fn expect_header(datagram: &Datagram, kind: DatagramType, what: &'static str) -> Result<()> {
    if datagram_type(datagram)? == kind && counter(datagram) == 0 {
        Ok(())
    } else {
        Err(Error::Malformed { what })
    }
}

/// Checks that padding is zero.
fn expect_zeros(bytes: &[u8], what: &'static str) -> Result<()> {
    if bytes.iter().all(|b| *b == 0) {
        Ok(())
    } else {
        Err(Error::Malformed { what })
    }
}
