//! What the workers' XDP ports and whoever watches over them share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the ports of all workers. Each queue's count is written by the one worker that has
/// the queue, so that no worker waits for another.
#[derive(Debug, Default)]
pub struct Shared {
    given_up: AtomicBool,
    taken: Vec<AtomicU64>,
}

impl Shared {
    /// For so many queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self {
            given_up: AtomicBool::new(false),
            taken: (0..queues).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Adds frames that came out of a queue's socket.
    #[inline]
    pub fn took(&self, queue: usize, frames: usize) {
        if let Some(taken) = self.taken.get(queue) {
            let before = taken.load(Ordering::Relaxed);
            taken.store(before + frames as u64, Ordering::Relaxed);
        }
    }

    /// Frames that came out of each queue's socket.
    #[must_use]
    pub fn taken(&self) -> Vec<u64> {
        self.taken
            .iter()
            .map(|taken| taken.load(Ordering::Relaxed))
            .collect()
    }

    /// Tells the ports to close their queues. They go on by UDP.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether the queues are to be closed.
    #[inline]
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}
