//! Signed records: who takes part, what belongs to whom, and until when.
//!
//! Every record is self-contained and expires:
//!
//! ```text
//! record = kind 1 | version of the format 1 (= 1) | fields | Ed25519 signature 64
//! ```
//!
//! The signature is over everything before it, under the domain of the record's kind
//! (see [`crate::identity::verify`]). Integers are big-endian, times are unix seconds
//! (u64), a text is a length byte and that many bytes. Decoding is strict: each record
//! has one encoding, and `encode` of what `decode` gave is the same bytes.
//!
//! | kind | record | signed by |
//! |------|--------|-----------|
//! | 1 | [`RelayDescriptor`] | the relay |
//! | 2 | [`ServiceDescriptor`] | the ID |
//! | 3 | [`NameRecord`] | the ID |
//! | 4 | [`Lease`] | the directory |
//! | 5 | [`LeaseRequest`] | the ID |
//! | 6 | [`Snapshot`] | the directory |
//!
//! `decode` reads the form only; what has come from outside goes through
//! `decode_and_verify`, or `verify` afterwards. `sign` refuses what `decode` would.

mod format;
mod lease;
mod name;
mod registration;
mod relay;
mod service;
mod snapshot;
mod tail_offer;

pub use format::{CLOCK_SKEW, FORMAT, MAX_TEXT};
pub use lease::{LEASE_GRANT, Lease, LeaseRequest};
pub use name::NameRecord;
pub use registration::Registration;
pub use relay::{
    MAX_ADDRESSES, MAX_ONION_KEYS, OnionKeys, RelayDescriptor, with_keys_of_their_own,
};
pub use service::{MAX_TAILS, ServiceDescriptor};
pub use snapshot::{MAX_RELAYS, MAX_SNAPSHOT, Parameters, Snapshot};
pub use tail_offer::{TAIL_OFFER, TailOffer};
