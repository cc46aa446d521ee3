//! AES-256-GCM against `ring`, in every width that this processor has. Wycheproof's cases are in
//! `src/gcm/wide.rs`, since no message has their lengths.
#![allow(clippy::unwrap_used)]

use mixline_wide_crypto::Width;
use mixline_wide_crypto::gcm::{DATAGRAM, Forged, Gcm, HEADER, PAYLOAD, TAG};
use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// A length that messages may have.
trait Message: Copy {
    fn sealed(&mut self, gcm: &Gcm, counter: u64);
    fn opened(&mut self, gcm: &Gcm, counter: u64) -> Result<(), Forged>;
}

impl Message for [u8; DATAGRAM] {
    fn sealed(&mut self, gcm: &Gcm, counter: u64) {
        gcm.seal(counter, self);
    }

    fn opened(&mut self, gcm: &Gcm, counter: u64) -> Result<(), Forged> {
        gcm.open(counter, self)
    }
}

impl Message for [u8; PAYLOAD] {
    fn sealed(&mut self, gcm: &Gcm, counter: u64) {
        gcm.seal_payload(counter, self);
    }

    fn opened(&mut self, gcm: &Gcm, counter: u64) -> Result<(), Forged> {
        gcm.open_payload(counter, self)
    }
}

/// What `ring` makes of a message.
fn expected<const N: usize>(key: &[u8; 32], counter: u64, plain: &[u8; N]) -> [u8; N] {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    let mut message = *plain;
    let (header, rest) = message.split_at_mut(HEADER);
    let (sealed, tag) = rest.split_at_mut(N - HEADER - TAG);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let made = key
        .seal_in_place_separate_tag(nonce, Aad::from(&*header), sealed)
        .unwrap();
    tag.copy_from_slice(made.as_ref());
    message
}

fn agrees<const N: usize>(key: &[u8; 32], counter: u64, plain: &[u8; N])
where
    [u8; N]: Message,
{
    let expected = expected(key, counter, plain);
    for width in Width::available() {
        let gcm = Gcm::with(key, width);
        let mut message = *plain;
        message.sealed(&gcm, counter);
        assert!(message == expected, "{N} bytes sealed otherwise, {width}");
        message.opened(&gcm, counter).unwrap();
        assert!(
            message[..N - TAG] == plain[..N - TAG],
            "{N} bytes opened otherwise, {width}"
        );
        assert!(
            message[N - TAG..] == expected[N - TAG..],
            "the tag stays, {N} bytes, {width}"
        );
    }
}

/// Bytes that look random.
fn filled<const N: usize>(seed: u64) -> [u8; N] {
    let mut state = seed | 1;
    std::array::from_fn(|_| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    })
}

proptest! {
    #[test]
    fn agrees_with_ring(key: [u8; 32], counter: u64, seed: u64) {
        agrees::<DATAGRAM>(&key, counter, &filled(seed));
        agrees::<PAYLOAD>(&key, counter, &filled(seed));
    }
}

#[test]
fn special_messages() {
    special::<DATAGRAM>();
    special::<PAYLOAD>();
}

fn special<const N: usize>()
where
    [u8; N]: Message,
{
    for key in [[0; 32], [0xff; 32], [0x80; 32]] {
        for counter in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            for byte in [0, 0xff, 1, 0x80] {
                agrees(&key, counter, &[byte; N]);
            }
        }
        for bit in (0..N * 8).step_by(61) {
            let mut plain = [0; N];
            plain[bit / 8] = 1 << (bit % 8);
            agrees(&key, 3, &plain);
        }
    }
}

/// Every bit counts: of the header, of what is enciphered, of the tag; and so do counter and key. What is
/// refused leaves nothing behind.
#[test]
fn what_was_changed_is_refused() {
    changed_is_refused::<DATAGRAM>();
    changed_is_refused::<PAYLOAD>();
}

fn changed_is_refused<const N: usize>()
where
    [u8; N]: Message,
{
    let (key, plain) = ([7; 32], filled::<N>(1));
    for width in Width::available() {
        let gcm = Gcm::with(&key, width);
        let mut sealed = plain;
        sealed.sealed(&gcm, 9);
        let refused = |gcm: &Gcm, counter: u64, mut message: [u8; N], what: &str| {
            let opened = message.opened(gcm, counter);
            assert_eq!(opened, Err(Forged), "{what}, {N} bytes, {width}");
            let within = &message[HEADER..N - TAG];
            assert!(
                within.iter().all(|byte| *byte == 0),
                "{what}: something is left, {N} bytes, {width}"
            );
        };
        for bit in 0..N * 8 {
            let mut changed = sealed;
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&gcm, 9, changed, "another bit");
        }
        refused(&gcm, 10, sealed, "another counter");
        refused(&gcm, 9 | 1 << 63, sealed, "another counter");
        refused(&Gcm::with(&[8; 32], width), 9, sealed, "another key");
        assert_eq!(sealed.opened(&gcm, 9), Ok(()));
        assert!(sealed[..N - TAG] == plain[..N - TAG], "{N} bytes, {width}");
    }
}
