//! Places in the table of neighbours, and who gets them.
//!
//! An initiation costs its sender nothing but the datagram, and its source may be anybody's. So a
//! neighbour begins in a place for those who have said nothing under a session yet: of these there are
//! few, and they are held for seconds. Whoever has returned a cookie receives at its address, and has places
//! apart from those who have not. What is said under the session confirms the neighbour, and gets it a
//! place for as long as it stays. All three are shared by network ([`Shares`]); relays of the snapshot have
//! a reserve among the confirmed.

use std::net::IpAddr;

use mixline_protocol::records::MAX_RELAYS;
use mixline_protocol::shares::{Claimant, Shares};

/// Neighbours that a relay has at a time: some 5 KB each, with their sessions.
pub const MAX_NEIGHBOURS: usize = 32_768;
/// Those of them that have neither confirmed a session nor returned a cookie. At 200 initiations a second, when
/// rates ask for no cookie yet, twice as many could come in the life of such a place: whoever's network
/// has its share is asked for one then.
pub const MAX_UNPROVEN: usize = 1024;
/// Those that have returned a cookie, and not confirmed a session.
pub const MAX_UNCONFIRMED: usize = 3072;
/// Those that have confirmed one, and relays.
pub const MAX_CONFIRMED: usize = MAX_NEIGHBOURS - MAX_UNPROVEN - MAX_UNCONFIRMED;
/// Of the places of the confirmed, those that clients do not get: one for each relay of a snapshot.
pub const RELAY_RESERVE: usize = MAX_RELAYS;

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Somebody's who says to be at this address.
    Unproven(IpAddr),
    /// Somebody's who receives at this address.
    Proven(IpAddr),
    /// A client's that has said something under a session, by where it received the response.
    Client(IpAddr),
    /// A relay's of the snapshot.
    Relay,
}

impl Place {
    /// Whether nothing was said under a session yet, so that the place is held for seconds only.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unproven(_) | Self::Proven(_))
    }

    /// Where its holder is, as far as that was looked at.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Unproven(ip) | Self::Proven(ip) | Self::Client(ip) => Some(ip),
            Self::Relay => None,
        }
    }
}

/// The places that are taken.
#[derive(Debug, Clone)]
pub struct Places {
    unproven: Shares,
    unconfirmed: Shares,
    confirmed: Shares,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            unproven: Shares::new(MAX_UNPROVEN, 0),
            unconfirmed: Shares::new(MAX_UNCONFIRMED, 0),
            confirmed: Shares::new(MAX_CONFIRMED, RELAY_RESERVE),
        }
    }
}

impl Places {
    /// Takes a place. False, and nothing is changed, if there is none for its holder.
    #[must_use]
    pub fn take(&mut self, place: Place) -> bool {
        let (shares, claimant) = self.of(place);
        shares.take(claimant)
    }

    /// Takes the place that somebody in the same network has just left, whatever the shares are.
    #[must_use]
    pub fn take_over(&mut self, place: Place) -> bool {
        let (shares, claimant) = self.of(place);
        shares.take(claimant) || shares.restore(claimant)
    }

    /// How many places clients could still get, and of how many.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        self.confirmed.room()
    }

    /// Gives a place back.
    pub fn give_back(&mut self, place: Place) {
        let (shares, claimant) = self.of(place);
        shares.give_back(claimant);
    }

    /// Takes `to` and gives `from` back. False, and nothing is changed, if there is none for its holder.
    #[must_use]
    pub fn exchange(&mut self, from: Place, to: Place) -> bool {
        self.give_back(from);
        let done = self.take(to);
        if !done {
            // It was there a moment ago, whatever the shares are.
            let (shares, claimant) = self.of(from);
            let _ = shares.restore(claimant);
        }
        done
    }

    /// Whether a client there could stay.
    #[must_use]
    pub fn has_room(&self, ip: IpAddr) -> bool {
        self.confirmed.has_share(ip)
    }

    fn of(&mut self, place: Place) -> (&mut Shares, Claimant) {
        match place {
            Place::Unproven(ip) => (&mut self.unproven, Claimant::Stranger(ip)),
            Place::Proven(ip) => (&mut self.unconfirmed, Claimant::Stranger(ip)),
            Place::Client(ip) => (&mut self.confirmed, Claimant::Stranger(ip)),
            Place::Relay => (&mut self.confirmed, Claimant::Own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(bits: u32) -> IpAddr {
        IpAddr::V4(bits.into())
    }

    #[test]
    fn who_gets_no_better_place_keeps_its_own() {
        let mut places = Places::default();
        let (here, there) = (Place::Client(ip(1)), Place::Client(ip(2 << 16)));
        assert!(places.take(here));
        while places.take(there) {}
        assert!(!places.exchange(here, there));
        places.give_back(here);
        assert!(places.take(here));
        assert!(places.exchange(here, Place::Relay));
        assert!(places.take(here));
    }

    #[test]
    fn clients_from_everywhere_leave_a_place_for_each_relay() {
        let mut places = Places::default();
        let everywhere = (0..1 << 16).map(|n: u32| Place::Client(ip(n << 16)));
        let clients = everywhere.filter(|place| places.take(*place)).count();
        assert_eq!(clients, MAX_CONFIRMED - RELAY_RESERVE);
        let relays = (0..=MAX_RELAYS).filter(|_| places.take(Place::Relay));
        assert_eq!(relays.count(), MAX_RELAYS);
    }
}
