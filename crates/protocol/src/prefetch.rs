//! Memory that is asked for before it is needed.
//!
//! What a busy relay needs for one datagram (a session, a path, two blocks of the replay filter)
//! is in none of the processor's caches, and each wait takes a tenth as long as the cryptography.
//! A batch goes through its stages a group at a time, and each stage asks for what the next
//! one reads. Unlike a read, a prefetch is done with at once, so that any number of them overlap
//! (Chen, Ailamaki, Gibbons, Mowry: "Improving Hash Join Performance through Prefetching", ICDE
//! 2004, section 3, calls this group prefetching). It is only a hint and changes no result.

use prefetch_index::prefetch_index;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for one element; none beyond the end.
pub fn prefetch_element<T>(of: &[T], at: usize) {
    if at < of.len() {
        prefetch_index(of, at);
    }
}

/// Asks for `bytes` bytes from where `start` begins, which may be more than it has.
#[inline]
pub fn prefetch(start: &[u8], bytes: usize) {
    for at in (0..bytes).step_by(LINE) {
        prefetch_index(start, at);
    }
    // Where the first byte is not the first of a line, the last ones are in a line more.
    prefetch_index(start, bytes.saturating_sub(1));
}

/// The first field of a struct (`repr(C)`): nothing but the address at which the struct begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start([u8; 0]);

impl Start {
    /// Asks for the struct's first `bytes` bytes.
    #[inline]
    pub fn prefetch(&self, bytes: usize) {
        prefetch(&self.0, bytes);
    }
}
