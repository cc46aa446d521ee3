//! A frame that this process holds.

use std::ops::{Deref, DerefMut};

use xdp::packet::CsumOffload;

/// A frame that this process holds: received, or taken from the free ones to be sent. It is owned
/// by value: giving it back with [`Socket::free`](crate::Socket::free) or queueing it with
/// [`Socket::send`](crate::Socket::send) takes it away from its owner. One that is dropped instead
/// is lost, and stays counted in [`Socket::held`](crate::Socket::held): code that takes packets
/// asserts in debug builds that this is what it has.
pub struct Packet(pub(crate) xdp::Packet);

// SAFETY: the packet is the only way to the bytes of its frame, as an owned buffer would be, and
// the mapping that it points into belongs to no thread.
unsafe impl Send for Packet {}

impl Deref for Packet {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Packet {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Packet {
    /// Whether somebody else computes a checksum of this frame when it is sent, the kernel or the card.
    #[inline]
    #[must_use]
    pub fn has_checksum_offload(&self) -> bool {
        self.0.can_offload_checksum()
    }

    /// Has the kernel or the card compute a checksum (Linux, `Documentation/networking/xsk-tx-metadata.rst`): over the
    /// bytes from `start` to the end, put at `start + offset`, where the pseudo-header's sum is before. False if
    /// nobody does.
    #[inline]
    pub fn offload_checksum(&mut self, start: u16, offset: u16) -> bool {
        let request = CsumOffload::Request { start, offset };
        self.0.set_tx_metadata(request, false).is_ok()
    }

    /// Replaces what the frame holds. False if it does not fit.
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        self.0.clear();
        self.0.append(bytes).is_ok()
    }
}
