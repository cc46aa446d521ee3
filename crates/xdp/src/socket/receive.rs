//! Receiving: free frames go into the fill ring, and come out of the receive ring.

use std::io;

use crate::kernel::{BATCH, Kernel, Ring, back_pressure_or, is_busy};
use crate::packet::Packet;

/// What is known of the fill ring and the receive ring.
#[derive(Debug, Default)]
pub(super) struct Receive {
    /// Frames given to the kernel to receive into, and not received yet.
    pub(super) filling: usize,
    /// The kernel was busy when it was woken for the fill ring.
    pub(super) unheard: bool,
}

impl Receive {
    /// Appends up to 64 received frames to `packets`, and gives the kernel as many to receive into,
    /// so that it has `wanted`. Returns how many were received.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    #[inline]
    pub(super) fn receive<K: Kernel>(
        &mut self,
        kernel: &mut K,
        packets: &mut Vec<Packet>,
        wanted: usize,
    ) -> io::Result<usize> {
        let received = kernel.pop_received(packets, BATCH);
        self.filling -= received;
        self.refill(kernel, wanted)?;
        Ok(received)
    }

    /// Gives free frames to the kernel to receive into, until it has `wanted`.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub(super) fn refill<K: Kernel>(&mut self, kernel: &mut K, wanted: usize) -> io::Result<()> {
        let mut missing = wanted.saturating_sub(self.filling);
        while missing > 0 {
            let submitted = kernel.submit_free(missing.min(BATCH));
            if submitted == 0 {
                break;
            }
            self.filling += submitted;
            missing -= submitted;
        }
        self.wake(kernel)
    }

    /// Tells the driver that there are frames to receive into, if it wants to be told.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub(super) fn wake<K: Kernel>(&mut self, kernel: &mut K) -> io::Result<()> {
        self.unheard = false;
        if !kernel.needs_wakeup(Ring::Fill) {
            return Ok(());
        }
        match kernel.wake(Ring::Fill) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.unheard = is_busy(error);
                back_pressure_or(error)
            }
        }
    }
}
