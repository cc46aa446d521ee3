//! One AF_XDP socket: a queue's frames in memory shared with the kernel.
//!
//! One file a direction: `receive` (fill ring and receive ring), `transmit` (TX ring) and
//! `completion`. They work on any [`Kernel`], so that they are tested on rings in plain memory;
//! `bind` makes a socket over the real one.

pub mod bind;
mod completion;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use self::completion::complete;
use self::receive::Receive;
use self::transmit::{Heard, Transmit};
use crate::bound::Bound;
use crate::kernel::{Kernel, Ring};
use crate::packet::Packet;

/// An AF_XDP socket bound to one queue, with its rings and its memory.
///
/// Frames are conserved: those that are free, in the fill ring, held by the caller, and on
/// their way out add up to all, which [`Socket::is_conserved`] checks.
pub struct Socket<K = Bound> {
    kernel: K,
    receive: Receive,
    transmit: Transmit,
    /// Frames in all.
    all: usize,
}

impl<K: Kernel> Socket<K> {
    /// A socket over a kernel whose frames are all free. Half of them are given to it to receive
    /// into.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub fn over(kernel: K) -> io::Result<Self> {
        let mut this = Self {
            all: kernel.free(),
            kernel,
            receive: Receive::default(),
            transmit: Transmit::default(),
        };
        this.receive.refill(&mut this.kernel, this.all / 2)?;
        Ok(this)
    }

    /// Appends up to 64 received frames to `packets` and returns how many. As many free frames are
    /// given to the kernel; half of all are kept for sending.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure; what was received is in `packets`.
    pub fn receive(&mut self, packets: &mut Vec<Packet>) -> io::Result<usize> {
        complete(&mut self.kernel, &mut self.transmit.sending);
        let received = self
            .receive
            .receive(&mut self.kernel, packets, self.all / 2)?;
        self.debug_check();
        Ok(received)
    }

    /// A free frame to send with, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<Packet> {
        self.kernel.take()
    }

    /// Takes back a frame.
    #[inline]
    pub fn free(&mut self, packet: Packet) {
        self.kernel.give_back(packet);
    }

    /// Queues frames for sending, from the front, and wakes the kernel; those that did not fit
    /// stay in `packets`: back pressure. Returns how many went. If
    /// the kernel takes no more for now, [`Socket::retry`] says so and goes on.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure; what went into the ring stays there.
    pub fn send(&mut self, packets: &mut VecDeque<Packet>) -> io::Result<usize> {
        let sent = self.transmit.send(&mut self.kernel, packets)?;
        self.debug_check();
        Ok(sent)
    }

    /// Wakes the kernel again where it was busy or its interface was down before, and where it has
    /// begun to want it, and gives it frames to receive into where there were none. True if it is
    /// busy, and this is to be called again soon, though nothing is received.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub fn retry(&mut self) -> io::Result<bool> {
        // A fill ring that ran dry brings nothing that would have it filled again.
        let wanted = self.all / 2;
        if self.receive.filling < wanted {
            complete(&mut self.kernel, &mut self.transmit.sending);
        }
        self.receive.refill(&mut self.kernel, wanted)?;
        if self.transmit.heard.again() {
            self.transmit.wake(&mut self.kernel)?;
        }
        Ok(self.receive.unheard || self.transmit.heard == Heard::Busy)
    }

    /// Whether the kernel wants to be woken for the fill ring and for the TX ring, or else
    /// looks by itself; and how much has been put into each.
    #[must_use]
    pub fn rings(&self) -> [(bool, u32); 2] {
        [Ring::Fill, Ring::Transmit]
            .map(|ring| (self.kernel.needs_wakeup(ring), self.kernel.put_in(ring)))
    }

    /// Frames that the caller has: received or taken, and neither freed nor sent.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kernel.held()
    }

    /// Frames handed over whose sending has not been completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.transmit.sending
    }

    /// Whether free + fill + held + sending = all.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.kernel.free() + self.receive.filling + self.kernel.held() + self.transmit.sending
            == self.all
    }

    fn debug_check(&self) {
        debug_assert!(
            self.is_conserved(),
            "{} in all: {} free, {} held, {:?}, {:?}",
            self.all,
            self.kernel.free(),
            self.kernel.held(),
            self.receive,
            self.transmit
        );
    }

    /// The kernel that it works on.
    pub(crate) fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The kernel that a test plays.
    #[cfg(any(test, feature = "testing"))]
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }
}

impl<K: Kernel> AsRawFd for Socket<K> {
    fn as_raw_fd(&self) -> RawFd {
        self.kernel.as_raw_fd()
    }
}
