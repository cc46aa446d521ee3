//! HCTR2 with vector instructions, in three widths from one text.
//!
//! Sixteen blocks are hashed with sixteen powers of the hash's key and reduced once: four reductions one after the
//! other are what a payload's hash has to wait for. What is hashed the second time is hashed as the
//! keystream is added to it, so that the units for AES and for multiplication have work at the same time.

use super::{HEAD, LENGTH, STEP};
use crate::BLOCK;
use crate::aes256::{ROUND_KEYS, RoundKeys, decipher, encipher, write_round_keys};
use crate::field::{POWERS, Powers};
use zerocopy::transmute;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// All that is derived from a key, for every width.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct Expanded {
    /// AES-256's.
    round_keys: RoundKeys,
    /// `E(1)`.
    l: u128,
    /// Of `E(0)`, the sixteenth first.
    powers: Powers,
}

impl Expanded {
    /// To be filled where it stands: a copy would have to be erased, too.
    pub(super) const EMPTY: Self = Self {
        round_keys: [0; ROUND_KEYS],
        l: 0,
        powers: [0; POWERS],
    };
}

const _: () = assert!(STEP == POWERS);

/// The whole of it in one width: what `lanes::$lanes` has, compiled for `$features`. A group of `$group` vectors
/// is enciphered at once: as many as the unit for AES has under way.
macro_rules! width {
    ($lanes:ident, $features:literal, $group:literal) => {
        pub(super) mod $lanes {
            use super::*;
            use crate::field::$lanes::{absorb, write_powers};
            use crate::lanes::$lanes::*;
            use core::arch::x86_64::*;

            /// Derives everything from a key.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn expand(key: &[u8; 32], to: &mut Expanded) {
                write_round_keys(key, &mut to.round_keys);
                let h = encipher(&to.round_keys, transmute!(0u128));
                to.l = transmute!(encipher(&to.round_keys, transmute!(1u128)));
                write_powers(h, &mut to.powers);
            }

            /// Derives everything from a key, deciphers in place, and erases what was derived.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn decrypt_once<const N: usize>(
                key: &[u8; 32],
                tweak: &[u8; BLOCK],
                message: &mut [u8; N],
            ) {
                let mut expanded = Expanded::EMPTY;
                expand(key, &mut expanded);
                apply::<false, N>(&expanded, tweak, message);
            }

            /// The hash after length, tweak and head.
            #[inline]
            #[target_feature(enable = $features)]
            fn begin(key: &Expanded, tweak: &[u8; BLOCK], head: &[[u8; BLOCK]; HEAD]) -> __m128i {
                let first = [LENGTH, *tweak, head[0], head[1]];
                absorb(transmute!(0u128), &first, &key.powers)
            }

            /// Adds the keystream from `counters` on to the blocks of `N` vectors.
            #[inline]
            #[target_feature(enable = $features)]
            fn add_stream<const N: usize>(
                keys: &RoundKeys,
                s: V,
                counters: &mut V,
                data: &mut [V; N],
            ) {
                let next = broadcast(transmute!([LANES as u64, 0]));
                let first = xor(s, broadcast(transmute!(keys[0])));
                let mut stream = [first; N];
                for vector in &mut stream {
                    *vector = xor(*vector, *counters);
                    *counters = add(*counters, next);
                }
                for key in &keys[1..ROUND_KEYS - 1] {
                    let key = broadcast(transmute!(*key));
                    for vector in &mut stream {
                        *vector = aesenc(*vector, key);
                    }
                }
                let last = broadcast(transmute!(keys[ROUND_KEYS - 1]));
                for (to, from) in data.iter_mut().zip(stream) {
                    // The last round adds its key at the end: the data may be added to the key.
                    *to = aesenclast(from, xor(last, *to));
                }
            }

            /// Enciphers or deciphers in place.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn apply<const ENCRYPT: bool, const N: usize>(
                key: &Expanded,
                tweak: &[u8; BLOCK],
                message: &mut [u8; N],
            ) {
                let (blocks, _) = message.as_chunks_mut::<BLOCK>();
                let Some(([left], rest)) = blocks.split_first_chunk_mut() else {
                    unreachable!("no other lengths compile");
                };
                let Some((head, rest)) = rest.split_first_chunk_mut::<HEAD>() else {
                    unreachable!("no other lengths compile");
                };
                let (steps, _) = rest.as_chunks_mut::<STEP>();

                let mut hash = begin(key, tweak, head);
                for step in &*steps {
                    hash = absorb(hash, step, &key.powers);
                }

                let before = _mm_xor_si128(transmute!(*left), hash);
                let after = match ENCRYPT {
                    true => encipher(&key.round_keys, before),
                    false => decipher(&key.round_keys, before),
                };
                let s = _mm_xor_si128(_mm_xor_si128(before, after), transmute!(key.l));

                // The head is half a vector in the widest, so it goes block by block.
                for (counter, block) in (1u128..).zip(&mut *head) {
                    let stream = encipher(&key.round_keys, _mm_xor_si128(s, transmute!(counter)));
                    *block = transmute!(_mm_xor_si128(transmute!(*block), stream));
                }
                let mut hash = begin(key, tweak, head);
                let s = broadcast(s);
                let mut counters = [0u128; LANES];
                for (at, counter) in (HEAD as u128 + 1..).zip(&mut counters) {
                    *counter = at;
                }
                let mut counters: V = transmute!(counters);
                for step in steps {
                    for group in step.as_chunks_mut::<{ $group * LANES }>().0 {
                        let mut data: [V; $group] = transmute!(*group);
                        add_stream(&key.round_keys, s, &mut counters, &mut data);
                        *group = transmute!(data);
                    }
                    hash = absorb(hash, step, &key.powers);
                }
                *left = transmute!(_mm_xor_si128(after, hash));
            }
        }
    };
}

width!(one, "aes,pclmulqdq,sse2,ssse3,sse4.1", 8);
width!(two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq", 8);
width!(
    four,
    "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq",
    4
);
