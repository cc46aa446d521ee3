//! HCTR2 with AES-256: a wide-block permutation (Crowley, Huckleberry, Biggers:
//! "Length-preserving encryption with HCTR2", 2021, <https://eprint.iacr.org/2021/1441>).
//!
//! Every bit of the output depends on every bit of the input, the key and the tweak;
//! input and output are of one length. The internals are little-endian, as in the paper. A message is
//! one block, which is enciphered as a block, and a rest, which is enciphered as a stream and hashed
//! before and after.

mod portable;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::BLOCK;
use crate::width::{Kind, Width};
use zeroize::Zeroizing;

/// Blocks of a message that are hashed and enciphered together.
const STEP: usize = 16;
/// Blocks between the first and the steps. With the two that the hash begins with, length and tweak, they are four,
/// and so a whole number of vectors in every width.
const HEAD: usize = 2;
/// What comes before a message's steps, in bytes.
const BEFORE_STEPS: usize = (1 + HEAD) * BLOCK;

/// The hash's first block for a tweak of one block and whole blocks after it: `2 * 128 + 2` (section 2 of
/// the paper).
const LENGTH: [u8; BLOCK] = (2 * 128 + 2u128).to_le_bytes();

/// HCTR2-AES-256 under one key, ready for both directions: half a kilobyte. Erased on drop.
pub struct Hctr2(Key);

#[expect(
    clippy::large_enum_variant,
    reason = "in place where it is fast; the other one is for other processors"
)]
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
    pub fn with(key: &[u8; 32], width: Width) -> Self {
        #[cfg(target_arch = "x86_64")]
        if width.0 != Kind::Scalar {
            let mut hctr2 = Self(Key::Wide(wide::Expanded::EMPTY, width));
            hctr2.fill(key);
            return hctr2;
        }
        Self(Key::Portable(Box::new(portable::Hctr2::new(key))))
    }

    /// Writes what follows from a key where it stands.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    fn fill(&mut self, key: &[u8; 32]) {
        let Key::Wide(to, width) = &mut self.0 else {
            return;
        };
        match width.0 {
            // SAFETY: there is a `Width` only where the processor has its instructions.
            Kind::Vaes512 => unsafe { wide::four::expand(key, to) },
            // SAFETY: as above.
            Kind::Vaes256 => unsafe { wide::two::expand(key, to) },
            // SAFETY: as above.
            _ => unsafe { wide::one::expand(key, to) },
        }
    }

    /// Encrypts in place. A message has 48 bytes and a multiple of 256 more; other lengths do not compile.
    #[inline]
    pub fn encrypt<const N: usize>(&self, tweak: &[u8; BLOCK], message: &mut [u8; N]) {
        self.apply::<true, N>(tweak, message);
    }

    /// Decrypts in place, the same lengths.
    #[inline]
    pub fn decrypt<const N: usize>(&self, tweak: &[u8; BLOCK], message: &mut [u8; N]) {
        self.apply::<false, N>(tweak, message);
    }

    #[allow(unsafe_code)]
    #[inline]
    fn apply<const ENCRYPT: bool, const N: usize>(
        &self,
        tweak: &[u8; BLOCK],
        message: &mut [u8; N],
    ) {
        const { assert!(is_length(N)) };
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Key::Wide(key, width) => match width.0 {
                // SAFETY: there is a `Width` only where the processor has its instructions.
                Kind::Vaes512 => unsafe { wide::four::apply::<ENCRYPT, N>(key, tweak, message) },
                // SAFETY: as above.
                Kind::Vaes256 => unsafe { wide::two::apply::<ENCRYPT, N>(key, tweak, message) },
                // SAFETY: as above.
                _ => unsafe { wide::one::apply::<ENCRYPT, N>(key, tweak, message) },
            },
            Key::Portable(key) => match ENCRYPT {
                true => key.encrypt(tweak, message),
                false => key.decrypt(tweak, message),
            },
        }
    }
}

/// HCTR2-AES-256 under one key, of which nothing but the key is kept: 32 bytes. Erased on drop.
///
/// Where there are wide instructions everything else is made anew each time. That takes longer than a lookup in the
/// nearest cache and less than one in memory, so it is for whoever has many keys. Elsewhere it is as
/// large as [`Hctr2`].
pub struct Compact(CompactKey);

enum CompactKey {
    #[cfg(target_arch = "x86_64")]
    Bytes(Zeroizing<[u8; 32]>, Width),
    Portable(Box<portable::Hctr2>),
}

impl Compact {
    /// Keeps a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self::with(key, Width::current())
    }

    /// Keeps a key for a width.
    #[must_use]
    pub fn with(key: &[u8; 32], width: Width) -> Self {
        Self(match width.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Vaes512 | Kind::Vaes256 | Kind::Aesni => {
                CompactKey::Bytes(Zeroizing::new(*key), width)
            }
            _ => CompactKey::Portable(Box::new(portable::Hctr2::new(key))),
        })
    }

    /// Writes the same with everything ready, where it is to stand: no copy is left elsewhere. `None` where it is
    /// so already.
    pub fn expand_into(&self, to: &mut Option<Hctr2>) {
        *to = None;
        #[cfg(target_arch = "x86_64")]
        if let CompactKey::Bytes(key, width) = &self.0 {
            to.insert(Hctr2(Key::Wide(wide::Expanded::EMPTY, *width)))
                .fill(key);
        }
    }

    /// Decrypts in place, as [`Hctr2::decrypt`].
    #[allow(unsafe_code)]
    #[inline]
    pub fn decrypt<const N: usize>(&self, tweak: &[u8; BLOCK], message: &mut [u8; N]) {
        const { assert!(is_length(N)) };
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            CompactKey::Bytes(key, width) => match width.0 {
                // SAFETY: there is a `Width` only where the processor has its instructions.
                Kind::Vaes512 => unsafe { wide::four::decrypt_once(key, tweak, message) },
                // SAFETY: as above.
                Kind::Vaes256 => unsafe { wide::two::decrypt_once(key, tweak, message) },
                // SAFETY: as above.
                _ => unsafe { wide::one::decrypt_once(key, tweak, message) },
            },
            CompactKey::Portable(key) => key.decrypt(tweak, message),
        }
    }
}

/// Whether messages may be so long.
const fn is_length(bytes: usize) -> bool {
    bytes >= BEFORE_STEPS && (bytes - BEFORE_STEPS).is_multiple_of(STEP * BLOCK)
}
