//! The relays of the newest snapshot, and former ones with a link, by short ID and by link key.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use mixline_protocol::identity::{ShortId, X25519Public};

/// Where a relay is and which key it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Its link key.
    pub link: X25519Public,
    /// Where it says that it is, as far as we have a socket for it.
    pub addresses: Vec<SocketAddr>,
    /// The first of its descriptor: where it registers from, if the directory checks that.
    pub first: Option<SocketAddr>,
    /// Whether it is in the newest snapshot. One that is not stays while there is a link, in a client's place.
    pub listed: bool,
}

/// All relays that are known.
#[derive(Debug, Default)]
pub struct KnownRelays {
    relays: HashMap<ShortId, Relay>,
    /// Which relays say that this is their link key.
    by_key: HashMap<X25519Public, Vec<ShortId>>,
    /// Where those of the newest snapshot register from.
    firsts: HashSet<IpAddr>,
}

impl KnownRelays {
    /// These relays.
    pub fn new(relays: HashMap<ShortId, Relay>) -> Self {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for (short, relay) in &relays {
            by_key.entry(relay.link).or_default().push(*short);
        }
        let listed = relays.values().filter(|relay| relay.listed);
        let firsts = listed.filter_map(|relay| relay.first);
        Self {
            firsts: firsts.map(|first| first.ip().to_canonical()).collect(),
            relays,
            by_key,
        }
    }

    /// Whether a relay of the newest snapshot has its first address there.
    pub fn is_first(&self, ip: IpAddr) -> bool {
        self.firsts.contains(&ip.to_canonical())
    }

    /// Where relays of the newest snapshot have their first addresses.
    pub fn first_addresses(&self) -> &HashSet<IpAddr> {
        &self.firsts
    }

    /// The relay of this short ID.
    pub fn get(&self, short: &ShortId) -> Option<&Relay> {
        self.relays.get(short)
    }

    /// All relays.
    pub fn iter(&self) -> impl Iterator<Item = (&ShortId, &Relay)> {
        self.relays.iter()
    }

    /// The relays with this link key: none for a client, and one for an honest relay.
    pub fn with_key(&self, key: &X25519Public) -> &[ShortId] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a relay of the newest snapshot has this link key.
    pub fn is_listed(&self, key: &X25519Public) -> bool {
        let mut relays = self.with_key(key).iter();
        relays.any(|short| self.get(short).is_some_and(|relay| relay.listed))
    }
}
