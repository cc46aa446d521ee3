//! AES-256-GCM against `ring`, in every width that this processor has. Wycheproof's cases are in
//! `src/gcm/wide.rs`, since no datagram has their lengths.
#![allow(clippy::unwrap_used)]

use mixline_wide_crypto::Width;
use mixline_wide_crypto::gcm::{DATAGRAM, Forged, Gcm, HEADER, TAG};
use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// What `ring` makes of a datagram.
fn expected(key: &[u8; 32], counter: u64, plain: &[u8; DATAGRAM]) -> [u8; DATAGRAM] {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    let mut datagram = *plain;
    let (header, rest) = datagram.split_at_mut(HEADER);
    let (sealed, tag) = rest.split_at_mut(DATAGRAM - HEADER - TAG);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let made = key
        .seal_in_place_separate_tag(nonce, Aad::from(&*header), sealed)
        .unwrap();
    tag.copy_from_slice(made.as_ref());
    datagram
}

fn agrees(key: &[u8; 32], counter: u64, plain: &[u8; DATAGRAM]) {
    let expected = expected(key, counter, plain);
    for width in Width::available() {
        let gcm = Gcm::with(key, width);
        let mut datagram = *plain;
        gcm.seal(counter, &mut datagram);
        assert!(datagram == expected, "sealed otherwise, {width}");
        gcm.open(counter, &mut datagram).unwrap();
        assert!(
            datagram[..DATAGRAM - TAG] == plain[..DATAGRAM - TAG],
            "opened otherwise, {width}"
        );
        assert!(
            datagram[DATAGRAM - TAG..] == expected[DATAGRAM - TAG..],
            "the tag stays, {width}"
        );
    }
}

/// Bytes that look random.
fn filled(seed: u64) -> [u8; DATAGRAM] {
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
        agrees(&key, counter, &filled(seed));
    }
}

#[test]
fn special_datagrams() {
    for key in [[0; 32], [0xff; 32], [0x80; 32]] {
        for counter in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            for byte in [0, 0xff, 1, 0x80] {
                agrees(&key, counter, &[byte; DATAGRAM]);
            }
        }
        for bit in (0..DATAGRAM * 8).step_by(61) {
            let mut plain = [0; DATAGRAM];
            plain[bit / 8] = 1 << (bit % 8);
            agrees(&key, 3, &plain);
        }
    }
}

/// Every bit counts: of the header, of what is enciphered, of the tag; and so do counter and key. What is
/// refused leaves nothing behind.
#[test]
fn what_was_changed_is_refused() {
    let (key, plain) = ([7; 32], filled(1));
    for width in Width::available() {
        let gcm = Gcm::with(&key, width);
        let mut sealed = plain;
        gcm.seal(9, &mut sealed);
        let refused = |gcm: &Gcm, counter: u64, mut datagram: [u8; DATAGRAM], what: &str| {
            assert_eq!(
                gcm.open(counter, &mut datagram),
                Err(Forged),
                "{what}, {width}"
            );
            let within = &datagram[HEADER..DATAGRAM - TAG];
            assert!(
                within.iter().all(|byte| *byte == 0),
                "{what}: something is left, {width}"
            );
        };
        for bit in 0..DATAGRAM * 8 {
            let mut changed = sealed;
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&gcm, 9, changed, "another bit");
        }
        refused(&gcm, 10, sealed, "another counter");
        refused(&gcm, 9 | 1 << 63, sealed, "another counter");
        refused(&Gcm::with(&[8; 32], width), 9, sealed, "another key");
        assert_eq!(gcm.open(9, &mut sealed), Ok(()));
        assert!(
            sealed[..DATAGRAM - TAG] == plain[..DATAGRAM - TAG],
            "{width}"
        );
    }
}
