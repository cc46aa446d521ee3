//! The session between two anonymous IDs, end to end.
//!
//! # Handshake
//!
//! `Noise_IK_25519_AESGCM_SHA256` with the prologue `"mixline/v1/session" | responder's ID 32`.
//! The static keys are the session keys that the IDs vouch for: the responder's stands in its
//! descriptor, the initiator brings a certificate. Each message fills one payload of 1072 bytes
//! (all integers big-endian):
//!
//! ```text
//! initiation   front 24 | e 32 | s 48 | sealed 952 | tag 16     through a public tail of the responder
//!              e 32 | s 48 | sealed 976 | tag 16                through a private one
//!   sealed     version 1 | timestamp, ms 8 | proof 16 | certificate | tails | zeros
//! response     e 32 | sealed 1024 | tag 16                      through one of those tails
//!   sealed     tails | zeros
//!
//! tails        count 1 (1 to 4) | (published tail 172 | expiry, unix s 4) * count
//! certificate  ID 32 | session key 32 | expires, unix s 8 | signature 64 | flag 1 [| lease]
//! ```
//!
//! The front shows what [`effort`] was spent. The proof is zero, or says that the initiator is on the responder's list of clients: see
//! [`authorisation`](crate::authorisation).
//!
//! The certificate's signature is the ID's over `ID | session key | expires` in the domain
//! `mixline/v1/certificate`. With flag 1 a lease follows, signed by the directory: who
//! claims an IPv4 address proves it.
//!
//! A retry is a fresh handshake: the same bytes would be dropped on the way as a replay. An
//! initiation is good for [`TIMESTAMP_TOLERANCE_MS`] around its timestamp; a responder that
//! remembers the latest of each initiator for as long cannot be made to answer a replay.
//!
//! The keys are HKDF-SHA256 (RFC 5869) of salt = the handshake's hash, input = the two keys
//! of Noise's split, info = `mixline/v1/session keys`, 128 bytes:
//!
//! ```text
//! initiator to responder, AEAD 32 | responder to initiator, AEAD 32
//! initiator to responder, mask 32 | responder to initiator, mask 32
//! ```
//!
//! # Data
//!
//! ```text
//! payload 1072 = masked counter 16 | sealed frames 1040 | tag 16
//! ```
//!
//! The masked counter is AES-256, under the mask key, of `counter 8 | zero 8`: to anyone on the
//! path, and at either end of it, 16 random bytes. The frames are sealed by AES-256-GCM with the
//! nonce `zero 4 | counter 8` and the 16 masked bytes as associated data. A counter is accepted
//! once, and only within a window of [`SESSION_WINDOW`].

mod certificate;
mod control;
mod data;
pub mod effort;
mod handshake;
mod offers;

pub use certificate::{CERTIFICATE_DOMAIN, Certificate};
pub use control::{Control, close};
pub use data::{
    MAX_CELLS, REKEY_AFTER_CELLS, SESSION_WINDOW, SessionKeys, SessionOpen, SessionSeal,
};
pub use handshake::{Form, Initiation, SessionInitiator, TIMESTAMP_TOLERANCE_MS, accept};
pub use offers::MAX_OFFERS;
