//! The link sessions that a worker receives under.
//!
//! A receiver index names its worker in the low bits, so that a datagram that came to
//! another one finds its owner; then a position in that worker's table; the high bits are
//! random, so that indices cannot be guessed at once and an old one does not fit its
//! successor in the same position.

use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mixline_protocol::link::{CellKind, OpenKey, Window};
use mixline_protocol::prefetch::{Start, prefetch_element};

use crate::quota::NeighbourUsage;

/// Bits of an index that name the worker.
pub const WORKER_BITS: u32 = 6;
/// The most workers of a relay.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;
/// Bits of an index that name the position in the worker's table.
pub const POSITION_BITS: u32 = 18;
/// The most sessions of a worker.
pub const MAX_SESSIONS_PER_WORKER: usize = 1 << POSITION_BITS;

/// An index made of its parts; what is too large for its field is cut.
#[must_use]
pub fn index(worker: usize, position: usize, random: u32) -> u32 {
    let worker = (worker & (MAX_WORKERS - 1)) as u32;
    let position = (position & (MAX_SESSIONS_PER_WORKER - 1)) as u32;
    random << (WORKER_BITS + POSITION_BITS) | position << WORKER_BITS | worker
}

/// Which worker owns the session of an index.
#[must_use]
#[inline]
pub fn worker_of(index: u32) -> usize {
    index as usize & (MAX_WORKERS - 1)
}

/// The position of an index in its worker's table.
#[must_use]
#[inline]
pub fn position_of(index: u32) -> usize {
    index as usize >> WORKER_BITS & (MAX_SESSIONS_PER_WORKER - 1)
}

/// A session that datagrams are received under. The window, which is large, comes last.
#[repr(C)]
pub(crate) struct LinkSession {
    start: Start,
    /// Its key.
    pub open: Arc<OpenKey>,
    /// Whose it is, as the control plane numbers neighbours.
    pub neighbour: u32,
    /// What the neighbour takes up.
    pub usage: NeighbourUsage,
    /// Where the newest datagram came from.
    pub source: SocketAddr,
    /// The highest counter that authenticated, if any has.
    pub newest: Option<u64>,
    /// When the control plane was last told that something of this kind was heard.
    pub told: Option<(Instant, CellKind)>,
    /// Which counters have been seen.
    pub window: Window,
}

impl LinkSession {
    /// A session that nothing has been received under.
    #[must_use]
    pub fn new(
        open: Arc<OpenKey>,
        neighbour: u32,
        usage: NeighbourUsage,
        source: SocketAddr,
    ) -> Self {
        Self {
            start: Start::default(),
            open,
            neighbour,
            usage,
            window: Window::new(),
            source,
            newest: None,
            told: None,
        }
    }

    /// Its receiver index.
    #[must_use]
    #[inline]
    pub fn index(&self) -> u32 {
        self.open.local_index()
    }
}

/// A worker's sessions by position. Memory follows the highest position in use.
#[derive(Default)]
pub(crate) struct LinkSessions {
    by_position: Vec<Option<Box<LinkSession>>>,
    count: usize,
}

impl LinkSessions {
    /// Prefetches where the session of an index stands. A caller that needs several sessions
    /// calls this for all of them, then [`LinkSessions::prefetch`], then
    /// [`LinkSessions::prefetch_key`], and so waits for memory once and not for each.
    #[inline]
    pub fn locate(&self, index: u32) {
        prefetch_element(&self.by_position, position_of(index));
    }

    /// Prefetches the session itself, and what its window says of a counter.
    #[inline]
    pub fn prefetch(&self, index: u32, counter: u64) {
        if let Some(Some(session)) = self.by_position.get(position_of(index)) {
            session
                .start
                .prefetch(offset_of!(LinkSession, window) + size_of::<u64>());
            session.window.prefetch(counter);
        }
    }

    /// Prefetches the session's key.
    #[inline]
    pub fn prefetch_key(&self, index: u32) {
        if let Some(Some(session)) = self.by_position.get(position_of(index)) {
            session.open.prefetch();
        }
    }

    /// The session of an index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut LinkSession> {
        let session = self
            .by_position
            .get_mut(position_of(index))?
            .as_deref_mut()?;
        (session.index() == index).then_some(session)
    }

    /// Adds a session in the position that its index names.
    pub fn insert(&mut self, session: LinkSession) {
        let position = position_of(session.index());
        if position >= self.by_position.len() {
            self.by_position.resize_with(position + 1, || None);
        }
        if self.by_position[position]
            .replace(Box::new(session))
            .is_none()
        {
            self.count += 1;
        }
    }

    /// Forgets the session of an index.
    pub fn remove(&mut self, index: u32) {
        if self.get_mut(index).is_some() {
            self.by_position[position_of(index)] = None;
            self.count -= 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_name_worker_and_position() {
        for (worker, position, random) in [(0, 0, 0), (5, 77, 3), (63, (1 << 18) - 1, 255)] {
            let index = index(worker, position, random);
            assert_eq!(worker_of(index), worker);
            assert_eq!(position_of(index), position);
            assert_eq!(index >> 24, random);
        }
    }
}
