//! The table of neighbours: who there is, by number and by link key. How many there may be is the affair
//! of [`places`](super::places).
//!
//! A number is a position in the table and what workers know a neighbour by. It is another's only
//! after its neighbour was removed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::{ShortId, X25519Public};
use mixline_protocol::link::peer::{Peer, Upkeep};
use mixline_protocol::shares::share_a_network;
use mixline_relay_engine::quota::NeighbourUsage;

use super::places::{Place, Places};
use super::unconfirmed::{Unconfirmed, Waiter};

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
    /// Which place it has.
    place: Place,
    /// The most effort that its initiations have shown.
    effort: Effort,
    /// When it last asked with a cookie.
    asked: Instant,
    /// Since when it has had that place, or asked for the newest session in it.
    pub since: Instant,
    /// What it takes up in the workers.
    pub usage: NeighbourUsage,
    /// How many handshakes were begun: each tries the next address.
    pub attempts: usize,
    /// Since when it has had no session.
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
    places: Places,
    /// Those that have returned a cookie and said nothing yet.
    unconfirmed: Unconfirmed,
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
            places: Places::default(),
            unconfirmed: Unconfirmed::default(),
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

    /// Adds a neighbour that is not there; its number, or none if there is no place for it. `relay`:
    /// which relay it is, if any; `address`: where it is, if that is known.
    pub fn add(
        &mut self,
        key: X25519Public,
        relay: Option<ShortId>,
        place: Place,
        address: Option<SocketAddr>,
        now: Instant,
    ) -> Option<u32> {
        if !self.places.take(place) {
            return None;
        }
        self.insert(key, relay, place, address, now)
    }

    /// The same in the place that a neighbour of the same network has just left.
    pub fn replace(
        &mut self,
        key: X25519Public,
        place: Place,
        address: Option<SocketAddr>,
        now: Instant,
    ) -> Option<u32> {
        if !self.places.take_over(place) {
            return None;
        }
        self.insert(key, None, place, address, now)
    }

    fn insert(
        &mut self,
        key: X25519Public,
        relay: Option<ShortId>,
        place: Place,
        address: Option<SocketAddr>,
        now: Instant,
    ) -> Option<u32> {
        let number = match self.free.pop() {
            Some(free) => free,
            None => {
                let number = u32::try_from(self.by_number.len()).ok()?;
                self.by_number.push(None);
                number
            }
        };
        self.by_number[number as usize] = Some(Neighbour {
            peer: Peer::new(self.own, key, upkeep(relay), now),
            relay,
            address,
            current: None,
            worker: number as usize % self.workers,
            place,
            effort: 0,
            asked: now,
            since: now,
            usage: NeighbourUsage::default(),
            attempts: 0,
            idle_since: None,
        });
        self.by_key.insert(key, number);
        self.sort_in(number);
        Some(number)
    }

    /// A neighbour has asked, and shown this effort.
    pub fn set_effort(&mut self, number: u32, effort: Effort, now: Instant) {
        self.sort_out(number);
        if let Some(known) = self.get_mut(number) {
            known.effort = known.effort.max(effort);
            known.asked = now;
        }
        self.sort_in(number);
    }

    /// Which neighbour that has returned a cookie and said nothing yet gives way to another one there, that
    /// shows this effort: one in its network; if there are none, one of all.
    pub fn who_gives_way(&self, ip: IpAddr, effort: Effort, now: Instant) -> Option<u32> {
        let near = |number: u32| {
            let place = self.get(number).and_then(|known| known.place.ip());
            place.is_some_and(|there| share_a_network(there, ip))
        };
        self.unconfirmed.who_gives_way(near, effort, now)
    }

    fn sort_in(&mut self, number: u32) {
        if let Some(waiter) = self.waiter(number) {
            self.unconfirmed.insert(waiter);
        }
    }

    fn sort_out(&mut self, number: u32) {
        if let Some(waiter) = self.waiter(number) {
            self.unconfirmed.remove(waiter);
        }
    }

    /// A neighbour as one of those that have returned a cookie and said nothing yet, if it is one.
    fn waiter(&self, number: u32) -> Option<Waiter> {
        let known = self.get(number)?;
        matches!(known.place, Place::Proven(_)).then_some(Waiter {
            number,
            effort: known.effort,
            since: known.asked,
        })
    }

    /// Gives a neighbour another place. False, and nothing is changed, if there is none for it.
    #[must_use]
    pub fn put(&mut self, number: u32, place: Place) -> bool {
        let known = self.by_number.get_mut(number as usize);
        let Some(known) = known.and_then(Option::as_mut) else {
            return false;
        };
        if known.place == place {
            return true;
        }
        if !self.places.exchange(known.place, place) {
            return false;
        }
        self.sort_out(number);
        if let Some(known) = self.get_mut(number) {
            known.place = place;
        }
        self.sort_in(number);
        true
    }

    /// How many places clients could still get, and of how many.
    pub fn room(&self) -> (usize, usize) {
        self.places.room()
    }

    /// Whether a client there could stay.
    pub fn has_room(&self, ip: IpAddr) -> bool {
        self.places.has_room(ip)
    }

    /// Removes a neighbour, whose number becomes free.
    pub fn remove(&mut self, number: u32) -> Option<Neighbour> {
        self.sort_out(number);
        let known = self.by_number.get_mut(number as usize)?.take()?;
        self.by_key.remove(&known.peer.remote());
        self.places.give_back(known.place);
        self.free.push(number);
        Some(known)
    }
}

impl Neighbour {
    /// Which place it has.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The most effort that its initiations have shown.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Where it is, by what was proven, or else by what is known.
    pub fn ip(&self) -> Option<IpAddr> {
        let known = || self.address.map(|address| address.ip());
        self.place.ip().or_else(known)
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
    use super::super::unconfirmed::HELD_FOR;
    use super::*;

    fn key(n: u8) -> X25519Public {
        X25519Public([n; 32])
    }

    #[test]
    fn the_least_effort_gives_way_within_a_network_first() {
        let (mut table, now) = (NeighbourTable::new(key(0), 1), Instant::now());
        let ip = |a: u8, d: u8| IpAddr::from([a, 0, 2, d]);
        for (n, a, effort) in [(1, 10, 5000), (2, 10, 3000), (3, 20, 2000)] {
            let number = table.add(key(n), None, Place::Proven(ip(a, n)), None, now);
            table.set_effort(number.unwrap(), effort, now);
        }
        assert_eq!(table.who_gives_way(ip(10, 9), 4000, now), Some(1));
        assert_eq!(table.who_gives_way(ip(10, 9), 3000, now), None);
        assert_eq!(table.who_gives_way(ip(30, 9), 2001, now), Some(2));
        // Who has confirmed its session does not.
        assert!(table.put(1, Place::Client(ip(10, 2))));
        assert_eq!(table.who_gives_way(ip(10, 9), 4000, now), None);
        assert_eq!(table.who_gives_way(ip(10, 9), 6000, now), Some(0));
        // Who has had its place for some time does, to whoever comes: the oldest, and within a network first.
        let later = now + HELD_FOR;
        table.set_effort(1, 5000, later);
        assert_eq!(table.who_gives_way(ip(10, 9), 0, later), Some(0));
        assert_eq!(table.who_gives_way(ip(30, 9), 0, later), Some(0));
        table.set_effort(0, 0, later);
        assert_eq!(table.who_gives_way(ip(10, 9), 0, later), None);
        assert_eq!(table.who_gives_way(ip(30, 9), 0, later), Some(2));
        for number in 0..3 {
            table.remove(number);
        }
        assert!(table.unconfirmed.is_empty());
    }

    #[test]
    fn numbers_and_places_are_used_again() {
        let (mut table, now) = (NeighbourTable::new(key(0), 2), Instant::now());
        let place = Place::Unproven([192, 0, 2, 1].into());
        let first = table.add(key(1), None, place, None, now);
        let second = table.add(key(2), Some(ShortId([2; 8])), Place::Relay, None, now);
        assert_eq!((first, second), (Some(0), Some(1)));
        assert_eq!(table.number_of(&key(2)), Some(1));
        assert_eq!(table.get(1).map(|known| known.worker), Some(1));
        let more = (0..).take_while(|_| table.places.take(place)).count();
        assert!(more > 0);
        assert!(table.add(key(3), None, place, None, now).is_none());
        assert_eq!(table.numbers(), 0..2);
        assert!(table.put(0, Place::Client([192, 0, 2, 1].into())));
        assert!(table.add(key(3), None, place, None, now).is_some());
        assert!(table.remove(0).is_some());
        assert!(table.remove(0).is_none());
        assert!(table.number_of(&key(1)).is_none());
        assert_eq!(table.add(key(4), None, Place::Relay, None, now), Some(0));
        assert_eq!((table.numbers(), table.iter().count()), (0..3, 3));
    }
}
