//! AES-256-GCM with vector instructions, in two widths from one text.
//!
//! A datagram is 88 blocks, and so is what is hashed for its tag: the header, what is enciphered, and where
//! the tag will stand the two lengths. The counters fit too: the first block of the keystream is what masks the
//! tag, the second is added to the block behind the header, and so on. So all three are gone through together, a
//! vector at a time, and only the first and the last vector are special.
//!
//! GHASH is POLYVAL with the bytes of all blocks in the opposite order and another key (RFC 8452, appendix A).

use super::DATAGRAM;
use crate::BLOCK;
use crate::aes256::{ROUND_KEYS, RoundKeys, encipher, round_keys};
use crate::field::{POWERS, Powers};
use zerocopy::transmute;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// All that is derived from a key, for every width.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct Expanded {
    round_keys: RoundKeys,
    /// Of POLYVAL's key, the sixteenth first.
    powers: Powers,
}

/// Blocks of a datagram.
const BLOCKS: usize = DATAGRAM / BLOCK;
/// Blocks that are hashed before a reduction.
const STEP: usize = POWERS;
/// The blocks before the steps, and those behind them.
const EDGE: usize = 4;

const _: () = assert!(BLOCKS == 2 * EDGE + 5 * STEP);

/// The lengths in bits of what is authenticated only and of what is enciphered, as they are hashed.
const LENGTHS: [u8; BLOCK] = {
    let lengths = (BLOCK as u128 * 8) << 64 | ((BLOCKS - 2) * BLOCK * 8) as u128;
    lengths.to_be_bytes()
};

/// The first block of the counters (section 7.1, step 2): nonce, and 1.
fn first_counter(counter: u64) -> [u8; BLOCK] {
    ((u128::from(counter) << 32) | 1).to_be_bytes()
}

macro_rules! width {
    ($lanes:ident, $features:literal, $group:literal) => {
        pub(super) mod $lanes {
            use super::*;
            use crate::field::$lanes::{absorb, powers};
            use crate::lanes::$lanes::*;
            use core::arch::x86_64::*;

            /// Derives everything from a key.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn expand(key: &[u8; 32]) -> Expanded {
                let round_keys = round_keys(key);
                let h: u128 = transmute!(encipher(&round_keys, transmute!(0u128)));
                // Times x in POLYVAL's field.
                let h = h.swap_bytes();
                let carry = 0u128.wrapping_sub(h >> 127);
                let h = (h << 1) ^ (carry & (0xc200_0000_0000_0000 << 64 | 1));
                Expanded {
                    round_keys,
                    powers: powers(transmute!(h)),
                }
            }

            /// Enciphers in place, and writes the tag.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn seal(
                key: &Expanded,
                counter: u64,
                datagram: &mut [u8; DATAGRAM],
            ) {
                let tag = apply::<true>(key, counter, datagram);
                datagram[DATAGRAM - BLOCK..].copy_from_slice(&tag);
            }

            /// Deciphers in place; tells whether the tag is right.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn open(
                key: &Expanded,
                counter: u64,
                datagram: &mut [u8; DATAGRAM],
            ) -> bool {
                let tag = u128::from_ne_bytes(apply::<false>(key, counter, datagram));
                let mut stands = [0; BLOCK];
                stands.copy_from_slice(&datagram[DATAGRAM - BLOCK..]);
                // All of it at once, so in the same time wherever they differ.
                tag == u128::from_ne_bytes(stands)
            }

            /// Adds the keystream to all but header and tag; gives the tag.
            #[inline]
            #[target_feature(enable = $features)]
            fn apply<const SEAL: bool>(
                key: &Expanded,
                counter: u64,
                datagram: &mut [u8; DATAGRAM],
            ) -> [u8; BLOCK] {
                let (blocks, _) = datagram.as_chunks_mut::<BLOCK>();
                let (first, blocks) = blocks.split_at_mut(EDGE);
                let (steps, last) = blocks.split_at_mut(BLOCKS - 2 * EDGE);

                let mut counters = [first_counter(counter); LANES];
                for (at, counter) in (1..).zip(&mut counters) {
                    counter[BLOCK - 1] = at;
                }
                let mut counters = load(&counters);

                // Header and tag are kept from the keystream; what stood in the header's place masks the tag.
                let header = first[0];
                let tag = last[EDGE - 1];
                let mut all = [[0; BLOCK]; EDGE];
                all.copy_from_slice(first);
                all[0] = [0; BLOCK];
                let mut edge: [V; EDGE / LANES] = transmute!(all);
                let mut hashed = edge;
                add_stream(&key.round_keys, &mut counters, &mut edge);
                if SEAL {
                    hashed = edge;
                }
                let done: [[u8; BLOCK]; EDGE] = transmute!(edge);
                let mask = done[0];
                first[1..].copy_from_slice(&done[1..]);
                let mut blocks: [[u8; BLOCK]; EDGE] = transmute!(hashed);
                blocks[0] = header;
                let hashed: [V; EDGE / LANES] = transmute!(blocks);
                let mut hash = absorb(transmute!(0u128), &hashed.map(|v| reverse(v)), &key.powers);

                let (steps, _) = steps.as_chunks_mut::<STEP>();
                for step in steps {
                    let mut hashed = [counters; STEP / LANES];
                    let groups = step.as_chunks_mut::<{ $group * LANES }>().0;
                    for (group, hashed) in groups.iter_mut().zip(hashed.as_chunks_mut::<$group>().0) {
                        let mut data: [V; $group] = transmute!(*group);
                        let before = data;
                        add_stream(&key.round_keys, &mut counters, &mut data);
                        *group = transmute!(data);
                        *hashed = match SEAL {
                            true => data,
                            false => before,
                        };
                    }
                    hash = absorb(hash, &hashed.map(|v| reverse(v)), &key.powers);
                }

                let mut all = [[0; BLOCK]; EDGE];
                all.copy_from_slice(last);
                let mut edge: [V; EDGE / LANES] = transmute!(all);
                let before = edge;
                add_stream(&key.round_keys, &mut counters, &mut edge);
                let mut done: [[u8; BLOCK]; EDGE] = transmute!(edge);
                done[EDGE - 1] = tag;
                last.copy_from_slice(&done);
                let mut hashed: [[u8; BLOCK]; EDGE] = match SEAL {
                    true => done,
                    false => transmute!(before),
                };
                hashed[EDGE - 1] = LENGTHS;
                let hashed: [V; EDGE / LANES] = transmute!(hashed);
                let hash = absorb(hash, &hashed.map(|v| reverse(v)), &key.powers);
                let hash: u128 = transmute!(hash);
                (hash.swap_bytes() ^ u128::from_ne_bytes(mask)).to_ne_bytes()
            }

            /// Adds the next `N` vectors of the keystream.
            #[inline]
            #[target_feature(enable = $features)]
            fn add_stream<const N: usize>(keys: &RoundKeys, counters: &mut V, data: &mut [V; N]) {
                // There are fewer than 256 blocks: the last byte counts, and nothing is carried.
                let next = broadcast(transmute!([0, (LANES as u64) << 56]));
                let first = broadcast(transmute!(keys[0]));
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
        }
    };
}

width!(two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq", 8);
width!(
    four,
    "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq",
    4
);
