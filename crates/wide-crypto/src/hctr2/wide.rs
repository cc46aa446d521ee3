//! HCTR2 with vector instructions, in three widths from one text.
//!
//! A message is one block, then a *head* of two, then *steps* of sixteen. With the two that the hash begins
//! with (length and tweak) the head is four blocks, and so a whole number of vectors in every width. A
//! step is multiplied with sixteen powers of the hash's key and reduced once; four reductions in a row are
//! what a payload's hash has to wait for. What is hashed the second time is hashed as the keystream is
//! added to it, so that the units for AES and for multiplication have work at the same time.

use crate::BLOCK;
use crate::aes256::{ROUND_KEYS, RoundKeys, decipher, encipher, round_keys};
use crate::field::{POWERS, Powers};
use zerocopy::transmute;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// All that is derived from a key, for every width.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct Expanded {
    /// AES-256's.
    round_keys: RoundKeys,
    /// `E(1)`.
    l: u128,
    /// Of `E(0)`, the sixteenth first.
    powers: Powers,
}

/// The blocks of a message behind its first two that are hashed and enciphered together.
const STEP: usize = POWERS;

/// The blocks of a message before its steps.
const HEAD: usize = 2;

/// The hash's first block for a tweak of one block and whole blocks after it (section 2 of the paper).
const LENGTH: [u8; BLOCK] = (2 * 128 + 2u128).to_le_bytes();

/// Splits what comes after a message's first block.
#[inline]
fn split(rest: &mut [[u8; BLOCK]]) -> Option<(&mut [[u8; BLOCK]; HEAD], &mut [[[u8; BLOCK]; STEP]])> {
    let (head, steps) = rest.split_first_chunk_mut::<HEAD>()?;
    let (steps, none) = steps.as_chunks_mut::<STEP>();
    none.is_empty().then_some((head, steps))
}

/// Whether a message of so many bytes can be taken.
pub(super) const fn takes(length: usize) -> bool {
    const BEFORE: usize = (1 + HEAD) * BLOCK;
    length >= BEFORE && (length - BEFORE).is_multiple_of(STEP * BLOCK)
}

/// The whole of it in one width: what `lanes::$lanes` has, compiled for `$features`. A group of `$group` vectors
/// is enciphered at once: as many as the unit for AES has under way.
macro_rules! width {
    ($lanes:ident, $features:literal, $group:literal) => {
        pub(super) mod $lanes {
            use super::*;
            use crate::field::$lanes::{absorb, powers};
            use crate::lanes::$lanes::*;
            use core::arch::x86_64::*;

            /// Vectors in a step.
            const IN_STEP: usize = STEP / LANES;
            /// Vectors that the hash begins with: length, tweak and head.
            const IN_FIRST: usize = 4 / LANES;

            /// Derives everything from a key.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn expand(key: &[u8; 32]) -> Expanded {
                let round_keys = round_keys(key);
                let h = encipher(&round_keys, transmute!(0u128));
                let l = encipher(&round_keys, transmute!(1u128));
                Expanded {
                    round_keys,
                    l: transmute!(l),
                    powers: powers(h),
                }
            }

            /// The hash after length, tweak and head.
            #[inline]
            #[target_feature(enable = $features)]
            fn begin(key: &Expanded, tweak: &[u8; BLOCK], head: &[[u8; BLOCK]; HEAD]) -> __m128i {
                let blocks = [LENGTH, *tweak, head[0], head[1]];
                let vectors = blocks.as_chunks::<LANES>().0;
                let first: [V; IN_FIRST] = core::array::from_fn(|at| vectors[at]).map(|v| transmute!(v));
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

            /// Enciphers or deciphers in place. A message that it does not take stays as it is.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn apply<const ENCRYPT: bool>(
                key: &Expanded,
                tweak: &[u8; BLOCK],
                message: &mut [u8],
            ) {
                let (blocks, none) = message.as_chunks_mut::<BLOCK>();
                let Some((left, rest)) = blocks.split_first_mut() else {
                    return;
                };
                let Some((head, steps)) = split(rest) else {
                    return;
                };
                debug_assert!(none.is_empty(), "whole blocks");

                let mut hash = begin(key, tweak, head);
                for step in &*steps {
                    let vectors = step.as_chunks::<LANES>().0;
                    let step: [V; IN_STEP] = core::array::from_fn(|at| vectors[at]).map(|v| transmute!(v));
                    hash = absorb(hash, &step, &key.powers);
                }

                let before = _mm_xor_si128(transmute!(*left), hash);
                let after = match ENCRYPT {
                    true => encipher(&key.round_keys, before),
                    false => decipher(&key.round_keys, before),
                };
                let s = _mm_xor_si128(_mm_xor_si128(before, after), transmute!(key.l));
                let s = broadcast(s);

                // Block by block of the head, since it is half a vector in the widest.
                let mut both = [transmute!(head[0]), transmute!(head[1])];
                head_stream(&key.round_keys, s, &mut both);
                *head = transmute!(both);
                let mut hash = begin(key, tweak, head);
                let mut counters = [[0; BLOCK]; LANES];
                for (at, counter) in (HEAD as u64 + 1..).zip(&mut counters) {
                    *counter = transmute!([at, 0]);
                }
                let mut counters = load(&counters);
                for step in steps {
                    let groups = step.as_chunks_mut::<{ $group * LANES }>().0;
                    let mut done = [s; IN_STEP];
                    for (group, done) in groups.iter_mut().zip(done.as_chunks_mut::<$group>().0) {
                        let vectors = group.as_chunks_mut::<LANES>().0;
                        let mut data: [V; $group] =
                            core::array::from_fn(|at| vectors[at]).map(|v| transmute!(v));
                        add_stream(&key.round_keys, s, &mut counters, &mut data);
                        for (to, from) in vectors.iter_mut().zip(data) {
                            *to = store(from);
                        }
                        *done = data;
                    }
                    hash = absorb(hash, &done, &key.powers);
                }
                *left = transmute!(_mm_xor_si128(after, hash));
            }

            /// Adds the keystream's first two blocks.
            #[inline]
            #[target_feature(enable = $features)]
            fn head_stream(keys: &RoundKeys, s: V, data: &mut [__m128i; HEAD]) {
                let mut s_bytes = [[0; BLOCK]; LANES];
                s_bytes.copy_from_slice(&store(s));
                let s: __m128i = transmute!(s_bytes[0]);
                for (at, block) in (1u64..).zip(data) {
                    let stream = encipher(keys, _mm_xor_si128(s, transmute!([at, 0])));
                    *block = _mm_xor_si128(*block, stream);
                }
            }
        }
    };
}

width!(one, "aes,pclmulqdq,sse2,ssse3,sse4.1", 8);
width!(two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq", 8);
width!(four, "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq", 4);
