//! HCTR2-AES-256 against known answers and against another implementation, in every width that this
//! processor has.
#![allow(clippy::unwrap_used)]

use data_encoding::HEXLOWER;
use hctr2_rs::Hctr2_256;
use mixline_wide_crypto::Width;
use mixline_wide_crypto::hctr2::{Compact, Hctr2};
use proptest::prelude::*;
use std::collections::HashMap;

/// Answers for messages of 48 bytes, which the authors of HCTR2 have published (github.com/google/hctr2,
/// `HCTR2_AES256.json`), and two of a third, slow implementation, one of them of a payload's length.
const ANSWERS: &str = include_str!("vectors/hctr2.json");

#[test]
fn known_answers() {
    let answers: Vec<HashMap<String, String>> = serde_json::from_str(ANSWERS).unwrap();
    assert_eq!(answers.len(), 12);
    for answer in answers {
        let [key, tweak, plain, cipher] = ["key", "tweak", "plain", "cipher"]
            .map(|field| HEXLOWER.decode(answer[field].as_bytes()).unwrap());
        let (key, tweak) = (key.try_into().unwrap(), tweak.try_into().unwrap());
        match plain.len() {
            48 => is::<48>(&key, &tweak, plain, &cipher),
            1072 => is::<1072>(&key, &tweak, plain, &cipher),
            length => panic!("{length} bytes"),
        }
    }
}

fn is<const N: usize>(key: &[u8; 32], tweak: &[u8; 16], plain: Vec<u8>, cipher: &[u8]) {
    let plain: [u8; N] = plain.try_into().unwrap();
    for width in Width::available() {
        let hctr2 = Hctr2::with(key, width);
        let mut message = plain;
        hctr2.encrypt(tweak, &mut message);
        assert_eq!(message[..], *cipher, "{N} bytes, {width}");
        hctr2.decrypt(tweak, &mut message);
        assert_eq!(message, plain, "{N} bytes, {width}");
        let mut message: [u8; N] = cipher.try_into().unwrap();
        Compact::with(key, width).decrypt(tweak, &mut message);
        assert_eq!(message, plain, "{N} bytes, {width}, compact");
    }
}

/// A message of `N` bytes, in all widths and by another implementation.
fn agrees<const N: usize>(key: &[u8; 32], tweak: &[u8; 16], plain: &[u8]) {
    let mut expected = vec![0; N];
    Hctr2_256::new(key)
        .encrypt(&plain[..N], tweak, &mut expected)
        .unwrap();
    is::<N>(key, tweak, plain[..N].to_vec(), &expected);
}

proptest! {
    #[test]
    fn agrees_with_another_implementation(
        key: [u8; 32],
        tweak: [u8; 16],
        plain in proptest::collection::vec(any::<u8>(), 2096),
    ) {
        agrees::<48>(&key, &tweak, &plain);
        agrees::<304>(&key, &tweak, &plain);
        agrees::<560>(&key, &tweak, &plain);
        agrees::<816>(&key, &tweak, &plain);
        agrees::<1072>(&key, &tweak, &plain);
        agrees::<1328>(&key, &tweak, &plain);
        agrees::<2096>(&key, &tweak, &plain);
    }

    /// A wide block: one bit of message, tweak or key changes about half of all bits.
    #[test]
    fn one_bit_changes_all(
        key: [u8; 32],
        tweak: [u8; 16],
        plain in proptest::collection::vec(any::<u8>(), 1072),
        bit in 0..1072usize * 8,
        decrypt: bool,
    ) {
        let plain: [u8; 1072] = plain.try_into().unwrap();
        for width in Width::available() {
            let apply = |key: &[u8; 32], tweak: &[u8; 16], mut message: [u8; 1072]| {
                let hctr2 = Hctr2::with(key, width);
                if decrypt {
                    hctr2.decrypt(tweak, &mut message);
                } else {
                    hctr2.encrypt(tweak, &mut message);
                }
                message
            };
            let before = apply(&key, &tweak, plain);
            let (mut other_key, mut other_tweak, mut other) = (key, tweak, plain);
            other_key[bit / 8 % 32] ^= 1 << (bit % 8);
            other_tweak[bit / 8 % 16] ^= 1 << (bit % 8);
            other[bit / 8] ^= 1 << (bit % 8);
            for after in [
                apply(&other_key, &tweak, plain),
                apply(&key, &other_tweak, plain),
                apply(&key, &tweak, other),
            ] {
                let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
                // 1072 / 256 = 4.2 on average; 40 would be one in 10^24.
                prop_assert!(same < 40, "{} bytes unchanged, {}", same, width);
            }
        }
    }
}

/// Keys whose hash key or blocks are special: zeros, ones, single bits.
#[test]
fn special_messages() {
    for key in [[0; 32], [0xff; 32], [0x80; 32]] {
        for tweak in [[0; 16], [0xff; 16]] {
            for byte in [0, 0xff, 1, 0x80] {
                agrees::<1072>(&key, &tweak, &[byte; 1072]);
            }
            for bit in (0..1072 * 8).step_by(61) {
                let mut plain = [0; 1072];
                plain[bit / 8] = 1 << (bit % 8);
                agrees::<1072>(&key, &tweak, &plain);
            }
        }
    }
}
