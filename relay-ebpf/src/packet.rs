//! The frame that an XDP program was called with, as the parser reads it. The XDP
//! programs of the benchmarks compile this file too.

use aya_ebpf::programs::XdpContext;
use mixline_relay_common::frame::Frame;

/// The frame between the context's `data` and `data_end`.
pub struct Packet<'a>(pub &'a XdpContext);

impl Frame for Packet<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the bytes from start to start + N lie before data_end by the check above, and
        // the kernel does not change a frame while the program looks at it. An array of bytes
        // has no alignment and no invalid value.
        Some(unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }
}
