//! A relay's onion key.
use crate::identity::X25519Public;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The secret onion key of one epoch.
pub struct OnionSecret;

impl OnionSecret {
    /// A fresh key.
    #[must_use]
    pub fn generate<R: CryptoRng + ?Sized>(_rng: &mut R) -> Self {
        todo!()
    }
    /// The key in its 32 bytes.
    #[must_use]
    pub fn from_bytes(_bytes: [u8; 32]) -> Self {
        todo!()
    }
    /// To store it.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        todo!()
    }
    /// What the descriptor carries.
    #[must_use]
    pub fn public(&self) -> X25519Public {
        todo!()
    }
}
