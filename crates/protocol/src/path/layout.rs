//! Where the fields of a path's header stand, and what its slots name.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::identity::{ShortId, X25519Public};
use crate::size::PATH_HEADER;

/// The most relays in a head, and in a tail.
pub const MAX_SEGMENT: usize = 4;

/// Bytes of alpha, an X25519 public value.
pub(super) const ALPHA: usize = 32;
/// Bytes of gamma, a truncated HMAC-SHA256.
pub(super) const GAMMA: usize = 16;
/// Bytes of beta, what is layered.
pub(super) const BETA: usize = PATH_HEADER - ALPHA - GAMMA;
/// Bytes of a slot: command, argument, gamma of the next hop.
pub(super) const SLOT: usize = 1 + 8 + GAMMA;
/// Bytes of a tail's seed.
pub(super) const SEED: usize = 16;
/// Bytes of beta that a tail publishes; the rest is made from its seed.
pub(super) const TAIL_BETA: usize = MAX_SEGMENT * SLOT;
/// Bytes of a tail that stand behind the junction's slot.
pub(super) const JUNCTION_REST: usize = ALPHA + SEED + TAIL_BETA;

const _: () = assert!(BETA == MAX_SEGMENT * SLOT + JUNCTION_REST);

/// Commands of a slot.
pub(super) const FORWARD: u8 = 1;
pub(super) const JUNCTION: u8 = 2;
pub(super) const DELIVER: u8 = 3;

/// What a client registers at a guard so that cells find it: 8 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailboxToken(pub [u8; 8]);

impl Hash for MailboxToken {
    /// In one piece and without its length: it is hashed for each cell.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_ne_bytes(self.0));
    }
}

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
