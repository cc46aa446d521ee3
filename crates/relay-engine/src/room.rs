//! Room that networks share, for what has not shown yet who it is from.
//!
//! The rule is that of [`mixline_protocol::shares`]: a /16, a /24 and an address (IPv6: /32, /48 and /64) each get one
//! more while they have fewer than are free. Any worker may ask, for each initiation of a flood, so that this takes
//! neither a lock nor memory: networks are counted in some hundred counters, by a secret. Those that share a counter,
//! one in a thousand, count as one.
//!
//! Who writes other addresses than his own into datagrams has a share of every network. What is left to the others
//! then is how fast the room is emptied.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mixline_protocol::shares::networks;

/// Counters of each of the three kinds of network.
const COUNTERS: usize = 1024;
/// Kinds of network.
const KINDS: usize = 3;

/// A number of places.
#[derive(Debug)]
pub struct Room {
    places: usize,
    taken: AtomicUsize,
    /// How many places the networks of each kind have, the widest first.
    counters: [[AtomicUsize; COUNTERS]; KINDS],
    secret: RandomState,
}

/// One place; given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    /// Which counter of each kind has counted it.
    counted: [usize; KINDS],
}

impl Room {
    /// So many places, all free.
    #[must_use]
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let counters = || std::array::from_fn(|_| AtomicUsize::new(0));
        Arc::new(Self {
            places,
            taken: AtomicUsize::new(0),
            counters: std::array::from_fn(|_| counters()),
            secret: RandomState::new(),
        })
    }

    /// A place for what says that it is from there, if its networks have fewer than are free. When several workers
    /// ask at once, each may get one more than that, and all together never more than there are.
    pub(crate) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let counted = networks(source).map(|network| {
            let counter = self.secret.hash_one(network) % COUNTERS as u64;
            usize::try_from(counter).unwrap_or(0)
        });
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let mut free = self.places.saturating_sub(before);
        for (kind, counter) in self.counters.iter().zip(counted) {
            let has = kind[counter].load(Ordering::Relaxed);
            if has >= free {
                self.taken.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            // What is left to it is shared by those inside.
            free -= has;
        }
        for (kind, counter) in self.counters.iter().zip(counted) {
            kind[counter].fetch_add(1, Ordering::Relaxed);
        }
        let room = Arc::clone(self);
        Some(Place { room, counted })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (kind, counter) in self.room.counters.iter().zip(self.counted) {
            kind[counter].fetch_sub(1, Ordering::Relaxed);
        }
        self.room.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &Arc<Room>, from: impl Iterator<Item = u32>) -> Vec<Place> {
        let from = from.map(|bits| IpAddr::V4(bits.into()));
        from.filter_map(|ip| room.take(ip)).collect()
    }

    #[test]
    fn an_address_a_network_and_a_provider_leave_room() {
        let room = Room::new(256);
        let address = fill(&room, (0..1000).map(|_| 0xc000_0201));
        assert_eq!(address.len(), 64);
        let network = fill(&room, (0..1000).map(|n| 0xc000_0200 + n % 256));
        let provider = fill(&room, (0..10_000).map(|n| 0xc000_0000 + n * 257 % 65_536));
        let held = address.len() + network.len() + provider.len();
        assert!((96..=128).contains(&held), "{held}");
        // Each of some others gets a place, whatever comes from there, but for those that share its counter.
        let mut others = Vec::new();
        for n in 1..=32 {
            assert!(fill(&room, (0..100).map(|n| 0xc000_0000 + n)).is_empty());
            others.extend(fill(&room, std::iter::once(n << 16)));
        }
        assert!(others.len() >= 28, "{}", others.len());
        drop((address, network, provider));
        let left = others.len();
        assert_eq!(room.taken.load(Ordering::Relaxed), left);
        let counted = room.counters.iter().map(|kind| {
            let counters = kind.iter().map(|counter| counter.load(Ordering::Relaxed));
            counters.sum::<usize>()
        });
        assert!(counted.eq([left; KINDS]));
    }

    #[test]
    fn never_more_than_there_are() {
        let room = Room::new(20);
        let held = fill(&room, (0..10_000).map(|n| n << 16));
        assert_eq!(held.len(), 20);
        drop(held);
        assert_eq!(fill(&room, 0..1).len(), 1);
    }
}
