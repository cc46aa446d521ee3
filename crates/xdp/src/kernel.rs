//! The kernel's side of an AF_XDP socket, as the ring tasks see it: memory, four rings, and two
//! calls.
//!
//! [`Bound`](crate::Bound) is the real one. `testing::MemoryKernel` has its rings in plain memory
//! and answers as a test tells it to, so that what the tasks do with each answer is tested
//! without root.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::packet::Packet;

/// A ring that the kernel takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Frames to receive into.
    Fill,
    /// Frames to be sent.
    Transmit,
}

/// One step moves at most this many frames into a ring or out of it.
pub(crate) const BATCH: usize = 64;

/// Memory, rings and wake-ups of one socket.
///
/// A frame is in one position at a time: free, in the fill ring, with the driver, in the receive ring,
/// in the TX ring, in the completion ring, or held as a [`Packet`].
pub trait Kernel: AsRawFd {
    /// Frames that are free.
    fn free(&self) -> usize;

    /// Frames that are held as packets.
    fn held(&self) -> usize;

    /// Makes a free frame a packet.
    fn take(&mut self) -> Option<Packet>;

    /// Makes a packet of this socket a free frame.
    fn give_back(&mut self, packet: Packet);

    /// Moves free frames into the fill ring: as many of `frames` as are free, or none if the ring
    /// has no room for all of those. Returns how many.
    fn submit_free(&mut self, frames: usize) -> usize;

    /// Moves up to `most` frames from the receive ring to the end of `packets`. Returns how many.
    fn pop_received(&mut self, packets: &mut Vec<Packet>, most: usize) -> usize;

    /// Moves the first `most` of `packets`, or all if they are fewer, into the TX ring in
    /// their order, or none if the ring has no room for all of those. Returns how many.
    fn submit(&mut self, packets: &mut VecDeque<Packet>, most: usize) -> usize;

    /// Frees up to `most` frames of the completion ring. Returns how many.
    fn pop_completed(&mut self, most: usize) -> usize;

    /// Whether the kernel wants to be woken for a ring, after what was put into it.
    fn needs_wakeup(&self, ring: Ring) -> bool;

    /// How many frames have been put into a ring so far, modulo 2^32.
    fn put_in(&self, ring: Ring) -> u32;

    /// Wakes the kernel for a ring.
    ///
    /// # Errors
    /// What the kernel answers: back pressure among it.
    fn wake(&mut self, ring: Ring) -> Result<(), Errno>;
}

/// Nothing, if an error is back pressure: what was queued stays queued. With the interface down,
/// it does until the interface is up.
pub(crate) fn back_pressure_or(error: Errno) -> io::Result<()> {
    if is_busy(error) || error == Errno::ENETDOWN {
        Ok(())
    } else {
        Err(error.into())
    }
}

/// The kernel is busy, and has to be woken again.
pub(crate) fn is_busy(error: Errno) -> bool {
    matches!(
        error,
        Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS | Errno::EINTR
    )
}
