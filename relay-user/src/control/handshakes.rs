//! Link handshakes: answering those of neighbours, making our own.
//!
//! Under load an initiation costs a source a cookie before it costs us public-key work
//! (WireGuard's whitepaper, section 5.3), and each source has its measure. Without load, it costs a cookie
//! before it costs a place, where those who have not returned one have their share of the places.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::{Admission, DatagramType, Timestamp, datagram_type, receiver_index};
use mixline_protocol::size::Datagram;
use rand_core::CryptoRng;

use super::indices::Owner;
use super::neighbours::{Neighbours, Output};
use super::places::Place;

/// Why there is no place for a neighbour.
enum NoPlace {
    /// There may be one for whoever returns a cookie.
    WithoutCookie,
    /// Its network has its share.
    AtAll,
}

impl<R: CryptoRng> Neighbours<R> {
    /// Takes a handshake message, or a probe, that came to any worker.
    pub fn handshake(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) {
        match datagram_type(datagram) {
            Ok(DatagramType::Initiation) => self.initiation(datagram, source, now),
            Ok(DatagramType::Response) => self.response(datagram, source, now),
            Ok(DatagramType::Cookie) => self.cookie(datagram, now),
            Ok(DatagramType::Probe) => {
                let answer = self.probes.respond(datagram, source, now);
                self.output.extend(answer.map(Output::Answer));
            }
            Ok(DatagramType::Data) | Err(_) => {}
        }
    }

    fn initiation(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) {
        let under_load = self.load.observe(now);
        match self.responder.check_macs(datagram, source, under_load) {
            Ok(Admission::Process) => {}
            Ok(Admission::SendCookie(cookie)) => {
                return self.output.push(Output::Send(cookie, source));
            }
            Err(_) => return,
        }
        if under_load && !self.limiter.allow(source, now) {
            self.refused += 1;
            return;
        }
        let proven = under_load || self.responder.has_cookie(datagram, source);
        let incoming = match self.responder.read(datagram, &mut self.rng) {
            Ok(incoming) => incoming,
            Err(error) => return tracing::debug!(%error, "link initiation"),
        };
        if incoming.remote() == self.public {
            return;
        }
        let known = self.table.number_of(&incoming.remote());
        let number = match self.place(incoming.remote(), source, proven, now) {
            Ok(number) => number,
            Err(NoPlace::WithoutCookie) => {
                let cookie = self.responder.cookie(datagram, source).ok();
                return self
                    .output
                    .extend(cookie.map(|it| Output::Send(it, source)));
            }
            Err(NoPlace::AtAll) => {
                self.refused += 1;
                return;
            }
        };
        let owner = Owner {
            neighbour: number,
            source: Some(source),
        };
        let worker = self.get(number).map_or(0, |known| known.worker);
        let Some(index) = self.indices.take(worker, owner, &mut self.rng) else {
            self.refused += 1;
            return;
        };
        let answered =
            incoming
                .respond(index, &mut self.rng)
                .and_then(|(established, response)| {
                    if let Some(known) = self.get(number) {
                        known.peer.accept(established, now)?;
                        known.address.get_or_insert(source);
                        known.since = now;
                    }
                    Ok(response)
                });
        match answered {
            Ok(response) => {
                self.drive(number, None, now);
                self.output.push(Output::Send(response, source));
            }
            Err(error) => {
                tracing::debug!(%error, "link initiation");
                self.indices.give_back(index);
                if known.is_none() {
                    self.forget(number);
                }
            }
        }
    }

    /// The neighbour that has sent an initiation, in a place that it may have.
    fn place(
        &mut self,
        key: X25519Public,
        source: SocketAddr,
        proven: bool,
        now: Instant,
    ) -> Result<u32, NoPlace> {
        let ip = source.ip();
        let place = match (self.relays.is_listed(&key), proven) {
            (true, _) => Place::Relay,
            (false, true) => Place::Proven(ip),
            (false, false) => Place::Unproven(ip),
        };
        let known = self.table.number_of(&key);
        if let Some(number) = known {
            // Who has returned a cookie meanwhile leaves the place to others who have not.
            let passing = self.get(number).map(|known| known.place());
            if proven && matches!(passing, Some(Place::Unproven(_))) {
                let _ = self.table.put(number, place);
            }
            return Ok(number);
        }
        // Who could not stay is not let in.
        if place != Place::Relay && !self.table.has_room(ip) {
            return Err(NoPlace::AtAll);
        }
        let address = Some(source);
        let number = self.add(key, place, address, now);
        number.ok_or(match place {
            Place::Unproven(_) => NoPlace::WithoutCookie,
            _ => NoPlace::AtAll,
        })
    }

    fn response(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) {
        let index = receiver_index(datagram);
        let Some(Owner { neighbour, .. }) = self.indices.owner(index) else {
            return;
        };
        let Some(known) = self.get(neighbour) else {
            return;
        };
        match known.peer.response(datagram, now) {
            Ok(()) => self.drive(neighbour, Some((index, Some(source))), now),
            Err(error) => tracing::debug!(%error, "link response"),
        }
    }

    fn cookie(&mut self, datagram: &Datagram, now: Instant) {
        let owner = self.indices.owner(receiver_index(datagram));
        let Some(Owner { neighbour, .. }) = owner else {
            return;
        };
        let Some(known) = self.get(neighbour) else {
            return;
        };
        match known.peer.cookie(datagram, now) {
            Ok(()) => self.drive(neighbour, None, now),
            Err(error) => tracing::debug!(%error, "link cookie"),
        }
    }

    /// Sends an initiation, as a neighbour's state asks.
    pub(super) fn initiate(&mut self, number: u32, now: Instant) {
        let Some(known) = self.table.get_mut(number) else {
            return;
        };
        let relay = known.relay.and_then(|short| self.relays.get(&short));
        let addresses = relay.map(|r| r.addresses.as_slice());
        let stated = addresses.filter(|a| !a.is_empty());
        let first = relay.and_then(|relay| relay.first);
        // It is where it is heard. Otherwise its addresses are tried one after the other, as far as
        // somebody has answered there, or little was sent.
        let to = match (known.address.filter(|_| known.peer.is_up()), stated) {
            (Some(address), _) => Some(address),
            (None, stated) => {
                let all = stated.unwrap_or(known.address.as_slice());
                // A cookie is good where it is from.
                let again = all.iter().position(|at| known.peer.has_unused_cookie(*at));
                let turns = (0..all.len()).map(|turn| known.attempts.wrapping_add(turn));
                let turns = again.into_iter().chain(turns);
                let mut turns = turns.map(|turn| (turn, all[turn % all.len()]));
                let mut may = |at| self.unproven.may_send(at, first == Some(at), now);
                let found = turns.find(|(_, at)| may(*at));
                known.attempts = found.map_or(known.attempts, |(turn, _)| turn.wrapping_add(1));
                found.map(|(_, at)| at)
            }
        };
        let owner = Owner {
            neighbour: number,
            source: None,
        };
        let Some(to) = to else {
            return known.peer.postpone(now);
        };
        let index = self.indices.take(known.worker, owner, &mut self.rng);
        let Some(index) = index else {
            return known.peer.postpone(now);
        };
        let at = self.times.next(Timestamp::from(SystemTime::now()));
        match known
            .peer
            .initiate(&self.secret, index, to, at, now, &mut self.rng)
        {
            Ok(datagram) => self.output.push(Output::Send(datagram, to)),
            Err(error) => {
                tracing::debug!(%error, "a relay's link key");
                self.indices.give_back(index);
            }
        }
    }
}
