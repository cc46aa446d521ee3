//! When frames came: time stamps of the XDP program as moments of ours.

use std::time::{Duration, Instant};

use mixline_xdp::Packet;
use nix::time::{ClockId, clock_gettime};

/// One moment on the kernel's monotonic clock, which the program stamps with, and as [`Instant`], which has that clock
/// too but does not say its numbers.
pub(super) struct Clock {
    nanos: u64,
    now: Instant,
}

impl Clock {
    /// Reads both.
    pub(super) fn read() -> Self {
        let nanos = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .ok()
            .and_then(|now| u64::try_from(Duration::from(now).as_nanos()).ok());
        Self {
            nanos: nanos.unwrap_or_default(),
            now: Instant::now(),
        }
    }

    /// When a frame came, if it has a stamp.
    pub(super) fn arrival_of(&self, packet: &mut Packet) -> Option<Instant> {
        let age = self.nanos.checked_sub(packet.take_stamp()?)?;
        self.now.checked_sub(Duration::from_nanos(age))
    }
}
