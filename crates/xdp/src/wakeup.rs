//! Whether the kernel wants to be woken for a ring: need-wakeup (kernel commit 77cd0d7b3f25).
//!
//! A driver that polls a ring by itself saves us the system call, and says so in the ring's flags.
//! The rings of the `xdp` crate keep their flags to themselves, so the page in which they stand is
//! mapped once more. In copy mode the TX ring always has the flag and the fill ring never.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::options;

/// A ring that the kernel takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ring {
    Transmit,
    Fill,
}

impl Ring {
    /// Its number in `struct xdp_mmap_offsets`.
    const fn number(self) -> usize {
        match self {
            Self::Transmit => 1,
            Self::Fill => 2,
        }
    }

    /// Where its mapping begins: `XDP_PGOFF_TX_RING` and `XDP_UMEM_PGOFF_FILL_RING` of
    /// `linux/if_xdp.h`.
    const fn page(self) -> u64 {
        match self {
            Self::Transmit => 0x8000_0000,
            Self::Fill => 0x1_0000_0000,
        }
    }
}

/// `struct xdp_mmap_offsets`: of each of four rings where the producer, the consumer, the
/// descriptors and the flags stand.
const OFFSETS: usize = 4 * RING_OFFSETS;
const RING_OFFSETS: usize = 4 * size_of::<u64>();
/// `XDP_RING_NEED_WAKEUP` of `linux/if_xdp.h`.
const NEED_WAKEUP: u32 = 1;

/// The flags of a ring.
pub(crate) struct Flags {
    page: MmapRaw,
    offset: usize,
}

// SAFETY: the mapping belongs to no thread, and is only read, as an atomic.
unsafe impl Send for Flags {}

impl Flags {
    /// Maps them. The socket has such a ring.
    pub(crate) fn map(fd: RawFd, ring: Ring) -> io::Result<Self> {
        let offsets: [u8; OFFSETS] = options::read(fd, options::MMAP_OFFSETS)?;
        let of_ring = &offsets[ring.number() * RING_OFFSETS..][..RING_OFFSETS];
        let offset = of_ring
            .last_chunk()
            .map(|flags| u64::from_ne_bytes(*flags))
            .and_then(|offset| usize::try_from(offset).ok())
            .filter(|offset| offset.is_multiple_of(align_of::<AtomicU32>()))
            .ok_or(io::ErrorKind::InvalidData)?;
        let page = MmapOptions::new()
            .offset(ring.page())
            .len(offset + size_of::<u32>())
            .map_raw_read_only(fd)?;
        Ok(Self { page, offset })
    }

    /// Whether the kernel wants to be woken, after what was put into the ring.
    pub(crate) fn need_wakeup(&self) -> bool {
        // The kernel sets the flag and then looks at the ring once more. Either it sees what was
        // put there before this, or we see the flag.
        fence(Ordering::SeqCst);
        // SAFETY: aligned and inside of the mapping, as `map` made it; the kernel writes it as one
        // word, and nothing else in this process touches it.
        let flags = unsafe {
            self.page
                .as_ptr()
                .add(self.offset)
                .cast::<AtomicU32>()
                .as_ref()
        };
        flags.is_none_or(|flags| flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0)
    }
}
