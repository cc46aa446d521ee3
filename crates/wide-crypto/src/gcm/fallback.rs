//! The same by `ring`.

use super::{HEADER, TAG};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// A key of `ring`.
pub(super) struct Gcm(LessSafeKey);

impl Gcm {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key);
        Self(LessSafeKey::new(key.unwrap_or_else(|_| {
            unreachable!("AES-256's keys have 32 bytes")
        })))
    }

    pub(super) fn seal<const N: usize>(&self, counter: u64, message: &mut [u8; N]) {
        let (header, rest) = message.split_at_mut(HEADER);
        let (sealed, tag) = rest.split_at_mut(N - HEADER - TAG);
        let made = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), sealed)
            .unwrap_or_else(|_| unreachable!("a message is not too long for AES-GCM"));
        tag.copy_from_slice(made.as_ref());
    }

    pub(super) fn open<const N: usize>(&self, counter: u64, message: &mut [u8; N]) -> bool {
        let (header, sealed) = message.split_at_mut(HEADER);
        self.0
            .open_in_place(nonce(counter), Aad::from(&*header), sealed)
            .is_ok()
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}
