//! HCTR2 with AES-256: a wide-block permutation (Crowley, Huckleberry, Biggers:
//! "Length-preserving encryption with HCTR2", 2021, <https://eprint.iacr.org/2021/1441>).
//!
//! Every bit of the output depends on every bit of the input, the key and the tweak;
//! input and output are of one length.

mod portable;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::width::{Kind, Width};

/// HCTR2-AES-256 under one key, ready for both directions. Erased on drop.
pub struct Hctr2(Key);

enum Key {
    #[cfg(target_arch = "x86_64")]
    Wide(wide::Expanded, Width),
    Portable(Box<portable::Hctr2>),
}

impl Hctr2 {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self::with(key, Width::current())
    }

    /// Expands a key for a width.
    #[must_use]
    #[allow(unsafe_code)]
    pub fn with(key: &[u8; 32], width: Width) -> Self {
        Self(match width.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: there is a `Width` only where the processor has its instructions.
            Kind::Vaes512 => Key::Wide(unsafe { wide::four::expand(key) }, width),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Vaes256 => Key::Wide(unsafe { wide::two::expand(key) }, width),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Aesni => Key::Wide(unsafe { wide::one::expand(key) }, width),
            _ => Key::Portable(Box::new(portable::Hctr2::new(key))),
        })
    }

    /// Encrypts `message` in place.
    pub fn encrypt(&self, tweak: &[u8; 16], message: &mut [u8]) {
        self.apply::<true>(tweak, message);
    }

    /// Decrypts `message` in place; what [`Hctr2::encrypt`] says of short messages holds.
    pub fn decrypt(&self, tweak: &[u8; 16], message: &mut [u8]) {
        self.apply::<false>(tweak, message);
    }

    #[allow(unsafe_code)]
    #[inline]
    fn apply<const ENCRYPT: bool>(&self, tweak: &[u8; 16], message: &mut [u8]) {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Key::Wide(key, width) => match width.0 {
                // SAFETY: there is a `Width` only where the processor has its instructions.
                Kind::Vaes512 => unsafe { wide::four::apply::<ENCRYPT>(key, tweak, message) },
                // SAFETY: as above.
                Kind::Vaes256 => unsafe { wide::two::apply::<ENCRYPT>(key, tweak, message) },
                // SAFETY: as above.
                _ => unsafe { wide::one::apply::<ENCRYPT>(key, tweak, message) },
            },
            Key::Portable(key) => match ENCRYPT {
                true => key.encrypt(tweak, message),
                false => key.decrypt(tweak, message),
            },
        }
    }
}
