//! The relay's neighbours: relays of the snapshot, by their link key, and clients, by a
//! key of theirs that lives as long as they please.
//!
//! No sockets and no clock: messages and time go in, [`Output`] comes out. Everything that
//! an outsider can make more of is bounded, by constants of `places`, `indices` and `mailboxes`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::identity::{ShortId, X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::Action;
use mixline_protocol::link::probe::{Answer, ProbeResponder};
use mixline_protocol::link::{
    CellKind, EffortMeter, InitiationTimes, LoadMeter, Responder, SourceLimiter, Waiting,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::records::{RelayDescriptor, with_keys_of_their_own};
use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_engine::headers::cell_of;
use mixline_relay_engine::link_sessions::worker_of;
use mixline_relay_engine::messages::{Command, Signal};
use mixline_relay_engine::next_hops::Link;
use rand_core::CryptoRng;

use super::handshakes::Waits;
use super::indices::{Indices, Owner};
use super::known_relays::{KnownRelays, Relay};
use super::mailboxes::Mailboxes;
use super::neighbour_table::{Neighbour, NeighbourTable, upkeep};
use super::places::Place;
use super::unproven::Unproven;

/// How often mailboxes are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// What the control plane has to do.
pub enum Output {
    /// Tell this worker.
    One(usize, Command),
    /// Tell all workers.
    All(Command),
    /// Send this. After the commands that stand before it.
    Send(Box<Datagram>, SocketAddr),
    /// Send the answer to a probe.
    Answer(Answer),
}

/// How many of what there are, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Neighbours that are relays, with a link that can be sent over.
    pub relays: usize,
    /// Other neighbours with such a link.
    pub clients: usize,
    /// Mailbox tokens.
    pub mailboxes: usize,
    /// Handshakes that were refused for want of room.
    pub refused: u64,
}

/// All neighbours.
pub struct Neighbours<R> {
    pub(super) secret: X25519Secret,
    pub(super) public: X25519Public,
    own: ShortId,
    pub(super) rng: R,
    pub(super) responder: Responder,
    /// Of our own initiations.
    pub(super) times: InitiationTimes,
    pub(super) probes: ProbeResponder,
    pub(super) load: LoadMeter,
    pub(super) limiter: SourceLimiter,
    /// Initiations under load.
    pub(super) waiting: Waiting<Waits>,
    /// When so many may be served at once again as ever.
    pub(super) served: Instant,
    pub(super) meter: EffortMeter,
    /// Relays that we make effort for.
    pub(super) solving: VecDeque<u32>,
    /// When some was last made.
    pub(super) worked: Instant,
    /// Which address families there is a socket for: IPv4, IPv6.
    families: (bool, bool),
    pub(super) table: NeighbourTable,
    pub(super) indices: Indices,
    pub(super) relays: KnownRelays,
    pub(super) unproven: Unproven,
    pub(super) mailboxes: Mailboxes,
    swept: Instant,
    pub(super) refused: u64,
    pub(super) output: Vec<Output>,
}

impl<R: CryptoRng> Neighbours<R> {
    /// No neighbours yet. `families`: whether there are IPv4 and IPv6 sockets.
    pub fn new(
        secret: X25519Secret,
        own: ShortId,
        workers: usize,
        families: (bool, bool),
        mut rng: R,
        now: Instant,
    ) -> Self {
        let public = secret.public();
        Self {
            public,
            responder: Responder::new(&secret, now, &mut rng),
            times: InitiationTimes::default(),
            probes: ProbeResponder::new(&public, now),
            secret,
            own,
            rng,
            load: LoadMeter::new(),
            limiter: SourceLimiter::new(),
            waiting: Waiting::default(),
            served: now,
            meter: EffortMeter::default(),
            solving: VecDeque::new(),
            worked: now,
            families,
            table: NeighbourTable::new(public, workers),
            indices: Indices::default(),
            relays: KnownRelays::default(),
            unproven: Unproven::default(),
            mailboxes: Mailboxes::default(),
            swept: now,
            refused: 0,
            output: Vec::new(),
        }
    }

    /// Keeps the XDP program's set of indices current. To be called before anything else.
    pub fn set_gate(&mut self, gate: mixline_xdp::Sessions) {
        self.indices.set_gate(gate);
    }

    /// Goes on with the times of initiations where an earlier run has stopped. To be called before
    /// anything else.
    pub fn set_times(&mut self, times: InitiationTimes) {
        self.times = times;
    }

    /// What is to be stored of those times before any output is sent.
    pub fn time_to_store(&mut self) -> Option<u64> {
        self.times.to_store()
    }

    /// What is to be done, in this order.
    pub fn take_output(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    /// Takes the relays of a new snapshot, the relay itself not among them. Those that are
    /// not in it any more stay for as long as there is a link to them: a directory that has
    /// just restarted does not know everybody at once, and paths in use need not suffer. They stay in a
    /// client's place, one for each link: whoever registers ever new relays gets no more than clients do.
    pub fn set_relays(&mut self, relays: &[RelayDescriptor], now: Instant) {
        let stay = self.relays.iter().filter(|(short, relay)| {
            let number = self.table.number_of(&relay.link);
            let known = number.and_then(|number| self.table.get(number));
            known.is_some_and(|known| known.peer.is_up() && known.relay == Some(**short))
        });
        let stay = stay.map(|(short, relay)| {
            let listed = false;
            let relay = relay.clone();
            (*short, Relay { listed, ..relay })
        });
        let new = with_keys_of_their_own(relays).map(|descriptor| {
            let addresses = descriptor.addresses.iter().copied();
            let relay = Relay {
                link: descriptor.link,
                addresses: addresses.filter(|a| self.reaches(a)).collect(),
                first: descriptor.addresses.first().copied(),
                listed: true,
            };
            (descriptor.short_id(), relay)
        });
        let relays: HashMap<_, _> = stay.chain(new).filter(|(s, _)| *s != self.own).collect();
        let advertised = relays.iter().flat_map(|(short, relay)| {
            let addresses = relay.addresses.iter();
            addresses.map(|address| (*short, *address))
        });
        self.unproven.keep_only(&advertised.collect());
        self.relays = KnownRelays::new(relays);
        for neighbour in self.table.iter_mut() {
            let shorts = self.relays.with_key(&neighbour.peer.remote());
            // Whichever was wanted, where one that is not listed any more has the key too.
            let wanted = neighbour.relay.filter(|relay| shorts.contains(relay));
            neighbour.relay = wanted.or_else(|| shorts.first().copied());
            neighbour.peer.set_upkeep(upkeep(neighbour.relay));
        }
        for number in self.table.numbers() {
            self.place_anew(number, now);
        }
        let table = self.relays.iter();
        let table = table.map(|(short, relay)| (*short, self.table.number_of(&relay.link)));
        self.output
            .push(Output::All(Command::Relays(table.collect())));
        let addresses = Arc::new(self.relays.first_addresses().clone());
        self.output
            .push(Output::All(Command::RelayAddresses(addresses)));
    }

    /// Takes a control message that came under the session of `index`.
    pub fn message(&mut self, index: u32, datagram: &mut Datagram, now: Instant) {
        let Some(Owner { neighbour, .. }) = self.indices.owner(index) else {
            return;
        };
        match Control::decode(cell_of(datagram)) {
            Ok(Control::Register { request, tokens }) => {
                let Some(known) = self.table.get(neighbour) else {
                    return;
                };
                let Some(ip) = known.ip() else { return };
                let effort = known.effort();
                let done = self.mailboxes.register(neighbour, ip, effort, &tokens, now);
                self.tell_mailboxes(done.added, Some(neighbour));
                self.tell_mailboxes(done.removed, None);
                self.say(
                    neighbour,
                    &Control::Registered {
                        request,
                        refused: done.refused,
                    },
                );
            }
            Ok(Control::Ping(number)) => self.say(neighbour, &Control::Pong(number)),
            Ok(Control::Close) => {
                let relay = self.get(neighbour).and_then(|known| known.relay);
                if relay.is_none() {
                    return self.end(neighbour, now);
                }
                self.close(neighbour, now);
                let tokens = self.mailboxes.remove_all(neighbour);
                self.tell_mailboxes(tokens, None);
            }
            Ok(Control::Registered { .. } | Control::Pong(_)) => {}
            Err(error) => tracing::debug!(%error, "control message of a neighbour"),
        }
    }

    /// Takes what a worker has noticed.
    pub fn signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Heard(index, kind) => {
                let Some(owner) = self.indices.owner(index) else {
                    return;
                };
                if let Some(source) = owner.source
                    && !self.confirm(owner.neighbour, source.ip())
                {
                    self.refused += 1;
                    return self.end(owner.neighbour, now);
                }
                if let Some(source) = owner.source {
                    // Our answer went there, and it was read.
                    self.found(owner.neighbour, source);
                }
                if let Some(known) = self.get(owner.neighbour) {
                    known.peer.heard(index, kind, now);
                }
                self.drive(owner.neighbour, Some((index, owner.source)), now);
            }
            Signal::Moved(index, source) => self.moved(index, source),
            Signal::Strayed(index, worker) => {
                if let Some(owner) = self.indices.owner(index)
                    && let Some(known) = self.get(owner.neighbour)
                {
                    known.worker = worker;
                }
            }
            Signal::Want(relay) => {
                if let Some(neighbour) = self.neighbour_of_relay(&relay, now) {
                    if let Some(known) = self.get(neighbour) {
                        // Found by its ID, and not by its key alone, which is no address.
                        if !known.peer.is_up() {
                            known.relay = Some(relay);
                        }
                        known.peer.want();
                    }
                    self.drive(neighbour, None, now);
                }
            }
        }
    }

    /// Does what time asks for; at least once a second.
    pub fn tick(&mut self, now: Instant) {
        self.responder.tick(now, &mut self.rng);
        self.meter
            .tick(self.waiting.is_short(self.meter.matters()), now);
        let due = self.probes.due(now);
        self.output.extend(due.into_iter().map(Output::Answer));
        for number in self.table.numbers() {
            self.drive(number, None, now);
            self.forget_idle(number, now);
        }
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            let expired = self.mailboxes.expire(now);
            self.tell_mailboxes(expired, None);
        }
    }

    /// Tells all neighbours that this relay goes.
    pub fn close_all(&mut self, now: Instant) {
        for number in self.table.numbers() {
            self.say(number, &Control::Close);
            if let Some(known) = self.get(number) {
                known.peer.close(now);
            }
        }
    }

    /// How many of what there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let up = self.table.iter().filter(|known| known.peer.is_up());
        let (relays, clients): (Vec<_>, Vec<_>) = up.partition(|known| known.relay.is_some());
        Census {
            relays: relays.len(),
            clients: clients.len(),
            mailboxes: self.mailboxes.len(),
            refused: self.refused,
        }
    }

    /// A neighbour sends from another address under the session in use.
    fn moved(&mut self, index: u32, source: SocketAddr) {
        let Some(Owner { neighbour, .. }) = self.indices.owner(index) else {
            return;
        };
        let Some(known) = self.get(neighbour) else {
            return;
        };
        if known.current != Some(index) {
            return;
        }
        known.address = Some(source);
        if let Some(seal) = known.peer.seal_key().cloned() {
            let link = Link { seal, to: source };
            self.output
                .push(Output::All(Command::Link(neighbour, Some(link))));
        }
    }

    /// Does what a neighbour's state asks for. `heard`: the session that was heard just
    /// now, and where from; if that is the one to be used, the neighbour is there.
    pub(super) fn drive(
        &mut self,
        number: u32,
        heard: Option<(u32, Option<SocketAddr>)>,
        now: Instant,
    ) {
        while let Some(action) = self.get(number).and_then(|known| known.peer.poll(now)) {
            match action {
                Action::Initiate => self.initiate(number, now),
                Action::Install(open) => {
                    let index = open.local_index();
                    self.indices.answered(index);
                    let source = self.indices.owner(index).and_then(|owner| owner.source);
                    let heard = heard.and_then(|(_, source)| source);
                    let Some(known) = self.get(number) else {
                        return;
                    };
                    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
                    let command = Command::Session {
                        open,
                        neighbour: number,
                        usage: known.usage.clone(),
                        source: heard.or(source).or(known.address).unwrap_or(unknown),
                    };
                    self.output.push(Output::One(worker_of(index), command));
                }
                Action::Use(seal) => {
                    let Some(known) = self.get(number) else {
                        return;
                    };
                    if let Some((index, source)) = heard {
                        known.current = Some(index);
                        known.address = source.or(known.address);
                    }
                    let link = known.address.map(|to| Link { seal, to });
                    self.output.push(Output::All(Command::Link(number, link)));
                }
                Action::Silence => self.output.push(Output::All(Command::Link(number, None))),
                Action::Remove(index) => {
                    self.indices.give_back(index);
                    let worker = worker_of(index);
                    self.output
                        .push(Output::One(worker, Command::Forget(index)));
                }
                Action::KeepAlive => self.seal(number, Box::new([0; DATAGRAM]), CellKind::Cover),
                Action::Ping => {
                    let number_of_ping = self.rng.next_u64();
                    self.say(number, &Control::Ping(number_of_ping));
                }
                Action::Unreachable => {
                    if let Some(relay) = self.get(number).and_then(|known| known.relay) {
                        tracing::info!(%relay, "no answer to link handshakes");
                        self.unproven.silent(relay);
                    }
                }
            }
        }
    }

    /// A neighbour has read what was sent there: if it is a relay that says so too, that is where it is.
    pub(super) fn found(&mut self, number: u32, at: SocketAddr) {
        if let Some(short) = self.table.get(number).and_then(|known| known.relay)
            && let Some(relay) = self.relays.get(&short)
            && relay.addresses.contains(&at)
        {
            self.unproven.answered(short, at);
        }
    }

    fn neighbour_of_relay(&mut self, short: &ShortId, now: Instant) -> Option<u32> {
        let relay = self.relays.get(short)?;
        let (link, first) = (relay.link, relay.addresses.first());
        let place = match (self.relays.is_listed(&link), first) {
            (true, _) => Place::Relay,
            (false, Some(first)) => Place::Client(first.ip()),
            (false, None) => return None,
        };
        match self.table.number_of(&link) {
            Some(number) => Some(number),
            None => self.add(link, place, None, now),
        }
    }

    /// A new neighbour, if there is this place for it. `address`: where it is, if that is known.
    pub(super) fn add(
        &mut self,
        key: X25519Public,
        place: Place,
        address: Option<SocketAddr>,
        now: Instant,
    ) -> Option<u32> {
        let relay = self.relays.with_key(&key).first().copied();
        let number = self.table.add(key, relay, place, address, now)?;
        self.tell_relay(key, Some(number));
        Some(number)
    }

    /// Seals a control message for a neighbour, if there is a session.
    fn say(&mut self, number: u32, message: &Control) {
        let mut datagram = Box::new([0; DATAGRAM]);
        match message.encode_into(cell_of(&mut datagram)) {
            Ok(()) => self.seal(number, datagram, CellKind::Control),
            Err(error) => tracing::debug!(%error, "control message"),
        }
    }

    fn seal(&mut self, number: u32, mut datagram: Box<Datagram>, kind: CellKind) {
        let Some(known) = self.get(number) else {
            return;
        };
        let (Some(seal), Some(to)) = (known.peer.seal_key(), known.address) else {
            return;
        };
        if seal.seal(&mut datagram, kind).is_ok() {
            self.output.push(Output::Send(datagram, to));
        }
    }

    pub(super) fn tell_relay(&mut self, key: X25519Public, neighbour: Option<u32>) {
        let shorts = self.relays.with_key(&key).iter();
        let commands = shorts.map(|short| Command::Relay(*short, neighbour));
        self.output.extend(commands.map(Output::All));
    }

    pub(super) fn tell_mailboxes(&mut self, tokens: Vec<MailboxToken>, neighbour: Option<u32>) {
        if !tokens.is_empty() {
            let tokens: Arc<[MailboxToken]> = tokens.into();
            self.output
                .push(Output::All(Command::Mailboxes(tokens, neighbour)));
        }
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Neighbour> {
        self.table.get_mut(number)
    }

    fn reaches(&self, address: &SocketAddr) -> bool {
        if address.is_ipv4() {
            self.families.0
        } else {
            self.families.1
        }
    }
}
