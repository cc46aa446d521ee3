//! The link sessions that a worker receives under.
//!
//! A receiver index names its worker in the low bits, so that a datagram that came to
//! another one finds its owner; then a place in that worker's table; the high bits are
//! random, so that indices cannot be guessed at once and an old one does not fit its
//! successor in the same place.

use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mixline_protocol::link::{CellKind, OpenKey, Window};
use mixline_protocol::prefetch::{Front, prefetch_element};

use crate::quota::Shares;

/// Bits of an index that name the worker.
pub const WORKER_BITS: u32 = 6;
/// The most workers of a relay.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;
/// Bits of an index that name the place in the worker's table.
pub const PLACE_BITS: u32 = 18;
/// The most sessions of a worker.
pub const MAX_SESSIONS_PER_WORKER: usize = 1 << PLACE_BITS;

/// An index made of its parts; what is too large for its field is cut.
#[must_use]
pub fn index(worker: usize, place: usize, random: u32) -> u32 {
    let worker = (worker & (MAX_WORKERS - 1)) as u32;
    let place = (place & (MAX_SESSIONS_PER_WORKER - 1)) as u32;
    random << (WORKER_BITS + PLACE_BITS) | place << WORKER_BITS | worker
}

/// Which worker owns the session of an index.
#[must_use]
pub fn worker_of(index: u32) -> usize {
    index as usize & (MAX_WORKERS - 1)
}

/// The place of an index in its worker's table.
#[must_use]
pub fn place_of(index: u32) -> usize {
    index as usize >> WORKER_BITS & (MAX_SESSIONS_PER_WORKER - 1)
}

/// A session that datagrams are received under. The window, which is large, comes last.
#[repr(C)]
pub struct Session {
    front: Front,
    /// Its key.
    pub open: Arc<OpenKey>,
    /// Whose it is, as the control plane numbers neighbours.
    pub neighbour: u32,
    /// What the neighbour takes up.
    pub shares: Shares,
    /// Where the newest datagram came from.
    pub source: SocketAddr,
    /// The highest counter that authenticated, if any has.
    pub newest: Option<u64>,
    /// When the control plane was last told that something of this kind was heard.
    pub told: Option<(Instant, CellKind)>,
    /// Which counters have been seen.
    pub window: Window,
}

impl Session {
    /// A session that nothing has been received under.
    #[must_use]
    pub fn new(open: Arc<OpenKey>, neighbour: u32, shares: Shares, source: SocketAddr) -> Self {
        Self {
            front: Front::default(),
            open,
            neighbour,
            shares,
            window: Window::new(),
            source,
            newest: None,
            told: None,
        }
    }

    /// Its receiver index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.open.local_index()
    }
}

/// A worker's sessions by place. Memory follows the highest place in use.
#[derive(Default)]
pub struct Sessions {
    places: Vec<Option<Box<Session>>>,
    count: usize,
}

impl Sessions {
    /// Asks for where the session of an index stands. With [`Sessions::prefetch`] and
    /// [`Sessions::fetch_key`], for whoever needs several and waits for memory once and not for each.
    pub fn locate(&self, index: u32) {
        prefetch_element(&self.places, place_of(index));
    }

    /// Asks for the session itself, and what its window says of a counter.
    pub fn prefetch(&self, index: u32, counter: u64) {
        if let Some(Some(session)) = self.places.get(place_of(index)) {
            session
                .front
                .prefetch(offset_of!(Session, window) + size_of::<u64>());
            session.window.prefetch(counter);
        }
    }

    /// Asks for the session's key.
    pub fn fetch_key(&self, index: u32) {
        if let Some(Some(session)) = self.places.get(place_of(index)) {
            session.open.prefetch();
        }
    }

    /// The session of an index.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        let session = self.places.get_mut(place_of(index))?.as_deref_mut()?;
        (session.index() == index).then_some(session)
    }

    /// Adds a session in the place that its index names.
    pub fn insert(&mut self, session: Session) {
        let place = place_of(session.index());
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        if self.places[place].replace(Box::new(session)).is_none() {
            self.count += 1;
        }
    }

    /// Forgets the session of an index.
    pub fn remove(&mut self, index: u32) {
        if self.get_mut(index).is_some() {
            self.places[place_of(index)] = None;
            self.count -= 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_name_worker_and_place() {
        for (worker, place, random) in [(0, 0, 0), (5, 77, 3), (63, (1 << 18) - 1, 255)] {
            let index = index(worker, place, random);
            assert_eq!(worker_of(index), worker);
            assert_eq!(place_of(index), place);
            assert_eq!(index >> 24, random);
        }
    }
}
