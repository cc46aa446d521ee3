//! Receiver indices: which are in use, and whose they are.

use std::collections::HashMap;
use std::net::SocketAddr;

use mixline_protocol::records::MAX_RELAYS;
use mixline_relay_engine::link_sessions::{
    MAX_SESSIONS_PER_WORKER, MAX_WORKERS, POSITION_BITS, WORKER_BITS, index,
};
use rand_core::CryptoRng;

use super::places::MAX_NEIGHBOURS;

/// Indices in use at a time: sessions, and handshakes in flight. Half of one worker's
/// positions, so that a free one is found at once; and enough for three sessions of each neighbour, and for each
/// relay's handshake and the one that effort is made for, so that nobody takes another's.
pub const MAX_INDICES: usize = MAX_SESSIONS_PER_WORKER / 2;

const _: () = assert!(MAX_INDICES >= 3 * MAX_NEIGHBOURS + 2 * MAX_RELAYS);

/// The bits of an index that name worker and position.
const POSITION: u32 = (1 << (WORKER_BITS + POSITION_BITS)) - 1;

/// What an index in use belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The neighbour.
    pub neighbour: u32,
    /// Where the neighbour was when the index was given out, if it was heard.
    pub source: Option<SocketAddr>,
}

/// Indices in use, by worker and position.
#[derive(Default)]
pub struct Indices {
    positions: HashMap<u32, (u32, Owner)>,
    /// What the XDP program lets through, where there is one.
    gate: Option<mixline_xdp::Sessions>,
}

impl Indices {
    /// Keeps the XDP program's set of indices the same as this from now on. To be called
    /// before any index is taken.
    pub fn set_gate(&mut self, gate: mixline_xdp::Sessions) {
        self.gate = Some(gate);
    }

    /// An index of `worker` that is not in use, for `owner`; none if there are too many.
    pub fn take(&mut self, worker: usize, owner: Owner, rng: &mut impl CryptoRng) -> Option<u32> {
        if self.positions.len() >= MAX_INDICES {
            return None;
        }
        loop {
            let random = rng.next_u32();
            let index = index(
                worker % MAX_WORKERS,
                (random >> WORKER_BITS) as usize,
                random >> 24,
            );
            // Zero stands for no session.
            if index != 0 && !self.positions.contains_key(&(index & POSITION)) {
                // Before the first datagram can bear it.
                if let Some(gate) = &self.gate
                    && let Err(error) = open(gate, index, owner)
                {
                    tracing::warn!(%error, "no more sessions");
                    return None;
                }
                self.positions.insert(index & POSITION, (index, owner));
                return Some(index);
            }
        }
    }

    /// A handshake of our own has been answered: its index is a session's from now on.
    pub fn answered(&self, index: u32) {
        if let Some(gate) = &self.gate
            && self
                .owner(index)
                .is_some_and(|owner| owner.source.is_none())
        {
            gate.answered(index);
        }
    }

    /// Whose index it is.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<Owner> {
        let (known, owner) = self.positions.get(&(index & POSITION))?;
        (*known == index).then_some(*owner)
    }

    /// Gives an index back.
    pub fn give_back(&mut self, index: u32) {
        if self.owner(index).is_some() {
            self.positions.remove(&(index & POSITION));
            if let Some(gate) = &self.gate {
                gate.remove(index);
            }
        }
    }
}

/// Lets through what may come under an index: answers too, if we have asked.
fn open(gate: &mixline_xdp::Sessions, index: u32, owner: Owner) -> mixline_xdp::Result<()> {
    gate.add(index)?;
    if owner.source.is_none() {
        gate.ask(index).inspect_err(|_| gate.remove(index))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mixline_protocol::random::OsRandom;

    use mixline_relay_engine::link_sessions::{position_of, worker_of};

    use super::*;

    #[test]
    fn no_position_twice() {
        let (mut indices, mut rng) = (Indices::default(), OsRandom::new());
        let owner = |neighbour| Owner {
            neighbour,
            source: None,
        };
        let mut positions = std::collections::HashSet::new();
        for n in 0..MAX_INDICES as u32 {
            let index = indices.take(5, owner(n), &mut rng).unwrap();
            assert_eq!(worker_of(index), 5);
            assert!(positions.insert(position_of(index)));
            assert_eq!(indices.owner(index), Some(owner(n)));
            // Another index of the same position is nobody's.
            assert_eq!(indices.owner(index ^ (1 << 31)), None);
        }
        assert_eq!(indices.take(5, owner(0), &mut rng), None);
        let index = indices.positions.values().next().unwrap().0;
        indices.give_back(index ^ (1 << 31));
        assert_eq!(indices.positions.len(), MAX_INDICES);
        indices.give_back(index);
        assert!(indices.take(5, owner(0), &mut rng).is_some());
    }
}
