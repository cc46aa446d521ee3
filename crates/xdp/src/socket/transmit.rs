//! Sending: packets go into the TX ring, and the kernel is woken until it has taken them.

use std::collections::VecDeque;
use std::io;

use nix::errno::Errno;

use super::completion::complete;
use crate::kernel::{BATCH, Kernel, Ring, back_pressure_or, is_busy};
use crate::packet::Packet;

/// Frames that copy mode takes from the TX ring in one call (`TX_BATCH_SIZE` of
/// `net/xdp/xsk.c`).
pub(super) const COPY_BATCH: usize = 32;

/// What is known of the TX ring.
#[derive(Debug, Default)]
pub(super) struct Transmit {
    /// Frames in the TX ring or with the driver, until completed.
    pub(super) sending: usize,
    /// What came of waking the kernel for the TX ring the last time.
    pub(super) heard: Heard,
}

/// What came of waking the kernel for the TX ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has taken what was there, or looks by itself.
    #[default]
    Yes,
    /// It is busy.
    Busy,
    /// The interface is down.
    Down,
    /// It refuses, and not because of back pressure: the interface is gone.
    Refused,
}

impl Heard {
    /// Whether it is to be woken again for what is in the ring.
    pub(super) fn again(self) -> bool {
        matches!(self, Self::Busy | Self::Down)
    }
}

impl Transmit {
    /// Queues packets from the front, and wakes the kernel; those that the ring has no room for
    /// stay in `packets`. Returns how many went.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    #[inline]
    pub(super) fn send<K: Kernel>(
        &mut self,
        kernel: &mut K,
        packets: &mut VecDeque<Packet>,
    ) -> io::Result<usize> {
        complete(kernel, &mut self.sending);
        let mut sent = 0;
        while !packets.is_empty() {
            let submitted = kernel.submit(packets, BATCH);
            if submitted == 0 {
                break;
            }
            self.sending += submitted;
            sent += submitted;
        }
        // What was not heard is said again, also if the ring has no room for more.
        if sent > 0 || self.heard.again() {
            self.wake(kernel)?;
        }
        Ok(sent)
    }

    /// Wakes the kernel until it has taken all of the TX ring, or takes no more for now, if
    /// it wants to be woken.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub(super) fn wake<K: Kernel>(&mut self, kernel: &mut K) -> io::Result<()> {
        self.heard = Heard::Yes;
        if !kernel.needs_wakeup(Ring::Transmit) {
            return Ok(());
        }
        // Frames may be under way for long after they have been taken, so that completions do not
        // tell whether there are more.
        for _ in 0..=self.sending / COPY_BATCH {
            let answer = kernel.wake(Ring::Transmit);
            self.heard = match answer {
                Ok(()) => Heard::Yes,
                Err(error) if is_busy(error) => Heard::Busy,
                Err(Errno::ENETDOWN) => Heard::Down,
                Err(_) => Heard::Refused,
            };
            if let Err(error) = answer {
                back_pressure_or(error)?;
            }
            if self.heard != Heard::Busy {
                break;
            }
            complete(kernel, &mut self.sending);
        }
        complete(kernel, &mut self.sending);
        Ok(())
    }
}
