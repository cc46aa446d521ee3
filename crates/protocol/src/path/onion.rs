//! A relay's onion key of one epoch.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::curve;
use crate::identity::X25519Public;

/// The secret onion key of one epoch, with its public value at hand. Erased on drop.
pub struct OnionSecret {
    pub(super) secret: Zeroizing<[u8; 32]>,
    public: X25519Public,
}

impl OnionSecret {
    /// A fresh key.
    #[must_use]
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_bytes(*secret)
    }

    /// The key with these 32 bytes, clamped where it is used.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let secret = Zeroizing::new(bytes);
        let public = X25519Public(curve::public(&secret));
        Self { secret, public }
    }

    /// The 32 bytes, to store them.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// What the relay's descriptor carries.
    #[must_use]
    pub fn public(&self) -> X25519Public {
        self.public
    }
}
