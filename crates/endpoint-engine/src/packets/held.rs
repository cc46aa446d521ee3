//! Packets that wait for a session to be established, bounded in number and bytes.

use std::collections::VecDeque;

/// Packets that wait for one session.
pub const MAX_HELD: usize = 64;
/// Their bytes.
pub const MAX_HELD_BYTES: usize = 128 * 1024;

/// Packets that wait, the oldest first.
#[derive(Default)]
pub struct Held {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Held {
    /// Keeps a packet; false if there is no room.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        if self.packets.len() >= MAX_HELD || self.bytes + packet.len() > MAX_HELD_BYTES {
            return false;
        }
        self.bytes += packet.len();
        self.packets.push_back(packet.to_vec());
        true
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Gives everything back, in order.
    pub fn take(&mut self) -> VecDeque<Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }
}
