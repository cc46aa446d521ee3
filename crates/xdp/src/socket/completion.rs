//! Completion: what has been sent becomes free.

use crate::kernel::{BATCH, Kernel};

/// Frees what the kernel has sent of `sending` frames, and counts it off.
#[inline]
pub(super) fn complete<K: Kernel>(kernel: &mut K, sending: &mut usize) {
    while *sending > 0 {
        let done = kernel.pop_completed(BATCH.min(*sending));
        if done == 0 {
            break;
        }
        *sending -= done;
    }
}
