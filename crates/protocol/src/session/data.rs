//! Sealing and opening of a session's payloads.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256Dec, Aes256Enc};
use mixline_wide_crypto::gcm::{self, Gcm};
use mixline_wide_crypto::scrub_stack;
use zeroize::Zeroizing;

use crate::link::SlidingWindow;
use crate::size::{COUNTER, PAYLOAD, Payload, TAG};
use crate::{Error, Result};

/// How far behind the newest counter a payload may come and still be accepted. Paths differ in
/// delay, so this is wider than the link's: 32768 cells are 0.3 s at 100 MB/s.
pub const SESSION_WINDOW: u64 = 32768;
/// The window's words: the one in which the newest counter stands is partly ahead of it.
const WORDS: usize = (SESSION_WINDOW / 64) as usize + 1;
/// No counter reaches this; by then a session must have been replaced. Keeps the advantage of
/// an attacker on AES-GCM's confidentiality under 2^-50 (2^32 cells of 66 blocks).
pub const MAX_CELLS: u64 = 1 << 32;
/// A session should be replaced after this many cells.
pub const REKEY_AFTER_CELLS: u64 = 1 << 31;

/// What a handshake yields.
pub struct SessionKeys {
    /// For what we send.
    pub seal: SessionSeal,
    /// For what we receive.
    pub open: SessionOpen,
}

impl SessionKeys {
    /// From what HKDF yields; see the module for the order.
    pub(super) fn derive(secrets: &Zeroizing<[u8; 128]>, initiator: bool) -> Result<Self> {
        let (keys, _) = secrets.as_chunks::<32>();
        let key = |n: usize| keys.get(n).ok_or(KEY);
        let (ours, theirs) = if initiator { (0, 1) } else { (1, 0) };
        let derived = Self {
            seal: SessionSeal {
                keys: Box::new(Keys {
                    payload: Gcm::new(key(ours)?),
                    mask: Aes256Enc::new(key(2 + ours)?.into()),
                }),
                next: 0,
            },
            open: SessionOpen {
                keys: Box::new(Keys {
                    payload: Gcm::new(key(theirs)?),
                    mask: Aes256Dec::new(key(2 + theirs)?.into()),
                }),
                window: Box::default(),
            },
        };
        scrub_stack();
        Ok(derived)
    }
}

const KEY: Error = Error::Malformed {
    what: "session key",
};

/// Keys of one direction. They stay where they are, however their owner moves, so that nothing is left where it was.
/// Erased on drop, but for what `ring` expands where it seals ([`Gcm`]).
struct Keys<M> {
    payload: Gcm,
    mask: M,
}

/// Seals what one end sends.
pub struct SessionSeal {
    keys: Box<Keys<Aes256Enc>>,
    next: u64,
}

impl SessionSeal {
    /// Seals in place the frames that stand at bytes 16 to 1056; all other bytes are written.
    /// Returns the counter that was used.
    ///
    /// # Errors
    /// [`Error::Limit`] when [`MAX_CELLS`] have been sealed: only a new session helps.
    pub fn seal(&mut self, payload: &mut Payload) -> Result<u64> {
        let counter = self.next;
        if counter >= MAX_CELLS {
            return Err(Error::Limit {
                what: "cells of a session",
            });
        }
        self.next += 1;
        let mut masked = [0; COUNTER];
        masked[..8].copy_from_slice(&counter.to_be_bytes());
        self.keys.mask.encrypt_block((&mut masked).into());
        payload[..COUNTER].copy_from_slice(&masked);
        self.keys.payload.seal_payload(counter, payload);
        Ok(counter)
    }

    /// Leaves a counter out: it is that of a copy which could not be sent, and those of the other copies have to
    /// be what they say.
    pub fn skip(&mut self) {
        self.next = self.next.saturating_add(1);
    }

    /// How many cells have been sealed.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next
    }
}

/// Opens what one end receives, each counter once.
pub struct SessionOpen {
    keys: Box<Keys<Aes256Dec>>,
    window: Box<SlidingWindow<WORDS>>,
}

impl SessionOpen {
    /// Opens in place; the frames then stand at bytes 16 to 1056. Returns the counter.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the counter is not masked with this session's key: the payload is
    /// unchanged then, and may belong to another session. [`Error::Replay`] if it has been
    /// seen, or is too old to tell. [`Error::Authentication`] if the payload was changed; the
    /// frames are zeros then.
    pub fn open(&mut self, payload: &mut Payload) -> Result<u64> {
        let mut masked = [0; COUNTER];
        masked.copy_from_slice(&payload[..COUNTER]);
        let counter = self.unmask(masked)?;
        if !self.window.check(counter) {
            return Err(Error::Replay);
        }
        self.keys
            .payload
            .open_payload(counter, payload)
            .map_err(|_| Error::Authentication {
                what: "session payload",
            })?;
        self.window.accept(counter)?;
        Ok(counter)
    }

    /// Whether a cell of this counter has come, or would be too old to tell.
    #[must_use]
    pub fn has_seen(&self, counter: u64) -> bool {
        !self.window.check(counter)
    }

    fn unmask(&self, mut masked: [u8; COUNTER]) -> Result<u64> {
        self.keys.mask.decrypt_block((&mut masked).into());
        let both = u128::from_be_bytes(masked);
        let counter = (both >> 64) as u64;
        if both << 64 != 0 || counter >= MAX_CELLS {
            return Err(Error::Malformed {
                what: "session counter",
            });
        }
        Ok(counter)
    }
}

impl Drop for SessionSeal {
    /// The fields erase themselves, but not what was left on the stack when they were used.
    fn drop(&mut self) {
        scrub_stack();
    }
}

impl Drop for SessionOpen {
    /// As [`SessionSeal`]'s.
    fn drop(&mut self) {
        scrub_stack();
    }
}

const _: () = assert!(gcm::PAYLOAD == PAYLOAD && gcm::HEADER == COUNTER && gcm::TAG == TAG);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::FRAMES;

    fn pair() -> (SessionKeys, SessionKeys) {
        let mut secrets = Zeroizing::new([0; 128]);
        for (n, byte) in secrets.iter_mut().enumerate() {
            *byte = n as u8;
        }
        (
            SessionKeys::derive(&secrets, true).unwrap(),
            SessionKeys::derive(&secrets, false).unwrap(),
        )
    }

    #[test]
    fn the_last_counter_is_the_last() {
        let (mut a, mut b) = pair();
        a.seal.next = MAX_CELLS - 1;
        let mut payload = [5; PAYLOAD];
        assert_eq!(a.seal.seal(&mut payload), Ok(MAX_CELLS - 1));
        assert_eq!(b.open.open(&mut payload), Ok(MAX_CELLS - 1));
        assert_eq!(
            a.seal.seal(&mut payload),
            Err(Error::Limit {
                what: "cells of a session"
            })
        );
    }

    #[test]
    fn directions_have_their_own_keys() {
        let (mut a, mut b) = pair();
        let (mut one, mut other) = ([5; PAYLOAD], [5; PAYLOAD]);
        a.seal.seal(&mut one).unwrap();
        b.seal.seal(&mut other).unwrap();
        assert_ne!(one, other);
        let reflected = one;
        assert_eq!(
            a.open.open(&mut one),
            Err(Error::Malformed {
                what: "session counter"
            })
        );
        assert_eq!(one, reflected, "untouched");
    }

    #[test]
    fn the_window_is_as_wide_as_it_says() {
        let (mut a, mut b) = pair();
        let mut old = [5; PAYLOAD];
        a.seal.seal(&mut old).unwrap();
        let mut older_copy = old;
        a.seal.next = SESSION_WINDOW - 1;
        let mut new = [6; PAYLOAD];
        a.seal.seal(&mut new).unwrap();
        b.open.open(&mut new).unwrap();
        assert_eq!(b.open.open(&mut old), Ok(0), "just within");
        a.seal.next = 2 * SESSION_WINDOW;
        a.seal.seal(&mut new).unwrap();
        b.open.open(&mut new).unwrap();
        assert_eq!(b.open.open(&mut older_copy), Err(Error::Replay));
        let mut edge = [7; PAYLOAD];
        a.seal.next = 1;
        a.seal.seal(&mut edge).unwrap();
        assert_eq!(
            b.open.open(&mut edge),
            Err(Error::Replay),
            "never seen, and too old"
        );
    }

    /// AES-256-ECB and AES-256-GCM as other implementations compute them, so that the format is
    /// pinned and not only the agreement of the two ends here.
    #[test]
    fn the_layout_is_the_documented_one() {
        use aes::Aes256;
        use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let (mut a, _) = pair();
        a.seal.next = 0x0102_0304;
        let mut payload = [5; PAYLOAD];
        a.seal.seal(&mut payload).unwrap();

        let key: Vec<u8> = (0..128).collect();
        let mut counter = [0; 16];
        counter[4..8].copy_from_slice(&[1, 2, 3, 4]);
        Aes256::new_from_slice(&key[64..96])
            .unwrap()
            .encrypt_block((&mut counter).into());
        assert_eq!(payload[..16], counter);
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..32]).unwrap());
        let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        let opened = aead
            .open_in_place(nonce, Aad::from(counter), &mut payload[16..])
            .unwrap();
        assert_eq!(opened, [5; FRAMES]);
    }
}
