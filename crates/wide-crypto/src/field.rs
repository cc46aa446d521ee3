//! The field that POLYVAL hashes in (RFC 8452, section 3), in three widths.
//!
//! Elements are polynomials over one bit, the least significant bit first, modulo
//! `x^128 + x^127 + x^126 + x^121 + 1`; every product is times `x^-128`.

/// Powers of a key: as many blocks are hashed before a reduction.
pub(crate) const POWERS: usize = 16;

/// Of a key, the sixteenth first.
pub(crate) type Powers = [u128; POWERS];

/// The polynomial's terms from `x^64` to `x^127`, in both halves.
const POLYNOMIAL: [u64; 2] = [0xc200_0000_0000_0000; 2];

macro_rules! width {
    ($lanes:ident, $features:literal) => {
        pub(crate) mod $lanes {
            use super::{POLYNOMIAL, POWERS, Powers};
            use crate::BLOCK;
            use crate::lanes::$lanes::*;
            use core::arch::x86_64::*;
            use zerocopy::transmute;

            /// Writes the powers up to the sixteenth.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn write_powers(key: __m128i, powers: &mut Powers) {
                // Those up to the nth, times the nth, are those up to the 2nth.
                powers[POWERS - 1] = transmute!(key);
                for known in [1, 2, 4, 8] {
                    let (new, old) = powers.split_at_mut(POWERS - known);
                    let new = new[POWERS - 2 * known..].as_chunks_mut::<LANES>();
                    let last = broadcast(transmute!(old[0]));
                    for (to, from) in new.0.iter_mut().zip(old.as_chunks::<LANES>().0) {
                        *to = transmute!(product(transmute!(*from), last));
                    }
                    // Fewer than a vector.
                    for (to, from) in new.1.iter_mut().zip(&*old) {
                        *to = transmute!(sum(product(
                            low(transmute!(*from)),
                            low(transmute!(old[0]))
                        )));
                    }
                }
            }

            /// The product in each lane.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn product(a: V, b: V) -> V {
                let middle = xor(clmul::<0x01>(a, b), clmul::<0x10>(a, b));
                reduce(clmul::<0x00>(a, b), middle, clmul::<0x11>(a, b))
            }

            /// Reduces `least + middle x^64 + most x^128` in each lane: what is below `x^128` is made zero by
            /// adding multiples of the polynomial, 64 bits at a time, and what is above is the result (Gueron,
            /// Langley, Lindell, "AES-GCM-SIV: Specification and Analysis", 2017).
            #[inline]
            #[target_feature(enable = $features)]
            fn reduce(least: V, middle: V, most: V) -> V {
                let polynomial = broadcast(transmute!(POLYNOMIAL));
                let least = xor(least, up(middle));
                let most = xor(most, down(middle));
                let folded = xor(least, swap(clmul::<0x00>(least, polynomial)));
                xor(xor(most, folded), clmul::<0x11>(folded, polynomial))
            }

            /// The hash after `N` more blocks, a whole number of vectors and no more than there are powers.
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn absorb<const N: usize>(
                state: __m128i,
                blocks: &[[u8; BLOCK]; N],
                powers: &Powers,
            ) -> __m128i {
                absorb_as(state, blocks, powers, |block| block)
            }

            /// The same for blocks whose bytes stand in the opposite order.
            #[allow(dead_code, reason = "GCM is not made of single blocks")]
            #[inline]
            #[target_feature(enable = $features)]
            pub(crate) fn absorb_reversed<const N: usize>(
                state: __m128i,
                blocks: &[[u8; BLOCK]; N],
                powers: &Powers,
            ) -> __m128i {
                absorb_as(state, blocks, powers, |block| reverse(block))
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn absorb_as<const N: usize>(
                state: __m128i,
                blocks: &[[u8; BLOCK]; N],
                powers: &Powers,
                as_element: impl Fn(V) -> V,
            ) -> __m128i {
                let blocks = blocks.as_chunks::<LANES>().0;
                let powers = powers[POWERS - N..].as_chunks::<LANES>().0;
                let zero = broadcast(transmute!(0u128));
                let (mut least, mut middle, mut most) = (zero, zero, zero);
                for (at, (block, power)) in blocks.iter().zip(powers).enumerate() {
                    let mut block = as_element(transmute!(*block));
                    if at == 0 {
                        block = xor(block, low(state));
                    }
                    let power: V = transmute!(*power);
                    least = xor(least, clmul::<0x00>(block, power));
                    most = xor(most, clmul::<0x11>(block, power));
                    // Karatsuba: two products in one.
                    middle = xor(
                        middle,
                        clmul::<0x00>(xor(block, swap(block)), xor(power, swap(power))),
                    );
                }
                sum(reduce(least, xor(middle, xor(least, most)), most))
            }
        }
    };
}

width!(one, "aes,pclmulqdq,sse2,ssse3,sse4.1");
width!(two, "vaes,vpclmulqdq,avx2,aes,pclmulqdq");
width!(
    four,
    "vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,aes,pclmulqdq"
);
