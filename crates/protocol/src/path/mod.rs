//! The path packet: layered cells that no relay can tag or measure, or tell the length of.
//!
//! Sphinx (Danezis, Goldberg 2009) over X25519, with two changes. A path has a *head*, built
//! by the sender, and a *tail*, built and published by the receiver, that meet at a
//! *junction*; neither side knows the other's relays. And a header serves many cells, so that
//! a relay does public-key work once a path, and a packet of a known path costs one
//! comparison of headers and one wide-block decryption.
//!
//! ```text
//! cell 1368    = header 296 | payload 1072
//! header 296   = alpha 32 | gamma 16 | beta 248
//! slot 25      = command 1 | argument 8 | gamma of the next hop 16
//! beta         = up to 4 slots, the rest of the segment; each hop sees its own slot first
//! tail 172     = first relay 8 | alpha 32 | gamma 16 | beta 100 | seed 16
//! ```
//!
//! Commands: 1 forward (argument: the next relay's short ID), 2 junction (argument: the
//! short ID of the tail's first relay), 3 deliver (argument: a mailbox token).
//!
//! A hop's keys are `HKDF-SHA256(salt "mixline/v1/hop", secret X25519(onion, alpha), info
//! alpha | onion public)`, 128 bytes: authentication 32 | stream 32 | payload 32 | blind 32.
//! Gamma is the first 16 bytes of HMAC-SHA256(authentication, beta). The stream is ChaCha20
//! from block 0 under an all-zero nonce; it hides beta, to which each hop appends 25 zeros
//! before, so that the length never changes. The next alpha is X25519(blind, alpha).
//!
//! At the junction, the 148 bytes after the slot are `alpha 32 | seed 16 | beta 100` of the
//! tail. The tail's header is that alpha, the slot's gamma, and that beta extended by 148
//! bytes of ChaCha20 under SHA-256(seed). The receiver chose what its last slot leaves free
//! so that just this authenticates.
//!
//! The payload is *decrypted* by each relay with [HCTR2](mixline_wide_crypto::hctr2) under the hop's payload
//! key with the hop's gamma as tweak. The sender encrypts beforehand for the head
//! ([`Head::wrap`]), the receiver undoes the tail by encrypting ([`TailKeys::unwrap`]).
//! The first 16 bytes that come out at a relay are the cell's [`ReplayTag`].

mod busy_keys;
mod cache;
mod curve;
mod head;
mod keys;
mod layers;
mod layout;
mod onion;
mod peel;
mod table;
mod tail;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use cache::{Full, IDLE, Located, MAX_PATHS, PathCache, PathSlot};
pub use head::{Head, HeadSecrets, build_head};
pub use layout::{Hop, MAX_SEGMENT, MailboxToken, ReplayTag};
pub use onion::OnionSecret;
pub use peel::{KnownPath, Next, open_header};
pub use tail::{PUBLISHED_TAIL, PublishedTail, TailId, TailKeys, TailSecrets, build_tail};
