//! The path packet: placeholder docs.

mod build;
mod cache;
mod onion;
mod peel;
mod tail;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use build::{Head, HeadSecrets, build_head};
pub use cache::{Full, PathCache, PathSlot};
pub use onion::OnionSecret;
pub use peel::{KnownPath, Next, open_header};
pub use tail::{PUBLISHED_TAIL, PublishedTail, TailId, TailKeys, TailSecrets, build_tail};

use crate::identity::{ShortId, X25519Public};

/// The most relays in a head, and in a tail.
pub const MAX_SEGMENT: usize = 4;

/// What a client registers at a guard to be delivered to: 8 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxToken(pub [u8; 8]);

/// The first 16 bytes of a payload that a relay has decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplayTag(pub [u8; 16]);

/// One relay of a head or a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The relay's short ID.
    pub relay: ShortId,
    /// Its onion key of the path's epoch.
    pub onion: X25519Public,
}
