//! The memory of a filter: words that threads share, in huge pages if the kernel has any.
//!
//! Each tag is at a random position. With pages of 4 KiB, the processor has to look up the page's
//! address in memory too, which takes a tenth of a relay's work on a cell.

use crate::{Error, Result};
use memmap2::{Advice, MmapMut};
use self_cell::{MutBorrow, self_cell};
use std::sync::atomic::AtomicU64;
use zerocopy::FromBytes;

type Slice<'a> = &'a [AtomicU64];

self_cell!(
    /// Words in a mapping of their own, which begins at a page. Unmapped on drop.
    pub(super) struct Words {
        owner: MutBorrow<MmapMut>,
        #[covariant]
        dependent: Slice,
    }
);

/// This many words of zeros.
///
/// # Errors
/// [`Error::Limit`] if there is no memory for them.
pub(super) fn zeroed(words: usize) -> Result<Words> {
    let limit = || Error::Limit {
        what: "memory of the replay filter",
    };
    let bytes = words.checked_mul(size_of::<u64>()).ok_or_else(limit)?;
    let memory = MmapMut::map_anon(bytes).map_err(|_| limit())?;
    // Without huge pages it works too.
    let _ = memory.advise(Advice::HugePage);
    Words::try_new(MutBorrow::new(memory), |memory| {
        <[AtomicU64]>::mut_from_bytes(memory.borrow_mut())
            .map(|words| &*words)
            .map_err(|_| limit())
    })
}
