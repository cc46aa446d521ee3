//! AES-256-GCM (NIST SP 800-38D) for messages of two lengths: datagrams, and payloads of sessions.
//!
//! ```text
//! datagram: header 16, authenticated | 1376, enciphered and authenticated | tag 16
//! payload:  header 16, authenticated | 1040, enciphered and authenticated | tag 16
//! ```
//!
//! The nonce is four zero bytes and a counter of eight. What is made here is what any AES-256-GCM
//! makes; only the lengths are fixed, and with them all that is to be computed. With vectors of 128 bits `ring`
//! is faster, and is used.

mod fallback;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::width::{Kind, Width};

/// What sets the lengths apart in the wide code.
#[cfg(target_arch = "x86_64")]
use wide::{DATAGRAM_MIDDLE, PAYLOAD_MIDDLE};
#[cfg(not(target_arch = "x86_64"))]
const DATAGRAM_MIDDLE: usize = 0;
#[cfg(not(target_arch = "x86_64"))]
const PAYLOAD_MIDDLE: usize = 0;

/// A datagram's length.
pub const DATAGRAM: usize = 1408;
/// A payload's length.
pub const PAYLOAD: usize = 1072;
/// What comes before the part that is enciphered.
pub const HEADER: usize = 16;
/// The tag at the end.
pub const TAG: usize = 16;

/// It does not open: it was changed, or made under another key or counter. Nothing of what it would have been
/// is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not open")]
pub struct Forged;

/// AES-256-GCM under one key. Erased on drop, but for the fallback: `ring` does not erase its keys.
pub struct Gcm(Key);

// Both in place, so that whoever has to wait for the memory of a key can ask for it before.
enum Key {
    #[cfg(target_arch = "x86_64")]
    Wide(wide::Expanded, Width),
    Fallback(fallback::Gcm),
}

impl Gcm {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self::with(key, Width::current())
    }

    /// Expands a key for a width.
    #[must_use]
    #[allow(unsafe_code)]
    pub fn with(key: &[u8; 32], width: Width) -> Self {
        #[cfg(target_arch = "x86_64")]
        if matches!(width.0, Kind::Vaes512 | Kind::Vaes256) {
            let mut gcm = Self(Key::Wide(wide::Expanded::EMPTY, width));
            if let Key::Wide(to, _) = &mut gcm.0 {
                match width.0 {
                    // SAFETY: there is a `Width` only where the processor has its instructions.
                    Kind::Vaes512 => unsafe { wide::four::expand(key, to) },
                    // SAFETY: as above.
                    _ => unsafe { wide::two::expand(key, to) },
                }
            }
            return gcm;
        }
        Self(Key::Fallback(fallback::Gcm::new(key)))
    }

    /// Enciphers a datagram in place, and writes the tag.
    #[inline]
    pub fn seal(&self, counter: u64, datagram: &mut [u8; DATAGRAM]) {
        self.seal_any::<DATAGRAM, DATAGRAM_MIDDLE>(counter, datagram);
    }

    /// Deciphers a datagram in place, if the tag is right. The tag stays.
    ///
    /// # Errors
    /// [`Forged`]; what was enciphered is zeros then.
    #[inline]
    pub fn open(&self, counter: u64, datagram: &mut [u8; DATAGRAM]) -> Result<(), Forged> {
        self.open_any::<DATAGRAM, DATAGRAM_MIDDLE>(counter, datagram)
    }

    /// Enciphers a payload in place, and writes the tag.
    #[inline]
    pub fn seal_payload(&self, counter: u64, payload: &mut [u8; PAYLOAD]) {
        self.seal_any::<PAYLOAD, PAYLOAD_MIDDLE>(counter, payload);
    }

    /// Deciphers a payload in place, if the tag is right. The tag stays.
    ///
    /// # Errors
    /// [`Forged`]; what was enciphered is zeros then.
    #[inline]
    pub fn open_payload(&self, counter: u64, payload: &mut [u8; PAYLOAD]) -> Result<(), Forged> {
        self.open_any::<PAYLOAD, PAYLOAD_MIDDLE>(counter, payload)
    }

    /// `MIDDLE`: what sets a length apart in the wide code.
    #[allow(unsafe_code)]
    #[inline]
    fn seal_any<const N: usize, const MIDDLE: usize>(&self, counter: u64, message: &mut [u8; N]) {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Key::Wide(key, width) => match width.0 {
                // SAFETY: there is a `Width` only where the processor has its instructions.
                Kind::Vaes512 => unsafe { wide::four::seal::<N, MIDDLE>(key, counter, message) },
                // SAFETY: as above.
                _ => unsafe { wide::two::seal::<N, MIDDLE>(key, counter, message) },
            },
            Key::Fallback(key) => key.seal(counter, message),
        }
    }

    #[allow(unsafe_code)]
    #[inline]
    fn open_any<const N: usize, const MIDDLE: usize>(
        &self,
        counter: u64,
        message: &mut [u8; N],
    ) -> Result<(), Forged> {
        let opened = match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Key::Wide(key, width) => match width.0 {
                // SAFETY: there is a `Width` only where the processor has its instructions.
                Kind::Vaes512 => unsafe { wide::four::open::<N, MIDDLE>(key, counter, message) },
                // SAFETY: as above.
                _ => unsafe { wide::two::open::<N, MIDDLE>(key, counter, message) },
            },
            Key::Fallback(key) => key.open(counter, message),
        };
        if !opened {
            message[HEADER..N - TAG].fill(0);
            return Err(Forged);
        }
        Ok(())
    }
}
