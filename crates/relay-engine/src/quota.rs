//! Places that neighbours share, so that one that floods leaves room for all others.
//!
//! A neighbour may take a place only while it holds fewer than are free. One that takes
//! all it can gets half of the places, two get a third each, and so on, and there is
//! always room for who comes next. No neighbour needs to be known beforehand, and
//! nothing is looked through. (Dynamic thresholds: Choudhury and Hahne, "Dynamic queue
//! length thresholds for shared-memory packet switches", 1998, with alpha = 1.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of places.
#[derive(Debug)]
pub struct Places {
    capacity: usize,
    used: AtomicUsize,
}

/// How many places one neighbour holds.
#[derive(Debug, Default)]
pub struct Share(AtomicUsize);

/// A place; free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    share: Arc<Share>,
}

impl Places {
    /// So many places, all free.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            used: AtomicUsize::new(0),
        })
    }

    /// A place for the neighbour of `share`, if it holds fewer than are free.
    pub fn take(self: &Arc<Self>, share: &Arc<Share>) -> Option<Place> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        if share.0.load(Ordering::Relaxed) >= self.capacity.saturating_sub(used) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        share.0.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            places: Arc::clone(self),
            share: Arc::clone(share),
        })
    }

    /// How many places are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.used.fetch_sub(1, Ordering::Relaxed);
        self.share.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A neighbour's shares of what it can take up in a relay.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// Datagrams held for a path or a link.
    pub held: Arc<Share>,
    /// Paths whose header waits to be opened.
    pub opening: Arc<Share>,
    /// Control messages.
    pub control: Arc<Share>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Arc<Places>, share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| places.take(share)).collect()
    }

    #[test]
    fn a_flood_leaves_room() {
        let places = Places::new(100);
        let shares: Vec<Arc<Share>> = (0..4).map(|_| Arc::default()).collect();
        let first = take_all(&places, &shares[0]);
        assert_eq!(first.len(), 50);
        let second = take_all(&places, &shares[1]);
        assert_eq!(second.len(), 25);
        // Those who flood keep what they have, and the next still finds some.
        assert_eq!(take_all(&places, &shares[2]).len(), 13);
        drop(first);
        assert_eq!(places.used(), 25);
        assert!(!take_all(&places, &shares[0]).is_empty());
        drop(second);
        assert_eq!(places.used(), 0);
    }

    #[test]
    fn never_more_than_there_are() {
        let places = Places::new(8);
        let shares: Vec<Arc<Share>> = (0..100).map(|_| Arc::default()).collect();
        let taken: Vec<_> = shares
            .iter()
            .flat_map(|share| take_all(&places, share))
            .collect();
        assert_eq!(taken.len(), 8);
        assert_eq!(places.used(), 8);
    }
}
