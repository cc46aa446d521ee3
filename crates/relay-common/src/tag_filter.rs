//! Where a datagram's tag stands in the replay filter of the kernel.
//!
//! The filter is a blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007, section 3) of 512-bit blocks: a tag selects
//! one block, and one bit in each of its eight words, so that a test touches one cache
//! line. The position depends on a secret, so that nobody can aim at a block. The
//! kernel tests; user space sets, and only once a datagram has authenticated.
//!
//! The mixing is SipHash-1-3 (Aumasson, Bernstein 2012, with the reduced rounds that
//! hash tables use) of the 16 tag bytes, short enough for the verifier and the same on
//! both sides. The tag is already a keyed hash; what is needed here is that its owner
//! cannot predict the block.

/// Words of a block.
pub const WORDS: usize = 8;

/// One block: a cache line.
pub type Block = [u64; WORDS];

/// Where a tag stands: the block, and one bit in each of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which block, below the number of blocks.
    pub block: u32,
    /// Six bits for each word, the lowest for the first.
    pub bits: u64,
}

#[inline(always)]
const fn round(mut v: [u64; 4]) -> [u64; 4] {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
    v
}

/// SipHash-1-3 of two little-endian words, that is of 16 bytes.
#[inline(always)]
#[must_use]
pub const fn sip13(key: [u64; 2], words: [u64; 2]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    v[3] ^= words[0];
    v = round(v);
    v[0] ^= words[0];
    v[3] ^= words[1];
    v = round(v);
    v[0] ^= words[1];
    let length = 16 << 56;
    v[3] ^= length;
    v = round(v);
    v[0] ^= length;
    v[2] ^= 0xff;
    v = round(round(round(v)));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

impl Position {
    /// The position of `tag` in a filter of `mask + 1` blocks (a power of two) under `key`.
    #[inline(always)]
    #[must_use]
    pub const fn of(tag: [u64; 2], key: [u64; 2], mask: u32) -> Self {
        let hash = sip13(key, tag);
        // 48 bits choose the bits; the block comes from a multiplication by an odd number, which
        // carries the low bits into the high ones, so that the two do not repeat each other.
        let block = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & mask;
        Self {
            block,
            bits: hash & 0xffff_ffff_ffff,
        }
    }

    /// The bit of word `i`, as a mask.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self, i: usize) -> u64 {
        1 << ((self.bits >> (6 * i)) & 63)
    }

    /// Whether all eight bits are set in `block`.
    #[inline(always)]
    #[must_use]
    pub const fn is_in(self, block: &Block) -> bool {
        let mut missing = 0;
        let mut i = 0;
        while i < WORDS {
            missing |= self.bit(i) & !block[i];
            i += 1;
        }
        missing == 0
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A generator of test tags (`SplitMix64`).
    fn tags(seed: u64, n: usize) -> Vec<[u64; 2]> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        (0..n).map(|_| [next(), next()]).collect()
    }

    #[test]
    fn hash_is_siphash_1_3() {
        use core::hash::Hasher as _;
        for [a, b] in tags(1, 100) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(11, 22);
            reference.write(&a.to_le_bytes());
            reference.write(&b.to_le_bytes());
            assert_eq!(sip13([11, 22], [a, b]), reference.finish());
        }
    }

    #[test]
    fn a_filter_at_24_bits_a_tag_has_few_false_positives_and_no_false_negatives() {
        let mask = (1u32 << 12) - 1;
        let mut blocks = vec![[0u64; WORDS]; 1 << 12];
        let set = tags(2, (512 << 12) / 24);
        let key = [3, 4];
        for tag in &set {
            let position = Position::of(*tag, key, mask);
            for (i, word) in blocks[position.block as usize].iter_mut().enumerate() {
                *word |= position.bit(i);
            }
        }
        let holds = |tag: &[u64; 2]| {
            let position = Position::of(*tag, key, mask);
            position.is_in(&blocks[position.block as usize])
        };
        assert!(set.iter().all(holds));
        let wrong = tags(5, 1_000_000).iter().filter(|t| holds(t)).count();
        assert!(wrong < 400, "{wrong} false positives in a million");
    }

    #[test]
    fn the_place_depends_on_the_key() {
        let same = tags(6, 1000)
            .into_iter()
            .filter(|t| {
                Position::of(*t, [1, 2], 1023).block == Position::of(*t, [1, 3], 1023).block
            })
            .count();
        assert!(same < 20, "{same}");
    }
}
