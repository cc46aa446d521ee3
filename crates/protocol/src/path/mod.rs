//! The path packet: layered cells that no relay can mark, measure or tell the length of.
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
//! The payload is *decrypted* by each relay with [HCTR2](crate::hctr2) under the hop's payload
//! key with the hop's gamma as tweak. The sender encrypts beforehand for the head
//! ([`Head::wrap`]), the receiver undoes the tail by encrypting ([`TailKeys::unwrap`]).
//! The first 16 bytes that come out at a relay are the cell's [`ReplayTag`].

mod cache;
mod curve;
mod head;
mod keys;
mod layers;
mod onion;
mod peel;
mod table;
mod tail;
#[cfg(feature = "vectors")]
pub mod vectors;

use std::fmt;

pub use cache::{Full, IDLE, Located, MAX_PATHS, PathCache, PathSlot};
pub use head::{Head, HeadSecrets, build_head};
pub use onion::OnionSecret;
pub use peel::{KnownPath, Next, open_header};
pub use tail::{PUBLISHED_TAIL, PublishedTail, TailId, TailKeys, TailSecrets, build_tail};

use crate::identity::{ShortId, X25519Public};
use crate::size::PATH_HEADER;

/// The most relays in a head, and in a tail.
pub const MAX_SEGMENT: usize = 4;

/// Bytes of alpha, an X25519 public value.
const ALPHA: usize = 32;
/// Bytes of gamma, a truncated HMAC-SHA256.
const GAMMA: usize = 16;
/// Bytes of beta, what is layered.
const BETA: usize = PATH_HEADER - ALPHA - GAMMA;
/// Bytes of a slot: command, argument, gamma of the next hop.
const SLOT: usize = 1 + 8 + GAMMA;
/// Bytes of a tail's seed.
const SEED: usize = 16;
/// Bytes of beta that a tail publishes; the rest is made from its seed.
const TAIL_BETA: usize = MAX_SEGMENT * SLOT;
/// Bytes of a tail that stand behind the junction's slot.
const JUNCTION_REST: usize = ALPHA + SEED + TAIL_BETA;

const _: () = assert!(BETA == MAX_SEGMENT * SLOT + JUNCTION_REST);

/// Commands of a slot.
const FORWARD: u8 = 1;
const JUNCTION: u8 = 2;
const DELIVER: u8 = 3;

/// What a client registers at a guard so that cells find it: 8 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxToken(pub [u8; 8]);

/// The first 16 bytes of a payload that a relay has decrypted: they depend on every bit of
/// the message and on the hop's key, so they tell messages apart at no cost.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplayTag(pub [u8; 16]);

/// One relay of a head or a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The relay's short ID.
    pub relay: ShortId,
    /// Its onion key of the epoch in which the path is used.
    pub onion: X25519Public,
}

impl fmt::Debug for MailboxToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MailboxToken({})",
            data_encoding::HEXLOWER.encode(&self.0)
        )
    }
}

impl fmt::Debug for ReplayTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplayTag({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}
