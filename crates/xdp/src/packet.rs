//! A frame that we hold.

use std::ops::{Deref, DerefMut};

/// A frame that we hold: received, or taken from the free ones to be sent. It is owned by value:
/// whoever gives it back with [`Socket::free`](crate::Socket::free) or queues it with
/// [`Socket::send`](crate::Socket::send) has it no longer. One that is dropped instead is lost, and
/// stays counted in [`Socket::held`](crate::Socket::held): whoever takes packets asserts in debug
/// builds that this is what it has.
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
    /// Replaces what the frame holds. False if it does not fit.
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        self.0.clear();
        self.0.append(bytes).is_ok()
    }
}
