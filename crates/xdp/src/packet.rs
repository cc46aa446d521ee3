//! A frame that this process holds.

use std::ops::{Deref, DerefMut};

use mixline_relay_common::stamp::{STAMP_LENGTH, stamp, time_of};
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

    /// Takes the time stamp in front of a received frame: when it came, in nanoseconds of the kernel's
    /// monotonic clock. None if there is none, or if the socket was made without
    /// [stamps](crate::SocketConfig::stamps).
    #[inline]
    pub fn take_stamp(&mut self) -> Option<u64> {
        self.in_front(|bytes| {
            let (time, check) = (bytes.first_chunk()?, bytes.last_chunk()?);
            let time = time_of([u64::from_ne_bytes(*time), u64::from_ne_bytes(*check)]);
            // The frame is received into again.
            bytes.fill(0);
            time
        })?
    }

    /// Puts a time stamp in front of the frame, as the program does. False without room.
    pub fn put_stamp(&mut self, time: u64) -> bool {
        let [time, check] = stamp(time).map(u64::to_ne_bytes);
        let put = self.in_front(|bytes| {
            bytes[..8].copy_from_slice(&time);
            bytes[8..].copy_from_slice(&check);
        });
        put.is_some()
    }

    /// Does something with the bytes in front of the frame.
    #[inline]
    fn in_front<T>(&mut self, with: impl FnOnce(&mut [u8; STAMP_LENGTH]) -> T) -> Option<T> {
        let length = STAMP_LENGTH as i32;
        self.0.adjust_head(-length).ok()?;
        let done = self.0.first_chunk_mut().map(with);
        // Back to where it was, which cannot fail.
        let _ = self.0.adjust_head(length);
        done
    }
}
