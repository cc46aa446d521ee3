//! Signed records: who takes part, what belongs to whom, and until when.
//!
//! Every record is self-contained and expires:
//!
//! ```text
//! record = kind 1 | version of the format 1 | fields | Ed25519 signature 64
//! ```
//!
//! The signature is over everything before it, under the domain of the record's kind
//! (see [`crate::identity::verify`]). Integers are big-endian, times are unix seconds
//! (u64), a text is a length byte and that many bytes. Decoding is strict: each record
//! has one encoding, and `encode` of what `decode` gave is the same bytes.
//!
//! | kind | record | format | signed by |
//! |------|--------|--------|-----------|
//! | 1 | [`RelayDescriptor`] | 2 | the relay |
//! | 2 | [`ServiceDescriptor`] | 1 | the ID |
//! | 3 | [`NameRecord`] | 1 | the ID |
//! | 4 | [`Lease`] | 1 | the directory |
//! | 5 | [`LeaseRequest`] | 1 | the ID |
//! | 6 | [`Snapshot`] | 2 | a quorum of the directories, [`Signatures`] in front |
//! | 7 | [`Roster`] | 1 | a quorum of it and of the one before |
//! | 8 | [`OnlineKey`] | 1 | a directory's identity |
//! | 9 | [`Vote`] | 1 | by [`Endorsement`]s |
//! | 10 | [`Contradiction`] | 1 | the one that it is about, twice |
//!
//! `decode` reads the form only; what has come from outside goes through
//! `decode_and_verify`, or `verify` afterwards. `sign` refuses what `decode` would.

mod contradiction;
mod format;
mod heartbeat;
mod lease;
mod listing;
mod name;
mod onion_keys;
mod online_key;
mod relay;
mod relay_record;
mod roster;
mod service;
mod signatures;
mod snapshot;
mod tail_offer;
mod vote;

pub use contradiction::{Contradiction, Said, Statement};
pub use format::{CLOCK_SKEW, FORMAT, MAX_TEXT};
pub use heartbeat::{Heartbeat, Registration};
pub use lease::{LEASE_GRANT, Lease, LeaseRequest};
pub use listing::{ListedRelay, RelayFlags, with_keys_of_their_own};
pub use name::NameRecord;
pub use onion_keys::{MAX_ONION_KEYS, OnionKeys};
pub use online_key::OnlineKey;
pub use relay::{MAX_ADDRESSES, RelayDescriptor};
pub use relay_record::RelayRecord;
pub use roster::{MAX_DIRECTORIES, MAX_URL, Member, ROUND_SECONDS, Roster};
pub use service::{MAX_TAILS, ServiceDescriptor};
pub use signatures::Signatures;
pub use snapshot::{
    DirectoryEntry, LogHead, MAX_ONLINE_KEYS, MAX_RELAYS, MAX_SNAPSHOT, Parameters, SharedRandom,
    Snapshot,
};
pub use tail_offer::{TAIL_OFFER, TailOffer};
pub use vote::{Endorsement, MAX_VOTE, Vote, VotedRelay};
