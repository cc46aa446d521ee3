//! Which neighbours stay: those that say something, while they do.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_relay_engine::messages::Command;
use rand_core::CryptoRng;

use super::neighbours::{Neighbours, Output};
use super::places::Place;

/// A neighbour without session and mailboxes is forgotten after this long.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// One that has mailboxes stays for this long, so that it has them again after an outage of its line.
pub const KEEP_MAILBOXES: Duration = Duration::from_secs(300);
/// A neighbour that says nothing under the session that it asked for is forgotten after this long: an
/// honest one does so a round trip after our answer, and asks again 5 s after one that was lost.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

impl<R: CryptoRng> Neighbours<R> {
    /// A neighbour has said something under a session that it began at this address: it may stay, if there
    /// is a place for it. One that had its place at another address keeps that if there is none here.
    pub(super) fn confirm(&mut self, number: u32, ip: IpAddr) -> bool {
        let Some(known) = self.get(number) else {
            return true;
        };
        match known.place() {
            Place::Relay => true,
            Place::Client(_) => {
                let _ = self.table.put(number, Place::Client(ip));
                true
            }
            Place::Unproven(_) | Place::Proven(_) => self.table.put(number, Place::Client(ip)),
        }
    }

    /// Gives a neighbour the place that it is to have as a relay of the snapshot, or as one no longer.
    pub(super) fn place_anew(&mut self, number: u32, now: Instant) {
        let Some(known) = self.table.get(number) else {
            return;
        };
        let listed = self.relays.is_listed(&known.peer.remote());
        match (listed, known.place()) {
            // Without room for it, it keeps the place that it has.
            (true, place) if place != Place::Relay => {
                let _ = self.table.put(number, Place::Relay);
            }
            (false, Place::Relay) => {
                let here = known.address.filter(|_| known.peer.is_up());
                let place = here.map(|address| Place::Client(address.ip()));
                if !place.is_some_and(|place| self.table.put(number, place)) {
                    self.end(number, now);
                }
            }
            _ => {}
        }
    }

    /// Forgets a neighbour that has been idle for too long, or has said nothing.
    pub(super) fn forget_idle(&mut self, number: u32, now: Instant) {
        let has_mailboxes = self.mailboxes.has_any(number);
        let Some(known) = self.get(number) else {
            return;
        };
        if known.place().is_passing()
            && now.saturating_duration_since(known.since) >= CONFIRM_WITHIN
        {
            return self.end(number, now);
        }
        if !known.peer.is_idle() {
            known.idle_since = None;
            return;
        }
        let since = *known.idle_since.get_or_insert(now);
        let stays = if has_mailboxes {
            KEEP_MAILBOXES
        } else {
            FORGET_AFTER
        };
        if now.saturating_duration_since(since) >= stays {
            self.forget(number);
        }
    }

    /// Ends the sessions with a neighbour.
    pub(super) fn close(&mut self, number: u32, now: Instant) {
        if let Some(known) = self.get(number) {
            known.peer.close(now);
        }
        self.drive(number, None, now);
    }

    /// Ends the sessions with a neighbour, and forgets it.
    pub(super) fn end(&mut self, number: u32, now: Instant) {
        self.close(number, now);
        self.forget(number);
    }

    /// Forgets a neighbour that has no session.
    pub(super) fn forget(&mut self, number: u32) {
        let Some(known) = self.table.remove(number) else {
            return;
        };
        let key = known.peer.remote();
        // Before the number is another's, no worker knows it.
        self.tell_relay(key, None);
        self.output.push(Output::All(Command::Link(number, None)));
        let tokens = self.mailboxes.remove_all(number);
        self.tell_mailboxes(tokens, None);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::SystemTime;

    use mixline_protocol::identity::{IdentityKey, SIGNATURE, ShortId, X25519Public, X25519Secret};
    use mixline_protocol::link::{CellKind, Initiator, Timestamp};
    use mixline_protocol::random::OsRandom;
    use mixline_protocol::records::RelayDescriptor;
    use mixline_protocol::time::UnixTime;
    use mixline_relay_engine::messages::Signal;

    use super::*;

    fn descriptor(link: X25519Public, address: SocketAddr) -> RelayDescriptor {
        RelayDescriptor {
            id: IdentityKey::generate(&mut OsRandom::new()).relay_id(),
            version: 1,
            issued: UnixTime(1),
            expires: UnixTime(100),
            link,
            addresses: vec![address],
            capacity: 1,
            family: None,
            name: "relay".into(),
            software: String::new(),
            signature: [0; SIGNATURE],
        }
    }

    /// What workers were last told of the relay, if it is known.
    fn told(all: &mut Neighbours<OsRandom>, relay: ShortId) -> Option<Option<u32>> {
        let commands = all
            .take_output()
            .into_iter()
            .filter_map(|output| match output {
                Output::All(Command::Relays(relays)) => Some(relays),
                _ => None,
            });
        let last = commands.last()?;
        last.iter()
            .find(|(short, _)| *short == relay)
            .map(|(_, n)| *n)
    }

    #[test]
    fn a_relay_that_leaves_the_snapshot_is_routed_to_from_a_clients_place() {
        let (now, mut rng) = (Instant::now(), OsRandom::new());
        let own = || X25519Secret::from_bytes([5; 32]);
        let theirs = X25519Secret::generate(&mut rng);
        let address = SocketAddr::from(([192, 0, 2, 1], 7000));
        let relay = descriptor(theirs.public(), address);
        let own_short = ShortId([1; 8]);
        let mut all = Neighbours::new(own(), own_short, 1, (true, true), OsRandom::new(), now);
        all.set_relays(std::slice::from_ref(&relay), now);
        let stamp = Timestamp::from(SystemTime::now());
        let (_, datagram) =
            Initiator::start(&theirs, &own().public(), 1, stamp, None, &mut rng).unwrap();
        all.handshake(&datagram, address, now);
        let index = all.take_output().iter().find_map(|output| match output {
            Output::One(_, Command::Session { open, .. }) => Some(open.local_index()),
            _ => None,
        });
        all.signal(Signal::Heard(index.unwrap(), CellKind::Cell), now);
        let place = |all: &Neighbours<OsRandom>| all.table.get(0).map(|known| known.place());
        assert_eq!(place(&all), Some(Place::Relay));
        // What it holds is not of the reserve any more; it is so when it is back.
        for _ in 0..2 {
            all.set_relays(&[], now);
            assert_eq!(place(&all), Some(Place::Client(address.ip())));
            assert_eq!(told(&mut all, relay.short_id()), Some(Some(0)));
            all.set_relays(std::slice::from_ref(&relay), now);
            assert_eq!(place(&all), Some(Place::Relay));
        }
        // A cell for it when its link is gone makes it no relay either.
        all.set_relays(&[], now);
        all.end(0, now);
        assert_eq!(place(&all), None);
        all.signal(Signal::Want(relay.short_id()), now);
        assert_eq!(place(&all), Some(Place::Client(address.ip())));
        all.set_relays(&[], now);
        assert_eq!(told(&mut all, relay.short_id()), None);
    }
}
