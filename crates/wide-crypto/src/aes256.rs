//! AES-256: the key schedule, and single blocks.

use crate::BLOCK;
use core::arch::x86_64::*;
use zerocopy::transmute;

/// Round keys of AES-256.
pub(crate) const ROUND_KEYS: usize = 15;

/// An expanded key.
pub(crate) type RoundKeys = [u128; ROUND_KEYS];

/// Writes AES-256's key schedule (FIPS 197, section 5.2).
///
/// `AESKEYGENASSIST` is slow on many processors. `AESENCLAST` substitutes bytes too, and since all four
/// columns are the same here, its shift of rows moves nothing.
#[inline]
#[target_feature(enable = "aes,sse2,ssse3")]
pub(crate) fn write_round_keys(key: &[u8; 32], keys: &mut RoundKeys) {
    /// The last word in all four places, each rotated by a byte.
    const ROTATED: [u8; BLOCK] = [
        13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12,
    ];
    /// Adds to each word those before it, and what the last word of the key before has become.
    #[inline]
    #[target_feature(enable = "aes,sse2")]
    fn spread(words: __m128i, last: __m128i) -> __m128i {
        let words = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
        let words = _mm_xor_si128(words, _mm_slli_si128::<8>(words));
        _mm_xor_si128(words, last)
    }
    [keys[0], keys[1]] = transmute!(*key);
    for at in 2..ROUND_KEYS {
        let last = transmute!(keys[at - 1]);
        let last = match at % 2 {
            0 => {
                let constant = 1u32 << (at / 2 - 1);
                let rotated = _mm_shuffle_epi8(last, transmute!(ROTATED));
                _mm_aesenclast_si128(rotated, transmute!([constant; 4]))
            }
            _ => _mm_aesenclast_si128(_mm_shuffle_epi32::<0xff>(last), _mm_setzero_si128()),
        };
        keys[at] = transmute!(spread(transmute!(keys[at - 2]), last));
    }
}

/// One block enciphered.
#[inline]
#[target_feature(enable = "aes,sse2")]
pub(crate) fn encipher(keys: &RoundKeys, block: __m128i) -> __m128i {
    let mut state = _mm_xor_si128(block, transmute!(keys[0]));
    for key in &keys[1..ROUND_KEYS - 1] {
        state = _mm_aesenc_si128(state, transmute!(*key));
    }
    _mm_aesenclast_si128(state, transmute!(keys[ROUND_KEYS - 1]))
}

/// One block deciphered, with the round keys of the equivalent inverse cipher (FIPS 197, section 5.3.5), which
/// are made on the way: they wait for nothing else.
#[inline]
#[target_feature(enable = "aes,sse2")]
pub(crate) fn decipher(keys: &RoundKeys, block: __m128i) -> __m128i {
    let mut state = _mm_xor_si128(block, transmute!(keys[ROUND_KEYS - 1]));
    for key in keys[1..ROUND_KEYS - 1].iter().rev() {
        state = _mm_aesdec_si128(state, _mm_aesimc_si128(transmute!(*key)));
    }
    _mm_aesdeclast_si128(state, transmute!(keys[0]))
}
