//! Datagrams on their way to the sockets.

use std::net::SocketAddr;

use mixline_protocol::size::{DATAGRAM, Datagram};

/// At most so many datagrams wait for the sockets; what is made beyond that is dropped.
pub const OUTBOX: usize = 512;
/// With so many waiting, packets from the device wait too: enough for two full batches of
/// segmentation offload, and little enough to stay in the processor's cache.
pub const BUSY: usize = 96;

/// Datagrams in order, each with its destination, in one block of memory.
pub struct Outbox {
    datagrams: Box<[Datagram]>,
    to: Vec<SocketAddr>,
    sent: Vec<bool>,
    waiting: usize,
    dropped: u64,
    total: u64,
}

impl Outbox {
    /// An empty one with all its room.
    #[must_use]
    pub fn new() -> Self {
        Self {
            datagrams: vec![[0; DATAGRAM]; OUTBOX].into_boxed_slice(),
            to: Vec::with_capacity(OUTBOX),
            sent: Vec::with_capacity(OUTBOX),
            waiting: 0,
            dropped: 0,
            total: 0,
        }
    }

    /// A datagram to fill, with anything in it. `None`, and counted as dropped, if there is no
    /// room.
    pub fn push(&mut self, to: SocketAddr) -> Option<&mut Datagram> {
        let at = self.to.len();
        let Some(datagram) = self.datagrams.get_mut(at) else {
            self.dropped += 1;
            return None;
        };
        self.to.push(to);
        self.sent.push(false);
        self.waiting += 1;
        self.total += 1;
        Some(datagram)
    }

    /// Takes back the last [`Self::push`]: it could not be filled.
    pub fn retract(&mut self) {
        if self.sent.pop() == Some(false) {
            self.to.pop();
            self.waiting -= 1;
            self.total -= 1;
        }
    }

    /// Whether the sockets have to take some before more packets are worth making.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.to.len() >= BUSY
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// What waits: position, datagram, destination.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &Datagram, SocketAddr)> {
        (0..)
            .zip(self.datagrams.iter().zip(&self.to).zip(&self.sent))
            .filter(|(_, (_, sent))| !**sent)
            .map(|(at, ((datagram, to), _))| (at, datagram, *to))
    }

    /// The datagram at a position of [`Self::waiting`] is sent, or given up.
    pub fn mark_sent(&mut self, at: usize) {
        if let Some(sent) = self.sent.get_mut(at)
            && !std::mem::replace(sent, true)
        {
            self.waiting -= 1;
        }
        if self.waiting == 0 {
            self.clear();
        }
    }

    /// Forgets everything, sent or not.
    pub fn clear(&mut self) {
        self.to.clear();
        self.sent.clear();
        self.waiting = 0;
    }

    /// Datagrams that found no room, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Datagrams made, since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}
