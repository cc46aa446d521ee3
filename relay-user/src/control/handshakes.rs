//! Link handshakes: answering those of neighbours, making our own.
//!
//! Under load an initiation costs a source a cookie before it costs us public-key work
//! (WireGuard's whitepaper, section 5.3), and each source has its measure.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use mixline_protocol::link::{Admission, DatagramType, Timestamp, datagram_type, receiver_index};
use mixline_protocol::size::Datagram;
use rand_core::CryptoRng;

use super::indices::Owner;
use super::neighbours::{Neighbours, Output};

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
        let incoming = match self.responder.read(datagram, &mut self.rng) {
            Ok(incoming) => incoming,
            Err(error) => return tracing::debug!(%error, "link initiation"),
        };
        if incoming.remote() == self.public {
            return;
        }
        let known = self.table.number_of(&incoming.remote());
        let Some(number) = known.or_else(|| self.add(incoming.remote(), Some(source), now)) else {
            self.refused += 1;
            return;
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
                    let peer = self.get(number).map(|known| {
                        known.address.get_or_insert(source);
                        &mut known.peer
                    });
                    peer.map(|peer| peer.accept(established, now)).transpose()?;
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
            }
        }
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
        let addresses = known
            .relay
            .and_then(|short| self.relays.get(&short))
            .map(|r| r.addresses.as_slice());
        let stated = addresses.filter(|a| !a.is_empty());
        // It is where it is heard. Otherwise its addresses are tried one after the other.
        let to = match (known.address.filter(|_| known.peer.is_up()), stated) {
            (Some(address), _) => Some(address),
            (None, Some(addresses)) => Some(addresses[known.attempts % addresses.len()]),
            (None, None) => known.address,
        };
        known.attempts = known.attempts.wrapping_add(1);
        let owner = Owner {
            neighbour: number,
            source: None,
        };
        let index = self.indices.take(known.worker, owner, &mut self.rng);
        let (Some(to), Some(index)) = (to, index) else {
            return;
        };
        let at = self.times.next(Timestamp::from(SystemTime::now()));
        match known
            .peer
            .initiate(&self.secret, index, at, now, &mut self.rng)
        {
            Ok(datagram) => self.output.push(Output::Send(datagram, to)),
            Err(error) => {
                tracing::debug!(%error, "a relay's link key");
                self.indices.give_back(index);
            }
        }
    }
}
