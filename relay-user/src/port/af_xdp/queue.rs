//! One queue of a card: its socket, and what waits to leave by it.

use std::collections::VecDeque;
use std::io;

use mixline_xdp::{Kernel, Packet, Socket};

use mixline_relay_engine::batch::BATCH;

/// A queue, as its worker sees it.
pub(super) struct Queue<K> {
    /// Its number on the card.
    pub(super) number: usize,
    pub(super) socket: Socket<K>,
    /// It may have something to receive.
    pub(super) ready: bool,
    /// Frames that wait for room in the TX ring of this queue: they are in its memory.
    pub(super) waiting: VecDeque<Packet>,
}

impl<K: Kernel> Queue<K> {
    /// A queue that may have something to receive.
    pub(super) fn new(number: usize, socket: Socket<K>) -> Self {
        Self {
            number,
            socket,
            ready: true,
            waiting: VecDeque::with_capacity(2 * BATCH),
        }
    }

    /// Goes on with what the kernel was too busy for; true if it still is.
    pub(super) fn retry(&mut self) -> io::Result<bool> {
        if !self.waiting.is_empty() {
            self.socket.send(&mut self.waiting)?;
        }
        Ok(self.socket.retry()? || !self.waiting.is_empty())
    }

    /// Sends what waits. What the ring has no room for waits for the next poll, up to a batch of it;
    /// returns how many frames were too many. Those are free again, also if it is an error.
    pub(super) fn send(&mut self) -> (usize, io::Result<()>) {
        let sent = self.socket.send(&mut self.waiting);
        let mut too_many = 0;
        while self.waiting.len() > BATCH
            && let Some(packet) = self.waiting.pop_front()
        {
            too_many += 1;
            self.socket.free(packet);
        }
        (too_many, sent.map(drop))
    }

    /// Frees what waits to leave, before the socket is closed; returns how many frames that were.
    pub(super) fn drop_waiting(&mut self) -> usize {
        let count = self.waiting.len();
        for packet in self.waiting.drain(..) {
            self.socket.free(packet);
        }
        count
    }

    /// Takes frames back. What is held after that is what waits, or a frame was lost.
    pub(super) fn free(&mut self, packets: &mut Vec<Packet>) {
        for packet in packets.drain(..) {
            self.socket.free(packet);
        }
        debug_assert_eq!(self.socket.held(), self.waiting.len(), "frames are lost");
    }
}
