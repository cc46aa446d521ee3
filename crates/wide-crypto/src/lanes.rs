//! The instructions of three widths under one set of names, so that one text serves them all.

/// Where each byte comes from.
const REVERSED: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// One module of instructions. `$lanes` blocks are in a vector `$V`; what is not the same instruction
/// with another prefix in every width is spelled out.
macro_rules! lanes {
    (
        $(#[$doc:meta])*
        $name:ident, $features:literal, $lanes:literal, $V:ident,
        xor: $xor:ident, and: $and:ident, add: $add:ident, clmul: $clmul:ident, shuffle: $shuffle:ident, bytes: $bytes:ident,
        left: $left:ident, right: $right:ident, aesenc: $aesenc:ident, aesenclast: $aesenclast:ident,
        broadcast: |$one:ident| $broadcast:expr,
        low: |$low:ident| $to_low:expr,
        sum: |$all:ident| $sum:expr,
    ) => {
        $(#[$doc])*
        pub(crate) mod $name {
            use super::REVERSED;
            use core::arch::x86_64::*;
            use zerocopy::transmute;

            pub(crate) type V = $V;
            /// Blocks in a vector.
            pub(crate) const LANES: usize = $lanes;

            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn xor(a: V, b: V) -> V {
                $xor(a, b)
            }

            #[allow(dead_code, reason = "GCM is not made of single blocks")]
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn and(a: V, b: V) -> V {
                $and(a, b)
            }

            /// Adds the halves of each block, 64 bits each.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn add(a: V, b: V) -> V {
                $add(a, b)
            }

            /// Multiplies one half of each block of `a` with one of `b`; `HALVES` as the instruction takes it.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn clmul<const HALVES: i32>(a: V, b: V) -> V {
                $clmul::<HALVES>(a, b)
            }

            /// The two halves of each block change places.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn swap(a: V) -> V {
                $shuffle::<0b01_00_11_10>(a)
            }

            /// The low half of each block becomes its high half.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn up(a: V) -> V {
                $left::<8>(a)
            }

            /// The high half of each block becomes its low half.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn down(a: V) -> V {
                $right::<8>(a)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn aesenc(a: V, key: V) -> V {
                $aesenc(a, key)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn aesenclast(a: V, key: V) -> V {
                $aesenclast(a, key)
            }

            /// The bytes of each block in the opposite order.
            #[allow(dead_code, reason = "GCM is not made of single blocks")]
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn reverse(a: V) -> V {
                $bytes(a, broadcast(transmute!(REVERSED)))
            }

            /// One block in each lane.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn broadcast($one: __m128i) -> V {
                $broadcast
            }

            /// One block in the first lane, zeros in the others.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn low($low: __m128i) -> V {
                $to_low
            }

            /// The sum of all blocks.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn sum($all: V) -> __m128i {
                $sum
            }
        }
    };
}

lanes! {
    /// AES-NI and PCLMULQDQ.
    one, "aes,pclmulqdq,sse2,ssse3,sse4.1", 1, __m128i,
    xor: _mm_xor_si128, and: _mm_and_si128, add: _mm_add_epi64, clmul: _mm_clmulepi64_si128, shuffle: _mm_shuffle_epi32, bytes: _mm_shuffle_epi8,
    left: _mm_slli_si128, right: _mm_srli_si128, aesenc: _mm_aesenc_si128, aesenclast: _mm_aesenclast_si128,
    broadcast: |one| one,
    low: |one| one,
    sum: |all| all,
}

lanes! {
    /// VAES and VPCLMULQDQ on 256 bits, AVX2 besides.
    two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq", 2, __m256i,
    xor: _mm256_xor_si256, and: _mm256_and_si256, add: _mm256_add_epi64, clmul: _mm256_clmulepi64_epi128, shuffle: _mm256_shuffle_epi32, bytes: _mm256_shuffle_epi8,
    left: _mm256_bslli_epi128, right: _mm256_bsrli_epi128, aesenc: _mm256_aesenc_epi128,
    aesenclast: _mm256_aesenclast_epi128,
    broadcast: |one| _mm256_broadcastsi128_si256(one),
    low: |one| _mm256_zextsi128_si256(one),
    sum: |all| _mm_xor_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all)),
}

lanes! {
    /// VAES and VPCLMULQDQ on 512 bits, AVX-512 F, BW, DQ and VL besides.
    four, "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq", 4, __m512i,
    xor: _mm512_xor_si512, and: _mm512_and_si512, add: _mm512_add_epi64, clmul: _mm512_clmulepi64_epi128, shuffle: _mm512_shuffle_epi32, bytes: _mm512_shuffle_epi8,
    left: _mm512_bslli_epi128, right: _mm512_bsrli_epi128, aesenc: _mm512_aesenc_epi128,
    aesenclast: _mm512_aesenclast_epi128,
    broadcast: |one| _mm512_broadcast_i32x4(one),
    low: |one| _mm512_zextsi128_si512(one),
    sum: |all| {
        let half = _mm256_xor_si256(
            _mm512_castsi512_si256(all),
            _mm512_extracti64x4_epi64::<1>(all),
        );
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    },
}
