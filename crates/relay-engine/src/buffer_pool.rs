//! Datagrams that leave their batch: held for a path or a link, delayed, handed to
//! another worker or to the control plane. Their memory is bounded and used again.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use mixline_protocol::size::{DATAGRAM, Datagram};

/// Buffers for at most a fixed number of datagrams; shared by all threads.
#[derive(Debug)]
pub struct Pool {
    free: ArrayQueue<Box<Datagram>>,
    made: AtomicUsize,
}

/// A datagram in a buffer of a pool, which goes back when this is dropped.
#[derive(Debug)]
pub struct Pooled {
    buffer: Option<Box<Datagram>>,
    pool: Arc<Pool>,
}

impl Pool {
    /// Room for `capacity` datagrams, of which none takes memory before it is used.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            free: ArrayQueue::new(capacity.max(1)),
            made: AtomicUsize::new(0),
        })
    }

    /// A copy of `datagram`, unless all buffers are in use.
    pub fn copy(self: &Arc<Self>, datagram: &Datagram) -> Option<Pooled> {
        let mut pooled = self.take()?;
        pooled.copy_from_slice(datagram);
        Some(pooled)
    }

    fn take(self: &Arc<Self>) -> Option<Pooled> {
        let buffer = match self.free.pop() {
            Some(buffer) => buffer,
            None if self.made.fetch_add(1, Ordering::Relaxed) < self.free.capacity() => {
                Box::new([0; DATAGRAM])
            }
            None => {
                self.made.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
        };
        Some(Pooled {
            buffer: Some(buffer),
            pool: Arc::clone(self),
        })
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // No more are made than fit.
            let _ = self.pool.free.push(buffer);
        }
    }
}

#[expect(clippy::expect_used, reason = "only dropping takes the buffer away")]
impl Deref for Pooled {
    type Target = Datagram;

    fn deref(&self) -> &Datagram {
        self.buffer.as_ref().expect("there until dropped")
    }
}

#[expect(clippy::expect_used, reason = "only dropping takes the buffer away")]
impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Datagram {
        self.buffer.as_mut().expect("there until dropped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_its_capacity() {
        let pool = Pool::new(3);
        let datagram = [7; DATAGRAM];
        for _ in 0..3 {
            let mut taken: Vec<_> = (0..3).map(|_| pool.copy(&datagram).unwrap()).collect();
            assert!(pool.copy(&datagram).is_none());
            assert!(taken.iter().all(|d| **d == datagram));
            taken.pop();
            assert!(pool.copy(&datagram).is_some());
        }
        assert_eq!(pool.made.load(Ordering::Relaxed), 3);
    }
}
