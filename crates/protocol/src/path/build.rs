//! Heads.
use super::{Hop, PublishedTail};
use crate::Result;
use crate::identity::ShortId;
use crate::size::{Header, Payload};
use rand_core::CryptoRng;

/// The randomness of one head.
pub struct HeadSecrets {
    /// The first X25519 scalar.
    pub secret: [u8; 32],
    /// What fills the rest of beta.
    pub rest: [u8; 248],
}

impl HeadSecrets {
    /// Fresh ones.
    #[must_use]
    pub fn random<R: CryptoRng + ?Sized>(_rng: &mut R) -> Self {
        todo!()
    }
}

/// The sender's part of a path, joined to a tail.
pub struct Head;

impl Head {
    /// The header that every cell of this path starts with.
    #[must_use]
    pub fn header(&self) -> &Header {
        todo!()
    }
    /// The relay to send the cells to.
    #[must_use]
    pub fn first(&self) -> ShortId {
        todo!()
    }
    /// Encrypts a payload in place for the relays of the head.
    pub fn wrap(&self, _payload: &mut Payload) {
        todo!()
    }
}

/// Joins a head to a published tail.
///
/// # Errors
/// Later.
pub fn build_head(_secrets: &HeadSecrets, _hops: &[Hop], _tail: &PublishedTail) -> Result<Head> {
    todo!()
}
