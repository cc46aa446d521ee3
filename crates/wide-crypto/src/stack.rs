//! What keys leave on the stack.

use std::hint::black_box;
use zeroize::Zeroize;

/// More than any function of this crate has of the stack.
const DEPTH: usize = 8192;

/// Overwrites the stack below its caller, where functions that have returned kept what they had no registers for: round
/// keys among it. To be called after keys were erased, from where they were used or above.
#[inline(never)]
pub fn scrub_stack() {
    let mut stack = [1; DEPTH];
    black_box(&mut stack).zeroize();
    black_box(&stack);
}
