//! The table of neighbours: who there is, by number and by link key, and how many there may be.
//!
//! A number is a position in the table and what workers know a neighbour by. It is another's only
//! after its neighbour was removed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use mixline_protocol::identity::{ShortId, X25519Public};
use mixline_protocol::link::peer::{Peer, Upkeep};
use mixline_relay_engine::quota::NeighbourUsage;

use super::prefix::Prefix;

/// Neighbours that a relay has at a time: some 5 KB each, with their sessions.
pub const MAX_NEIGHBOURS: usize = 32_768;
/// Clients that it has at a time from one IPv4 /24 or IPv6 /48. Many may be behind one
/// address; and nobody can fill the relay from one corner.
pub const MAX_CLIENTS_PER_PREFIX: usize = 512;

/// One neighbour.
pub struct Neighbour {
    /// The state of the link to it.
    pub peer: Peer,
    /// The relay that it is, if it is one.
    pub relay: Option<ShortId>,
    /// Where it is, as far as is known.
    pub address: Option<SocketAddr>,
    /// The index of the session that is sent under.
    pub current: Option<u32>,
    /// The worker that owns its sessions: neighbours are spread evenly, unless a port says
    /// that its datagrams come elsewhere.
    pub worker: usize,
    /// For a client, where it came from.
    prefix: Option<Prefix>,
    /// What it takes up in the workers.
    pub usage: NeighbourUsage,
    /// How many handshakes were begun: each tries the next address.
    pub attempts: usize,
    /// Since when it has had neither session nor mailboxes.
    pub idle_since: Option<Instant>,
}

/// All neighbours.
pub struct NeighbourTable {
    /// The relay's own link key.
    own: X25519Public,
    workers: usize,
    by_number: Vec<Option<Neighbour>>,
    /// Numbers that nobody has.
    free: Vec<u32>,
    by_key: HashMap<X25519Public, u32>,
    prefixes: HashMap<Prefix, usize>,
}

impl NeighbourTable {
    /// No neighbours yet, of a relay with this link key and so many workers.
    pub fn new(own: X25519Public, workers: usize) -> Self {
        Self {
            own,
            workers: workers.max(1),
            by_number: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            prefixes: HashMap::new(),
        }
    }

    /// The number of the neighbour that has this link key.
    pub fn number_of(&self, key: &X25519Public) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The neighbour of this number.
    pub fn get(&self, number: u32) -> Option<&Neighbour> {
        self.by_number.get(number as usize)?.as_ref()
    }

    /// The neighbour of this number.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut Neighbour> {
        self.by_number.get_mut(number as usize)?.as_mut()
    }

    /// All numbers that somebody has or had.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.by_number.len()).unwrap_or(u32::MAX)
    }

    /// All neighbours.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.by_number.iter().flatten()
    }

    /// All neighbours.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Neighbour> {
        self.by_number.iter_mut().flatten()
    }

    /// Adds a neighbour that is not there; its number, or none if there are too many. `relay`:
    /// which relay it is, if any; `source`: where it came from; none if this relay wants the link.
    pub fn add(
        &mut self,
        key: X25519Public,
        relay: Option<ShortId>,
        source: Option<SocketAddr>,
        now: Instant,
    ) -> Option<u32> {
        if self.by_key.len() >= MAX_NEIGHBOURS {
            return None;
        }
        let prefix = source.filter(|_| relay.is_none()).map(Prefix::of);
        if let Some(prefix) = prefix {
            let count = self.prefixes.entry(prefix).or_default();
            if *count >= MAX_CLIENTS_PER_PREFIX {
                return None;
            }
            *count += 1;
        }
        let number = match self.free.pop() {
            Some(free) => free,
            None => {
                self.by_number.push(None);
                u32::try_from(self.by_number.len() - 1).ok()?
            }
        };
        self.by_number[number as usize] = Some(Neighbour {
            peer: Peer::new(self.own, key, upkeep(relay), now),
            relay,
            address: source,
            current: None,
            worker: number as usize % self.workers,
            prefix,
            usage: NeighbourUsage::default(),
            attempts: 0,
            idle_since: None,
        });
        self.by_key.insert(key, number);
        Some(number)
    }

    /// Removes a neighbour, whose number becomes free.
    pub fn remove(&mut self, number: u32) -> Option<Neighbour> {
        let known = self.by_number.get_mut(number as usize)?.take()?;
        self.by_key.remove(&known.peer.remote());
        if let Some(prefix) = known.prefix
            && let Some(count) = self.prefixes.get_mut(&prefix)
        {
            *count -= 1;
            if *count == 0 {
                self.prefixes.remove(&prefix);
            }
        }
        self.free.push(number);
        Some(known)
    }
}

/// How a link is kept up: to a relay when there is something to send, to a client never by us.
pub fn upkeep(relay: Option<ShortId>) -> Upkeep {
    if relay.is_some() {
        Upkeep::OnDemand
    } else {
        Upkeep::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> X25519Public {
        X25519Public([n; 32])
    }

    #[test]
    fn numbers_are_used_again_and_prefixes_counted() {
        let (mut table, now) = (NeighbourTable::new(key(0), 2), Instant::now());
        let source = Some(SocketAddr::from(([192, 0, 2, 1], 7)));
        let first = table.add(key(1), None, source, now);
        let second = table.add(key(2), Some(ShortId([2; 8])), source, now);
        assert_eq!((first, second), (Some(0), Some(1)));
        assert_eq!(table.number_of(&key(2)), Some(1));
        assert_eq!(table.get(1).map(|known| known.worker), Some(1));
        // A relay counts for no prefix.
        assert_eq!(table.prefixes.values().sum::<usize>(), 1);
        assert!(table.remove(0).is_some());
        assert!(table.remove(0).is_none());
        assert!(table.prefixes.is_empty() && table.number_of(&key(1)).is_none());
        assert_eq!(table.add(key(3), None, source, now), Some(0));
        assert_eq!((table.numbers(), table.iter().count()), (0..2, 2));
    }
}
