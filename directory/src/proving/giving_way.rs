//! Relays that are not proven and wait for their next attempt: they give their places to newcomers.
//!
//! Otherwise whoever registers relays at which nobody is, or at addresses that this host has no way to, keeps all places,
//! if it has networks enough. One that has given way loses no more than its time: it is a newcomer when it
//! registers again. Within a newcomer's own network one of that gives way, so that nobody takes anything from
//! others by having many.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use mixline_protocol::identity::RelayId;
use mixline_protocol::shares::networks;

/// Those that wait, by when they are due: the later that is, the more often they have failed.
#[derive(Debug, Default)]
pub struct GivingWay {
    all: BTreeSet<(Instant, RelayId)>,
    networks: HashMap<IpAddr, BTreeSet<(Instant, RelayId)>>,
}

impl GivingWay {
    /// Adds one that registers from there.
    pub fn insert(&mut self, source: IpAddr, due: Instant, relay: RelayId) {
        self.all.insert((due, relay));
        let near = self.networks.entry(widest(source)).or_default();
        near.insert((due, relay));
    }

    /// Takes one out, if it is among them as it was added.
    pub fn remove(&mut self, source: IpAddr, due: Instant, relay: RelayId) {
        self.all.remove(&(due, relay));
        if let Entry::Occupied(mut near) = self.networks.entry(widest(source)) {
            near.get_mut().remove(&(due, relay));
            if near.get().is_empty() {
                near.remove();
            }
        }
    }

    /// Who may give way to a newcomer from there: one of its network first, then any.
    pub fn who_gives_way(&self, source: IpAddr) -> [Option<RelayId>; 2] {
        let last = |of: &BTreeSet<(Instant, RelayId)>| of.last().map(|(_, relay)| *relay);
        let near = self.networks.get(&widest(source)).and_then(last);
        [near, last(&self.all)]
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        let near = self.networks.values().map(BTreeSet::len);
        assert_eq!(near.sum::<usize>(), self.all.len());
        self.all.len()
    }
}

fn widest(ip: IpAddr) -> IpAddr {
    networks(ip)[0].0
}
