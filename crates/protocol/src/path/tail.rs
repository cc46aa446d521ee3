//! Tails.
use super::{Hop, MailboxToken};
use crate::Result;
use crate::identity::ShortId;
use crate::size::Payload;
use rand_core::CryptoRng;

/// Bytes of an encoded published tail.
pub const PUBLISHED_TAIL: usize = 172;

/// Names a tail among those of one receiver: the first 8 bytes of its gamma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TailId(pub [u8; 8]);

/// The encrypted end of a path, as its receiver publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublishedTail {
    /// Its first relay.
    pub first: ShortId,
    /// The group element that the first relay sees.
    pub alpha: [u8; 32],
    /// The tag that the first relay checks.
    pub gamma: [u8; 16],
    /// The front of the beta that the first relay sees.
    pub beta: [u8; 100],
    /// What the rest of that beta is made of.
    pub seed: [u8; 16],
}

impl PublishedTail {
    /// `first 8 | alpha 32 | gamma 16 | beta 100 | seed 16`.
    #[must_use]
    pub fn encode(&self) -> [u8; PUBLISHED_TAIL] {
        todo!()
    }
    /// The tail in its 172 bytes.
    ///
    /// # Errors
    /// None yet: every byte string is a tail, of which the relays decide.
    pub fn decode(_bytes: &[u8; PUBLISHED_TAIL]) -> Result<Self> {
        todo!()
    }
    /// The tail's name.
    #[must_use]
    pub fn id(&self) -> TailId {
        todo!()
    }
}

/// The randomness of one tail.
pub struct TailSecrets {
    /// The first X25519 scalar.
    pub secret: [u8; 32],
    /// What fills the rest of the published beta.
    pub filling: [u8; 100],
    /// What the unpublished rest of beta is made of.
    pub seed: [u8; 16],
}

impl TailSecrets {
    /// Fresh ones.
    #[must_use]
    pub fn random<R: CryptoRng + ?Sized>(_rng: &mut R) -> Self {
        todo!()
    }
}

/// What the receiver keeps of a tail.
pub struct TailKeys;

impl TailKeys {
    /// Undoes in place what the relays of the tail did to a payload.
    pub fn unwrap(&self, _payload: &mut Payload) {
        todo!()
    }
}

/// Makes a tail that delivers to `token` at the last of `hops`.
///
/// # Errors
/// Later.
pub fn build_tail(
    _secrets: &TailSecrets,
    _hops: &[Hop],
    _token: MailboxToken,
) -> Result<(PublishedTail, TailKeys)> {
    todo!()
}
