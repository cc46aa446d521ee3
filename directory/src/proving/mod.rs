//! Whether relays are where they say they are.
//!
//! A relay is listed after the directory has made a link handshake with *each* address that it names: so the holder of
//! its link key answers there, and can be reached from outside. [`Proving`] decides who is tried when, and
//! remembers what came of it; it has no socket and no clock. [`Prover`] gives it both.
//!
//! # What is proven
//!
//! - *That whoever answers at the address has the link key, or passes on to who has.* Somebody who forwards
//!   datagrams to a relay is proven with that relay's key at his own address. So a handshake does not
//!   say whose key it is: that is what the proof in a registration is for (`docs/protocol.md`, section 9.1).
//! - *For an answer the initiation must have come through*: one has an index and keys that only who received it
//!   knows. It must come from the address that was tried, since that is where neighbours expect it from.
//!
//! # When
//!
//! An address is tried as soon as a relay names it, and again after a change of its link key. What was proven holds
//! for [`LIFE`] and is proven again at a random time in the second half of that, at the earliest: nobody can be there for the
//! handshakes only. If that fails, it is tried until the life is over, so an outage of the directory's own line
//! costs no relay its place. What fails is tried again after a minute, and then ever later, ten minutes at most.
//!
//! # Addresses that this host has no way to
//!
//! A directory without IPv6 cannot tell whether a relay is at an IPv6 address. Such an address counts neither for nor
//! against the relay: it is proven if it has answered at all *other* addresses, and at one at least. A relay that has no others
//! is [`State::CannotTell`], and this directory does not list it. Where several directories vote, those that
//! can tell outvote the rest for an address at which nobody is, and a relay with IPv6 alone is listed where
//! most of them have IPv6.
//!
//! # Bounds
//!
//! [`PLACES`] relays, a part of them for those that are proven; [`SLOTS`] attempts at one time, a part of them for
//! relays that were proven and are due again; [`STARTS`]. Networks share each of these by [`Shares`], by where relays register from, and
//! take turns (`turns`); who is not proven and waits to be tried again gives way to newcomers (`giving_way`). How often an address is tried at all has bounds of its own (`budget`), since
//! who is there may not be a relay. Effort that relays ask for is made little by little ([`HASHES`]).

mod attempt;
mod budget;
mod driver;
mod giving_way;
mod relay;
mod state;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mixline_protocol::identity::{RelayId, X25519Public};
use mixline_protocol::link::{Timestamp, receiver_index};
use mixline_protocol::rate_limit::Rate;
use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::shares::{Claimant, Shares};
use mixline_protocol::size::Datagram;
use rand_core::CryptoRng;

use attempt::{Attempt, Moment};
use budget::Budget;
use giving_way::GivingWay;
use relay::{Relay, Standing};
use turns::Turns;

pub use driver::Prover;
pub use state::{State, Trouble, Why};

/// For how long an address is proven.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);
/// For how long a relay is that was proven when this directory last ran.
pub const LIFE_AFTER_RESTART: Duration = Duration::from_secs(3600);
/// Relays that are tried or proven; what is beyond is refused.
pub const PLACES: usize = 16_384;
/// Of these, for relays that are proven.
pub const PLACES_OF_PROVEN: usize = 8192;
/// Attempts at one time.
pub const SLOTS: usize = 128;
/// Of these, for relays that were proven and are due again.
pub const SLOTS_OF_PROVEN: usize = 32;
/// Attempts that begin: each costs some 0.3 ms of work, so a tenth of a core.
pub const STARTS: Rate = Rate {
    burst: 32,
    interval: Duration::from_millis(5),
};
/// Hashes that are made at a time for relays that ask for effort, some 1 ms ...
pub const HASHES: u32 = 1 << 12;
/// ... and how often.
pub const WORK_EVERY: Duration = Duration::from_millis(10);
/// An address is tried again after this when it has failed ...
pub const BACKOFF: Duration = Duration::from_secs(60);
/// ... twice as long each time, up to this.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(600);
/// One that may not be tried now, since others have been at that site, waits for this long.
pub const POSTPONED: Duration = Duration::from_secs(30);

/// What has to be proven of a relay.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// Its link key.
    pub link: X25519Public,
    /// Its addresses, in any order: the first four count.
    pub addresses: &'a [SocketAddr],
}

impl<'a> From<&'a RelayDescriptor> for Described<'a> {
    fn from(descriptor: &'a RelayDescriptor) -> Self {
        Self {
            link: descriptor.link,
            addresses: &descriptor.addresses,
        }
    }
}

/// A relay is in another state than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which relay.
    pub relay: RelayId,
    /// With which link key.
    pub link: X25519Public,
    /// What is known of it now.
    pub state: State,
}

/// How many of what there are, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Relays that are proven.
    pub proven: usize,
    /// Those that wait for their first attempt to end.
    pub waiting: usize,
    /// Those that cannot be reached.
    pub failed: usize,
    /// Those to which this host has no way.
    pub cannot_tell: usize,
    /// Attempts under way.
    pub attempts: usize,
}

/// An attempt that is under way.
struct Flight {
    relay: RelayId,
    slot: Claimant,
    attempt: Attempt,
}

/// Who is tried, and what is known.
pub struct Proving<R> {
    rng: R,
    relays: HashMap<RelayId, Relay>,
    places: Shares,
    /// Relays that have nothing to do before these times.
    later: BTreeSet<(Instant, RelayId)>,
    /// Those of them that are not proven.
    giving_way: GivingWay,
    /// Relays that wait for a slot: such as were never proven, or not for long.
    new: Turns<RelayId>,
    /// Those that are proven and due again.
    renewals: Turns<RelayId>,
    /// Whether one of these may be begun now, as far as is known.
    may_begin: bool,
    slots: Shares,
    flights: HashMap<u64, Flight>,
    flight_number: u64,
    /// Whose handshakes these indices are.
    indices: HashMap<u32, u64>,
    /// Flights that effort is made for.
    solving: VecDeque<u64>,
    worked: Instant,
    budget: Budget,
    started: Instant,
    /// The last of each relay that nobody has heard of yet.
    changes: BTreeMap<RelayId, Change>,
    out: Vec<(SocketAddr, Box<Datagram>)>,
}

impl<R: CryptoRng> Proving<R> {
    /// Nothing is known of anybody.
    pub fn new(rng: R, now: Instant) -> Self {
        Self {
            rng,
            relays: HashMap::new(),
            places: Shares::new(PLACES, PLACES_OF_PROVEN),
            later: BTreeSet::new(),
            giving_way: GivingWay::default(),
            new: Turns::default(),
            renewals: Turns::default(),
            may_begin: false,
            slots: Shares::new(SLOTS, SLOTS_OF_PROVEN),
            flights: HashMap::new(),
            flight_number: 0,
            indices: HashMap::new(),
            solving: VecDeque::new(),
            worked: now,
            budget: Budget::default(),
            started: now,
            changes: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// A relay is to be proven as it describes itself now: with each registration, and cheap if nothing has
    /// changed. `source`: where the registration came from, if that was checked. Says what is known.
    pub fn wanted(
        &mut self,
        relay: RelayId,
        as_it_is: Described<'_>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> State {
        let first = as_it_is.addresses.first().map(SocketAddr::ip);
        let Some(from) = source.or(first).map(|ip| ip.to_canonical()) else {
            return State::Unproven(Why::Unasked);
        };
        let checked = source.is_some();
        let Some(known) = self.relays.get(&relay) else {
            let place = Claimant::Stranger(from);
            if !self.places.take(place) && !self.take_from_another(place, from) {
                return State::Unproven(Why::NoRoom);
            }
            let new = Relay::new(as_it_is, place, checked, now);
            self.relays.insert(relay, new);
            self.schedule(&relay, now);
            return self.state(&relay, as_it_is, now);
        };
        let moved = (known.source(), known.source_checked) != (from, checked);
        let differs = !known.is(&as_it_is);
        if moved || differs {
            self.unschedule(&relay);
            if moved {
                self.move_to(&relay, from, checked);
            }
            if let Some(known) = self.relays.get_mut(&relay) {
                known.describe(as_it_is, now);
            }
            self.settle(&relay, now);
            self.schedule(&relay, now);
        }
        self.state(&relay, as_it_is, now)
    }

    /// A relay was proven as it describes itself when this directory last ran, as the last snapshot says that it
    /// listed: it counts as proven for [`LIFE_AFTER_RESTART`] and is tried meanwhile, among the renewals. False if
    /// there is no place for it.
    pub fn restore(
        &mut self,
        relay: RelayId,
        as_it_is: Described<'_>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> bool {
        let first = as_it_is.addresses.first().map(SocketAddr::ip);
        let Some(from) = source.or(first).map(|ip| ip.to_canonical()) else {
            return false;
        };
        if self.relays.contains_key(&relay) {
            return false;
        }
        let place = Claimant::Known(from);
        if !self.places.restore(place) {
            return false;
        }
        let mut known = Relay::new(as_it_is, place, source.is_some(), now);
        known.restore(now, &mut self.rng);
        self.relays.insert(relay, known);
        self.schedule(&relay, now);
        true
    }

    /// A relay is gone: it has withdrawn, or has been silent for long.
    pub fn forget(&mut self, relay: &RelayId) {
        self.changes.remove(relay);
        self.remove(relay);
    }

    /// What is known of a relay that describes itself so.
    #[must_use]
    pub fn state(&self, relay: &RelayId, as_it_is: Described<'_>, now: Instant) -> State {
        match self.relays.get(relay) {
            Some(known) if known.is(&as_it_is) => known.state(now),
            _ => State::Unproven(Why::Unasked),
        }
    }

    /// A relay whose state has changed since this was last asked.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_first().map(|(_, change)| change)
    }

    /// Does what time asks for; returns what is to be sent.
    pub fn poll(&mut self, now: Instant, wall: Timestamp) -> Vec<(SocketAddr, Box<Datagram>)> {
        while let Some(&(at, relay)) = self.later.first()
            && at <= now
        {
            self.unschedule(&relay);
            self.settle(&relay, now);
            self.schedule(&relay, now);
        }
        self.begin(now);
        self.go_on(now, wall);
        self.solve(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Self::poll`] has something to do next, if nothing comes before.
    #[must_use]
    pub fn next_poll(&self, now: Instant) -> Option<Instant> {
        let later = self.later.first().map(|(at, _)| *at);
        let flights = self.flights.values();
        let flights = flights
            .filter(|flight| !flight.attempt.is_solving())
            .map(|flight| flight.attempt.next());
        let solving = (!self.solving.is_empty()).then(|| self.worked + WORK_EVERY);
        let begin = self.may_begin.then(|| now + STARTS.interval);
        flights
            .chain(later)
            .chain(solving)
            .chain(begin)
            .min()
            .map(|at| at.max(now))
    }

    /// Takes a datagram that was received; returns what is to be sent at once.
    pub fn received(
        &mut self,
        datagram: &Datagram,
        source: SocketAddr,
        now: Instant,
        wall: Timestamp,
    ) -> Vec<(SocketAddr, Box<Datagram>)> {
        let number = self.indices.get(&receiver_index(datagram)).copied();
        let Some((number, flight)) =
            number.and_then(|number| Some((number, self.flights.get_mut(&number)?)))
        else {
            return Vec::new();
        };
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let attempt = &mut flight.attempt;
        if attempt.received(datagram, source, now, &mut self.out) {
            self.end(number, Ok(()), now);
        } else {
            self.drive(number, now, wall);
        }
        std::mem::take(&mut self.out)
    }

    /// The host has no way to there: a datagram could not be sent for that reason.
    pub fn has_no_way(&mut self, to: SocketAddr, now: Instant) {
        let there = |flight: &Flight| flight.attempt.to() == to;
        let flights = self.flights.iter().filter(|(_, flight)| there(flight));
        let numbers: Vec<u64> = flights.map(|(number, _)| *number).collect();
        for number in numbers {
            self.end(number, Err(Trouble::NoWay), now);
        }
    }

    /// How many of what there are.
    #[must_use]
    pub fn census(&self, now: Instant) -> Census {
        let mut census = Census {
            attempts: self.flights.len(),
            ..Census::default()
        };
        for known in self.relays.values() {
            *match known.state(now) {
                State::Proven { .. } => &mut census.proven,
                State::CannotTell(_) => &mut census.cannot_tell,
                State::Unproven(Why::Failed(..)) => &mut census.failed,
                State::Unproven(_) => &mut census.waiting,
            } += 1;
        }
        census
    }

    /// Begins attempts, as far as there are slots.
    fn begin(&mut self, now: Instant) {
        while self.may_begin {
            let mut starting = self.started;
            if !STARTS.take(&mut starting, now) {
                return;
            }
            let Some((relay, slot)) = self.next_relay() else {
                self.may_begin = false;
                return;
            };
            if self.begin_one(relay, slot, now) {
                self.started = starting;
            } else {
                self.slots.give_back(slot);
                self.schedule(&relay, now);
            }
        }
    }

    /// The relay whose turn it is, and the slot that it has got. Renewals come first: they are few, and all have
    /// hours, so what they do not get from the reserve they may have of the rest.
    fn next_relay(&mut self) -> Option<(RelayId, Claimant)> {
        let slots = &mut self.slots;
        let mut slot = None;
        let renewal = self.renewals.pop(|ip| {
            let places = [Claimant::Known(ip), Claimant::Stranger(ip)];
            slot = places.into_iter().find(|place| slots.take(*place));
            slot.is_some()
        });
        let relay = renewal.or_else(|| {
            self.new.pop(|ip| {
                let place = Claimant::Stranger(ip);
                slot = slots.take(place).then_some(place);
                slot.is_some()
            })
        });
        let (relay, slot) = (relay?, slot?);
        if let Some(known) = self.relays.get_mut(&relay) {
            known.standing = Standing::Nowhere;
        }
        Some((relay, slot))
    }

    /// Begins an attempt at the address of a relay that has been due for longest, if it may be tried.
    fn begin_one(&mut self, relay: RelayId, slot: Claimant, now: Instant) -> bool {
        let Some(known) = self.relays.get_mut(&relay) else {
            return false;
        };
        let (link, source, checked) = (known.link, known.source(), known.source_checked);
        let Some(check) = known.due_check(now) else {
            return false;
        };
        let to = check.address;
        if !self.budget.may_try(to.ip(), source, checked, now) {
            check.due = now + relay::around(POSTPONED, &mut self.rng);
            return false;
        }
        self.flight_number += 1;
        known.standing = Standing::Tried(self.flight_number);
        let attempt = Attempt::new(link, to, now, &mut self.rng);
        let flight = Flight {
            relay,
            slot,
            attempt,
        };
        self.flights.insert(self.flight_number, flight);
        true
    }

    /// Lets attempts go on that are due.
    fn go_on(&mut self, now: Instant, wall: Timestamp) {
        let due = |flight: &Flight| now >= flight.attempt.next();
        let flights = self.flights.iter().filter(|(_, flight)| due(flight));
        let numbers: Vec<u64> = flights.map(|(number, _)| *number).collect();
        for number in numbers {
            self.drive(number, now, wall);
        }
    }

    fn drive(&mut self, number: u64, now: Instant, wall: Timestamp) {
        let Some(flight) = self.flights.get_mut(&number) else {
            return;
        };
        let indices = &mut self.indices;
        let free_index = |rng: &mut dyn CryptoRng| {
            loop {
                let index = rng.next_u32();
                if let Entry::Vacant(free) = indices.entry(index) {
                    free.insert(number);
                    return index;
                }
            }
        };
        let mut moment = Moment {
            now,
            wall,
            rng: &mut self.rng,
            out: &mut self.out,
        };
        let result = flight.attempt.go_on(free_index, &mut moment);
        if flight.attempt.is_solving() && !self.solving.contains(&number) {
            self.solving.push_back(number);
        }
        if let Err(trouble) = result {
            self.end(number, Err(trouble), now);
        }
    }

    /// Makes some of the effort that one relay asks for, if it is time; by turns.
    fn solve(&mut self, now: Instant) {
        if now.saturating_duration_since(self.worked) < WORK_EVERY {
            return;
        }
        let Some(number) = self.solving.pop_front() else {
            return;
        };
        self.worked = now;
        if let Some(flight) = self.flights.get_mut(&number) {
            flight.attempt.solve(HASHES, now, &mut self.out);
            if flight.attempt.is_solving() {
                self.solving.push_back(number);
            }
        }
    }

    /// An attempt is over.
    fn end(&mut self, number: u64, result: Result<(), Trouble>, now: Instant) {
        let Some(flight) = self.drop_flight(number) else {
            return;
        };
        let Some(known) = self.relays.get_mut(&flight.relay) else {
            return;
        };
        known.standing = Standing::Nowhere;
        known.tried(flight.attempt.to(), result, now, &mut self.rng);
        self.settle(&flight.relay, now);
        self.schedule(&flight.relay, now);
    }

    fn drop_flight(&mut self, number: u64) -> Option<Flight> {
        let flight = self.flights.remove(&number)?;
        for index in &flight.attempt.indices {
            self.indices.remove(index);
        }
        self.solving.retain(|other| *other != number);
        self.slots.give_back(flight.slot);
        self.may_begin = true;
        Some(flight)
    }

    /// Puts a relay where it belongs: into the queue if it is due, else into the timetable.
    fn schedule(&mut self, relay: &RelayId, now: Instant) {
        let Some(known) = self.relays.get_mut(relay) else {
            return;
        };
        if known.standing != Standing::Nowhere {
            return;
        }
        if known.due_check(now).is_none() {
            if let Some(at) = known.wakes_at() {
                known.standing = Standing::Later(at);
                self.later.insert((at, *relay));
                if !known.state(now).is_proven() {
                    self.giving_way.insert(known.source(), at, *relay);
                }
            }
            return;
        }
        let (renewal, source) = (matches!(known.place, Claimant::Known(_)), known.source());
        known.standing = Standing::Waits { renewal };
        let queue = if renewal {
            &mut self.renewals
        } else {
            &mut self.new
        };
        queue.push(source, *relay);
        // Who has its share of the slots already brings about no search for somebody who has not.
        self.may_begin |= renewal || self.slots.has_share(source);
    }

    /// Takes a relay out of queue, timetable and flight.
    fn unschedule(&mut self, relay: &RelayId) {
        let Some(known) = self.relays.get_mut(relay) else {
            return;
        };
        let source = known.source();
        match std::mem::replace(&mut known.standing, Standing::Nowhere) {
            Standing::Nowhere => {}
            Standing::Later(at) => {
                self.later.remove(&(at, *relay));
                self.giving_way.remove(source, at, *relay);
            }
            Standing::Waits { renewal: true } => {
                self.renewals.remove(source, relay);
            }
            Standing::Waits { renewal: false } => {
                self.new.remove(source, relay);
            }
            Standing::Tried(number) => {
                self.drop_flight(number);
            }
        }
    }

    /// A newcomer takes the place of one that is not proven and waits.
    fn take_from_another(&mut self, place: Claimant, from: IpAddr) -> bool {
        let [near, any] = self.giving_way.who_gives_way(from);
        let held = |relay: &RelayId| self.relays.get(relay).map(|known| known.place);
        let (near, any) = (
            near.and_then(|it| Some((it, held(&it)?))),
            any.and_then(|it| Some((it, held(&it)?))),
        );
        let other = if let Some((other, held)) = near {
            // Nobody else's share changes by that. There is a place: it has just been given back.
            self.places.give_back(held);
            let _ = self.places.restore(place);
            other
        } else if let Some((other, held)) = any
            && self.places.exchange(held, place)
        {
            other
        } else {
            return false;
        };
        self.unschedule(&other);
        self.changes.remove(&other);
        self.relays.remove(&other);
        true
    }

    /// A relay registers from elsewhere: it counts there, if there is room.
    fn move_to(&mut self, relay: &RelayId, from: IpAddr, checked: bool) {
        let Some(known) = self.relays.get_mut(relay) else {
            return;
        };
        let place = match known.place {
            Claimant::Known(_) => Claimant::Known(from),
            _ => Claimant::Stranger(from),
        };
        if place == known.place || self.places.exchange(known.place, place) {
            known.place = place;
            known.source_checked = checked;
        }
    }

    /// The state of a relay that stands nowhere may be another one: notes that, and gives it the place that is due
    /// to it. One that is not proven any more leaves the places of those that are, if need be altogether.
    fn settle(&mut self, relay: &RelayId, now: Instant) {
        let Some(known) = self.relays.get_mut(relay) else {
            return;
        };
        let (ip, state) = (known.source(), known.state(now));
        let place = match (state.is_proven(), known.place) {
            (true, Claimant::Stranger(_)) => Claimant::Known(ip),
            (false, Claimant::Known(_)) => Claimant::Stranger(ip),
            (_, place) => place,
        };
        let link = known.link;
        let mut tell = |state| {
            let relay = *relay;
            self.changes.insert(relay, Change { relay, link, state });
        };
        let waits = |state: State| matches!(state, State::Unproven(Why::Waiting(_)));
        let before = std::mem::replace(&mut known.told, state);
        // For which of its addresses it waits concerns nobody.
        if before != state && !(waits(before) && waits(state)) {
            tell(state);
        }
        if place == known.place {
            return;
        }
        if self.places.exchange(known.place, place) {
            known.place = place;
        } else if !state.is_proven() {
            tell(State::Unproven(Why::NoRoom));
            self.remove(relay);
        }
    }

    fn remove(&mut self, relay: &RelayId) {
        self.unschedule(relay);
        if let Some(known) = self.relays.remove(relay) {
            self.places.give_back(known.place);
        }
    }
}

#[cfg(test)]
impl<R: CryptoRng> Proving<R> {
    /// Everything that is counted, or stands somewhere, does so once.
    fn check_invariants(&self) {
        assert_eq!(self.places.taken(), self.relays.len());
        assert_eq!(self.slots.taken(), self.flights.len());
        let (mut later, mut tried) = (0, 0);
        for (id, known) in &self.relays {
            match known.standing {
                Standing::Nowhere => panic!("a relay that nobody looks after"),
                Standing::Later(at) => {
                    assert!(self.later.contains(&(at, *id)));
                    later += 1;
                }
                Standing::Waits { .. } => {}
                Standing::Tried(number) => {
                    assert_eq!(self.flights[&number].relay, *id);
                    tried += 1;
                }
            }
        }
        assert_eq!((later, tried), (self.later.len(), self.flights.len()));
        assert!(self.giving_way.count() <= later);
        let indices = self.flights.values().map(|it| it.attempt.indices.len());
        assert_eq!(self.indices.len(), indices.sum::<usize>());
        assert!(self.solving.iter().all(|it| self.flights.contains_key(it)));
    }

    /// Whether nothing is kept of anybody.
    fn is_empty(&self) -> bool {
        self.check_invariants();
        self.relays.is_empty()
            && self.new.is_empty()
            && self.renewals.is_empty()
            && self.changes.is_empty()
            && self.giving_way.count() == 0
    }

    /// All of a relay is to be tried now.
    fn make_due(&mut self, relay: &RelayId, now: Instant) {
        self.unschedule(relay);
        if let Some(known) = self.relays.get_mut(relay) {
            known.make_due(now);
        }
        self.schedule(relay, now);
    }
}
