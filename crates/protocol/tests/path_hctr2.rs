//! HCTR2-AES-256 against known answers and against another implementation.
#![allow(clippy::unwrap_used)]

use data_encoding::HEXLOWER;
use hctr2_rs::Hctr2_256;
use mixline_protocol::hctr2::Hctr2;
use proptest::prelude::*;

/// Made by a third, slow implementation: lengths about the edges of blocks and of the steps
/// in which the hash and the keystream are computed.
const ANSWERS: &str = include_str!("vectors/path_hctr2.json");

#[test]
fn known_answers() {
    let answers: Vec<std::collections::HashMap<String, String>> =
        serde_json::from_str(ANSWERS).unwrap();
    assert_eq!(answers.len(), 16);
    for answer in answers {
        let [key, tweak, plain, cipher] = ["key", "tweak", "plain", "cipher"]
            .map(|field| HEXLOWER.decode(answer[field].as_bytes()).unwrap());
        let hctr2 = Hctr2::new(&key.try_into().unwrap());
        let tweak = tweak.try_into().unwrap();
        let mut message = plain.clone();
        hctr2.encrypt(&tweak, &mut message);
        assert_eq!(message, cipher, "{} bytes", plain.len());
        hctr2.decrypt(&tweak, &mut message);
        assert_eq!(message, plain, "{} bytes", plain.len());
    }
}

/// Every length from one block on, so that no edge between two ways of computing is missed.
#[test]
fn agrees_with_another_implementation_at_every_length() {
    let key: [u8; 32] = std::array::from_fn(|i| (i * 7) as u8);
    let tweak = [0x5a; 16];
    let (ours, theirs) = (Hctr2::new(&key), Hctr2_256::new(&key));
    for length in 16..1300 {
        let plain: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        let mut expected = vec![0; length];
        theirs.encrypt(&plain, &tweak, &mut expected).unwrap();
        let mut message = plain.clone();
        ours.encrypt(&tweak, &mut message);
        assert_eq!(message, expected, "{length} bytes");
        ours.decrypt(&tweak, &mut message);
        assert_eq!(message, plain, "{length} bytes");
    }
}

proptest! {
    #[test]
    fn agrees_with_another_implementation(
        key: [u8; 32],
        tweak: [u8; 16],
        plain in proptest::collection::vec(any::<u8>(), 16..4096),
    ) {
        let mut expected = vec![0; plain.len()];
        Hctr2_256::new(&key).encrypt(&plain, &tweak, &mut expected).unwrap();
        let ours = Hctr2::new(&key);
        let mut message = plain.clone();
        ours.encrypt(&tweak, &mut message);
        prop_assert_eq!(&message, &expected);
        ours.decrypt(&tweak, &mut message);
        prop_assert_eq!(message, plain);
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
        let apply = |key: &[u8; 32], tweak: &[u8; 16], message: &[u8]| {
            let mut message = message.to_vec();
            let hctr2 = Hctr2::new(key);
            if decrypt { hctr2.decrypt(tweak, &mut message) } else { hctr2.encrypt(tweak, &mut message) }
            message
        };
        let before = apply(&key, &tweak, &plain);
        let (mut other_key, mut other_tweak, mut other) = (key, tweak, plain.clone());
        other_key[bit / 8 % 32] ^= 1 << (bit % 8);
        other_tweak[bit / 8 % 16] ^= 1 << (bit % 8);
        other[bit / 8] ^= 1 << (bit % 8);
        for after in [apply(&other_key, &tweak, &plain), apply(&key, &other_tweak, &plain), apply(&key, &tweak, &other)] {
            let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
            // 1072 / 256 = 4.2 on average; 40 would be one in 10^24.
            prop_assert!(same < 40, "{} bytes unchanged", same);
        }
    }
}
