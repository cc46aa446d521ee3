//! The link between two neighbours: relay and relay, or client and relay.
//!
//! After the manner of WireGuard, with constant length and a key exchange that a later
//! quantum computer does not open. Every datagram has
//! [`DATAGRAM`](crate::size::DATAGRAM) bytes and begins with
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
//! 1 initiation  header | e 32 | s 48 | sealed 1212 | nonce 16 | effort 4 | zero 48 | mac1 16 | mac2 16
//! 2 response    header | e 32 | sealed 1108 | zero 220 | mac1 16 | zero 16
//! 3 cookie      header | nonce 12 | sealed cookie and effort 36 | zero 1344
//! 4 data        header | sealed 1376 | tag 16
//! ```
//!
//! Two more are not part of a link, and may be shorter: see [`probe`].
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
mod cookie_jar;
mod effort;
mod effort_meter;
mod handshake;
mod initiation_times;
mod layout;
mod load;
mod mac;
pub mod peer;
pub mod probe;
mod responder;
mod timers;
mod traffic;
mod transport;
mod waiting;
mod window;

pub use cookie::{COOKIE_LIFE, Cookie};
pub use effort::{MAX_EFFORT, MIN_EFFORT};
pub use effort_meter::EffortMeter;
pub use handshake::{Draft, Established, Incoming, Initiator, MAX_RESPONSES, Timestamp};
pub use initiation_times::{InitiationTimes, SET_ASIDE};
pub use layout::{DatagramType, counter, datagram_type, receiver_index};
pub use load::{
    LOAD_HOLD, LOAD_INITIATIONS_PER_SECOND, LoadMeter, MAX_SOURCES, SOURCE_BURST, SOURCE_REFILL,
    SourceLimiter,
};
pub use responder::{Admission, MAX_SPENT, MAX_TIMESTAMPS, Responder};
pub use timers::{
    ACCEPT_INTERVAL, CROSSING, HANDSHAKE_GIVE_UP, HANDSHAKE_JITTER, HANDSHAKE_RETRY, KEEPALIVE,
    POLL_EVERY, REJECT_AFTER, REKEY_AFTER, REKEY_AFTER_AS_RESPONDER, SILENCE_LIMIT, UPKEEP_PING,
};
#[doc(hidden)]
pub use transport::without_handshake;
pub use transport::{CellKind, MAX_COUNTER, OpenKey, REKEY_AFTER_DATAGRAMS, SealKey};
pub use waiting::{MAX_WAITING, Waiting};
pub use window::{SlidingWindow, Window};

use crate::identity::{X25519Public, X25519Secret};

/// A neighbour's static secret. A relay keeps one; a client makes one for each run.
pub type LinkSecret = X25519Secret;
/// A neighbour's static public key.
pub type LinkPublic = X25519Public;
