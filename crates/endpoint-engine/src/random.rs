//! Random numbers in a range, and random orders, from a generator that is passed in.

use rand_core::CryptoRng;

/// A random number below `bound`, or 0 if that is 0. By multiplication (Lemire, "Fast random
/// integer generation in an interval", 2019); no number's probability is off by more than 2^-64.
pub fn below(bound: u64, rng: &mut (impl CryptoRng + ?Sized)) -> u64 {
    let wide = u128::from(rng.next_u64()) * u128::from(bound);
    (wide >> 64) as u64
}

/// Puts a list into random order.
pub fn shuffle<T>(list: &mut [T], rng: &mut (impl CryptoRng + ?Sized)) {
    for at in (1..list.len()).rev() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below the length of the list"
        )]
        let other = below(at as u64 + 1, rng) as usize;
        list.swap(at, other);
    }
}
