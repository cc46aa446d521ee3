//! Link handshakes: answering those of neighbours, making our own.
//!
//! Under load an initiation costs a source a cookie before it costs us public-key work
//! (WireGuard's whitepaper, section 5.3), and each source has its measure. Those with a cookie wait, and are served
//! in the order of the effort that they show. Without load, an initiation costs a cookie before it costs a place,
//! where those who have not returned one have their share of the places. Where places are few, of neighbours or of
//! mailboxes, it costs effort.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::{
    COOKIE_LIFE, DatagramType, MAX_SPENT, MAX_WAITING, MIN_EFFORT, Timestamp, datagram_type,
    receiver_index,
};
use mixline_protocol::rate_limit::Rate;
use mixline_protocol::size::Datagram;
use rand_core::CryptoRng;

use super::indices::Owner;
use super::neighbours::{Neighbours, Output};
use super::places::Place;
use super::price::{pays, price};

/// How many initiations that wait are served: some 0.3 ms of work each, so a third of a core.
pub const SERVED: Rate = Rate {
    burst: 32,
    interval: Duration::from_millis(1),
};
/// All that are served while a cookie is good, and those that wait, are remembered if they have shown effort.
const _: () = {
    let served = COOKIE_LIFE.as_nanos() / SERVED.interval.as_nanos();
    assert!(served + SERVED.burst as u128 + 2 * MAX_WAITING as u128 <= MAX_SPENT as u128);
};
/// Hashes that effort for our own initiations costs at a time, some 1 ms ...
pub const HASHES: u32 = 1 << 12;
/// ... and how often.
pub const WORK_EVERY: Duration = Duration::from_millis(10);

/// The most effort that everybody is asked for because mailboxes are few.
const MOST_FOR_MAILBOXES: Effort = 1 << 12;

/// An initiation that waits to be served.
pub(super) struct Waits {
    datagram: Box<Datagram>,
    source: SocketAddr,
}

/// Why there is no place for a neighbour.
enum NoPlace {
    /// There may be one for whoever returns a cookie, and shows this effort.
    Without(Effort),
    /// Its network has its share.
    AtAll,
}

impl<R: CryptoRng> Neighbours<R> {
    /// Takes a handshake message, or a probe, that came to any worker. Whether it was an initiation that
    /// cost public-key work.
    pub fn handshake(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) -> bool {
        match datagram_type(datagram) {
            Ok(DatagramType::Initiation) => return self.initiation(datagram, source, now),
            Ok(DatagramType::Response) => self.response(datagram, source, now),
            Ok(DatagramType::Cookie) => self.cookie(datagram, now),
            Ok(DatagramType::Probe) => {
                let answer = self.probes.respond(datagram, source, now);
                self.output.extend(answer.map(Output::Answer));
            }
            Ok(DatagramType::Data) | Err(_) => {}
        }
        false
    }

    /// Serves the best of the initiations that wait, if one may be served now; whether it did.
    pub fn serve(&mut self, now: Instant) -> bool {
        if self.waiting.is_empty() || !SERVED.take(&mut self.served, now) {
            return false;
        }
        let Some((effort, Waits { datagram, source })) = self.waiting.pop() else {
            return false;
        };
        self.meter.served(effort);
        self.answer(&datagram, source, Some(effort), now);
        true
    }

    /// Makes some of the effort that other relays ask for, if it is time.
    pub fn solve(&mut self, now: Instant) {
        if now.saturating_duration_since(self.worked) < WORK_EVERY {
            return;
        }
        let Some(number) = self.solving.pop_front() else {
            return;
        };
        self.worked = now;
        let Some(known) = self.get(number) else {
            return;
        };
        let solved = known.peer.solve(HASHES, now);
        if known.peer.is_solving() {
            self.solving.push_back(number);
        }
        if let Some((datagram, to)) = solved {
            self.output.push(Output::Send(datagram, to));
            self.drive(number, None, now);
        }
    }

    /// Whether [`Self::serve`] or [`Self::solve`] have something to do, now or soon.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.solving.is_empty()
    }

    fn initiation(&mut self, datagram: &Datagram, source: SocketAddr, now: Instant) -> bool {
        let under_load = self.load.observe(now);
        if let Err(error) = self.responder.check_mac1(datagram) {
            tracing::trace!(%error, "link initiation");
            return false;
        }
        let effort = self.responder.effort(datagram, source);
        if !under_load && self.asked_of_all() == 0 {
            self.answer(datagram, source, effort, now);
            return true;
        }
        let Some(effort) = effort else {
            self.send_cookie(datagram, source, 0);
            return false;
        };
        if !self.limiter.allow(source, now) {
            self.refused += 1;
            return false;
        }
        // What was shown before is no effort: it has been served, or it waits.
        let new = effort == 0 || self.responder.spend(datagram);
        let effort = if new { effort } else { 0 };
        let from_relay = self.relays.is_first(source.ip());
        let waits = Waits {
            datagram: Box::new(*datagram),
            source,
        };
        let gives_way = self.waiting.push(source.ip(), from_relay, effort, waits);
        if let Some((effort, last)) = gives_way {
            if effort > 0 {
                self.responder.give_back(&last.datagram);
            }
            if !from_relay {
                self.meter.gave_way(effort);
            }
            self.send_cookie(&last.datagram, last.source, 0);
        }
        false
    }

    /// What everybody is asked for, as places are few. Most want fewer mailboxes than those that cost anything.
    fn asked_of_all(&self) -> Effort {
        let for_mailboxes = price(self.mailboxes.room()).min(MOST_FOR_MAILBOXES);
        price(self.table.room()).max(for_mailboxes)
    }

    /// Answers an initiation by a cookie, and suggests as much effort as this or as others do. From where a relay
    /// is this is asked for only where there is no place without: relays have their own queue and places.
    fn send_cookie(&mut self, datagram: &Datagram, source: SocketAddr, least: Effort) {
        let of_others = if self.relays.is_first(source.ip()) {
            0
        } else {
            self.meter.suggested().max(self.asked_of_all())
        };
        self.responder.suggest(of_others.max(least));
        let cookie = self.responder.cookie(datagram, source).ok();
        self.output
            .extend(cookie.map(|it| Output::Send(it, source)));
    }

    /// Answers an initiation; `effort`: what it shows, if it has a cookie.
    fn answer(
        &mut self,
        datagram: &Datagram,
        source: SocketAddr,
        effort: Option<Effort>,
        now: Instant,
    ) {
        let incoming = match self.responder.read(datagram, &mut self.rng) {
            Ok(incoming) => incoming,
            Err(error) => return tracing::debug!(%error, "link initiation"),
        };
        if incoming.remote() == self.public {
            return;
        }
        let known = self.table.number_of(&incoming.remote());
        // What the responder has forgotten its neighbour's state still knows: an old one changes nothing there.
        if let Some(neighbour) = known.and_then(|number| self.table.get(number))
            && !neighbour.peer.is_new(incoming.timestamp())
        {
            return tracing::debug!("an old link initiation");
        }
        let number = match self.place(incoming.remote(), source, effort, now) {
            Ok(number) => number,
            Err(NoPlace::Without(effort)) => return self.send_cookie(datagram, source, effort),
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
        effort: Option<Effort>,
        now: Instant,
    ) -> Result<u32, NoPlace> {
        let (ip, proven) = (source.ip(), effort.is_some());
        let shown = effort.unwrap_or(0);
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
            self.table.set_effort(number, shown, now);
            return Ok(number);
        }
        if place != Place::Relay {
            // Who could not stay is not let in.
            if !self.table.has_room(ip) {
                return Err(NoPlace::AtAll);
            }
            let asked = price(self.table.room());
            if !pays(shown, asked) {
                return Err(NoPlace::Without(asked));
            }
        }
        let number = match (self.add(key, place, Some(source), now), place) {
            (Some(number), _) => number,
            (None, Place::Unproven(_)) => return Err(NoPlace::Without(0)),
            (None, Place::Proven(_)) => self.in_place_of_another(key, source, shown, now)?,
            (None, _) => return Err(NoPlace::AtAll),
        };
        self.table.set_effort(number, shown, now);
        Ok(number)
    }

    /// A neighbour in the place of one that has not said anything yet, and has made less effort or had its time.
    fn in_place_of_another(
        &mut self,
        key: X25519Public,
        source: SocketAddr,
        effort: Effort,
        now: Instant,
    ) -> Result<u32, NoPlace> {
        let ip = source.ip();
        let Some(other) = self.table.who_gives_way(ip, effort, now) else {
            // Enough to be better than those who make none, or twice as much as was too little.
            return Err(NoPlace::Without(effort.saturating_mul(2).max(MIN_EFFORT)));
        };
        self.end(other, now);
        let number = self
            .table
            .replace(key, Place::Proven(ip), Some(source), now);
        number.ok_or(NoPlace::AtAll)
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
            Ok(to) => {
                self.found(neighbour, to);
                self.drive(neighbour, Some((index, Some(source))), now);
            }
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

    /// Where the next initiation to a neighbour goes. It is where it is heard. Otherwise its addresses are tried one
    /// after the other, as far as it has answered there, or little was sent.
    fn where_to(&mut self, number: u32, now: Instant) -> Option<SocketAddr> {
        let known = self.table.get_mut(number)?;
        if let Some(address) = known.address.filter(|_| known.peer.is_up()) {
            return Some(address);
        }
        let short = known.relay?;
        let relay = self.relays.get(&short)?;
        let all = match relay.addresses.as_slice() {
            [] => known.address.as_slice(),
            stated => stated,
        };
        // A cookie is good where it is from.
        let again = known.peer.hurried_to();
        let again = again.and_then(|from| all.iter().position(|at| *at == from));
        let turns = (0..all.len()).map(|turn| known.attempts.wrapping_add(turn));
        let turns = again.into_iter().chain(turns);
        let mut turns = turns.map(|turn| (turn, all[turn % all.len()]));
        let mut may = |at| self.unproven.may_send(short, relay, at, now);
        let (turn, to) = turns.find(|(_, at)| may(*at))?;
        known.attempts = turn.wrapping_add(1);
        Some(to)
    }

    /// Sends an initiation, as a neighbour's state asks.
    pub(super) fn initiate(&mut self, number: u32, now: Instant) {
        let to = self.where_to(number, now);
        let Some(known) = self.table.get_mut(number) else {
            return;
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
            Ok(Some(datagram)) => self.output.push(Output::Send(datagram, to)),
            Ok(None) if self.solving.contains(&number) => {}
            Ok(None) => self.solving.push_back(number),
            Err(error) => {
                tracing::debug!(%error, "a relay's link key");
                self.indices.give_back(index);
            }
        }
    }
}
