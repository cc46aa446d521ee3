//! Whether the kernel wants to be woken for a ring: need-wakeup (kernel commit 77cd0d7b3f25).
//!
//! A driver that polls a ring by itself saves us the system call, and says so in the ring's flags.
//! The rings of the `xdp` crate keep their flags to themselves, so the page that they are in is
//! mapped once more. In copy mode the TX ring always has the flag and the fill ring never.
//!
//! A flag can come after the ring was looked at for the last time: some drivers set the fill
//! ring's without looking at the ring again. So whoever waits looks at the flag now and then.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::kernel::Ring;
use crate::options;

/// The number of a ring in `struct xdp_mmap_offsets`.
const fn number(ring: Ring) -> usize {
    match ring {
        Ring::Transmit => 1,
        Ring::Fill => 2,
    }
}

/// Where the mapping of a ring begins: `XDP_PGOFF_TX_RING` and `XDP_UMEM_PGOFF_FILL_RING` of
/// `linux/if_xdp.h`.
const fn page(ring: Ring) -> u64 {
    match ring {
        Ring::Transmit => 0x8000_0000,
        Ring::Fill => 0x1_0000_0000,
    }
}

/// `struct xdp_mmap_offsets`: of each of four rings where the producer, the consumer, the
/// descriptors and the flags are.
const OFFSETS: usize = 4 * RING_OFFSETS;
const RING_OFFSETS: usize = 4 * size_of::<u64>();
/// `XDP_RING_NEED_WAKEUP` of `linux/if_xdp.h`.
const NEED_WAKEUP: u32 = 1;

/// What is before the descriptors of a ring: how much was put in, and its flags.
pub(crate) struct RingHeader {
    page: MmapRaw,
    /// Offset of the count of what was put in, in bytes.
    producer: usize,
    /// Offset of the flags, in bytes.
    flags: usize,
}

// SAFETY: the mapping belongs to no thread, and is only read, as an atomic.
unsafe impl Send for RingHeader {}

impl RingHeader {
    /// Maps it. The socket has such a ring.
    pub(crate) fn map(fd: RawFd, ring: Ring) -> io::Result<Self> {
        let offsets: [u8; OFFSETS] = options::read(fd, options::MMAP_OFFSETS)?;
        let of_ring = &offsets[number(ring) * RING_OFFSETS..][..RING_OFFSETS];
        let (Some(producer), Some(flags)) =
            (word(of_ring.first_chunk()), word(of_ring.last_chunk()))
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let page = MmapOptions::new()
            .offset(page(ring))
            .len(producer.max(flags) + size_of::<u32>())
            .map_raw_read_only(fd)?;
        Ok(Self {
            page,
            producer,
            flags,
        })
    }

    /// Whether the kernel wants to be woken, after what was put into the ring.
    #[inline]
    pub(crate) fn need_wakeup(&self) -> bool {
        // A kernel that sets the flag and then looks at the ring once more either sees what was
        // put there before this, or we see the flag.
        fence(Ordering::SeqCst);
        self.read(self.flags) & NEED_WAKEUP != 0
    }

    /// How much has been put into the ring so far, modulo 2^32.
    pub(crate) fn put_in(&self) -> u32 {
        self.read(self.producer)
    }

    #[inline]
    fn read(&self, offset: usize) -> u32 {
        // SAFETY: `offset` is one of the two that `map` found to be aligned and inside of the
        // mapping. Kernel and rings write it as one word.
        let word = unsafe { &*self.page.as_ptr().add(offset).cast::<AtomicU32>() };
        word.load(Ordering::Relaxed)
    }
}

/// An offset of `struct xdp_mmap_offsets`, if a word can be there.
fn word(offset: Option<&[u8; 8]>) -> Option<usize> {
    usize::try_from(u64::from_ne_bytes(*offset?))
        .ok()
        .filter(|offset| offset.is_multiple_of(align_of::<AtomicU32>()))
}
