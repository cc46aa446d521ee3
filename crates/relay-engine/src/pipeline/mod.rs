//! What a relay does with a batch of datagrams, on plain buffers.
//!
//! ```text
//! receive → open link → peel path → next hop → replay tag → seal link → shuffle → send
//! ```
//!
//! Receiving and sending are the port's; all between is here, a stage to a file. A
//! [`Pipeline`] belongs to one worker: nothing in it is locked, and nothing is allocated
//! for a datagram of a known path. What takes longer than a datagram may (a new path, a
//! missing link, a handshake) leaves the batch for a queue, and comes back in a buffer of its
//! own to go through the remaining stages.
//!
//! State stands below, steps above. `common`, `opening`, `waiting` and `delayed` keep things and
//! do not know of the pipeline; `open_link`, `peel_path`, `delay` and `seal_link` are an
//! `impl Pipeline` each, and nothing is imported from them.

mod behaviour;
mod boxed;
mod common;
mod delay;
mod delayed;
mod open_link;
mod opening;
mod peel_path;
mod seal_link;
mod shuffle;
mod step;
mod waiting;

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use chacha20::ChaCha8Rng;
use mixline_protocol::link::{counter, receiver_index};
use mixline_protocol::path::{Located, PathCache};
use mixline_protocol::prefetch::prefetch;
use mixline_protocol::size::DATAGRAM;
use rand_core::{CryptoRng, SeedableRng};

pub use behaviour::{Action, Behaviour, Honest};
pub use common::{Assembly, Common};

use crate::batch::{BATCH, Batch, Onward, Slot, State};
use crate::headers::header_of;
use crate::link_sessions::{LinkSession, LinkSessions};
use crate::messages::{Command, Handover};
use crate::next_hops::NextHops;
use crate::outcome::{Counters, Outcome};
use crate::slow_path::{LiveKeys, Opened};
use boxed::Boxed;
use delayed::Delayed;
use opening::Opening;
use step::{Leave, Step};
use waiting::Waiting;

/// Slots that go through all stages together: few enough that their bytes stay in the
/// nearest cache from stage to stage, many enough that waits for memory overlap.
const GROUP: usize = 8;

/// What a pipeline is made of, beside what it shares.
pub struct Setup<B> {
    /// The worker's number.
    pub worker: usize,
    /// The most paths it knows at a time.
    pub paths: usize,
    /// The mean of the exponential delay of each cell; none by default.
    pub mean_delay: Option<Duration>,
    /// What is done with cells; [`Honest`] in a relay.
    pub behaviour: B,
}

/// One worker's pipeline.
pub struct Pipeline<B = Honest> {
    worker: usize,
    common: Arc<Common>,
    behaviour: B,
    sessions: LinkSessions,
    next_hops: NextHops,
    paths: PathCache,
    /// Which onion keys there are.
    keys: LiveKeys,
    /// Where relays of the snapshot register from.
    relay_addresses: Arc<HashSet<IpAddr>>,
    opens_paths: bool,
    /// Datagrams that may be sent before it is asked again.
    lease: u32,
    opening: Opening,
    waiting: Waiting,
    delay: Option<Delayed>,
    again: VecDeque<Boxed>,
    rng: ChaCha8Rng,
    counters: Counters,
}

impl<B: Behaviour> Pipeline<B> {
    /// A pipeline without sessions, links and paths. `rng` gives the secrets of its tables
    /// and the seed of what it shuffles with.
    pub fn new(common: Arc<Common>, setup: Setup<B>, rng: &mut impl CryptoRng) -> Self {
        let (mut seed, mut hash_key) = ([0; 32], [0; 16]);
        rng.fill_bytes(&mut seed);
        rng.fill_bytes(&mut hash_key);
        Self {
            worker: setup.worker,
            common,
            behaviour: setup.behaviour,
            sessions: LinkSessions::default(),
            next_hops: NextHops::default(),
            paths: PathCache::new(setup.paths, hash_key),
            keys: LiveKeys::default(),
            relay_addresses: Arc::default(),
            opens_paths: true,
            lease: 0,
            opening: Opening::default(),
            waiting: Waiting::default(),
            delay: setup.mean_delay.map(Delayed::new),
            again: VecDeque::new(),
            rng: ChaCha8Rng::from_seed(seed),
            counters: Counters::default(),
        }
    }

    /// Takes each slot of a batch as far as it goes, and decides the order of sending.
    pub fn process(&mut self, batch: &mut Batch<'_>, now: Instant) {
        let mut slots = &mut batch.slots[..];
        while !slots.is_empty() {
            let (group, rest) = slots.split_at_mut(GROUP.min(slots.len()));
            // Each loop prefetches the memory that the next one reads: what a datagram needs is
            // somewhere else for each, and in a relay of many paths in no cache.
            self.prefetch_sessions(group);
            for (at, slot) in group.iter_mut().enumerate() {
                // One of the next group, which another core may have written.
                if let Some(later) = rest.get(at) {
                    prefetch(later.datagram, DATAGRAM);
                }
                if slot.has_arrived() {
                    let step = self.open_link(slot, now);
                    self.record(slot, step);
                }
            }
            let located = self.prefetch_paths(group);
            let peeled: ArrayVec<Option<Onward>, GROUP> = cells(group)
                .zip(located)
                .map(|(slot, located)| self.peel(slot, located, now))
                .collect();
            for (slot, peeled) in cells(group).zip(peeled) {
                let step = match peeled {
                    Some(peeled) => self.go_on(slot, peeled, now),
                    None => Err(self.hold_for_path(slot, now)),
                };
                self.record(slot, step);
            }
            for slot in &mut *group {
                if let State::Peeled(onward) = slot.state {
                    let step = self.delay(slot, onward, now);
                    self.record(slot, step);
                }
            }
            for slot in &mut *group {
                if let State::Due(onward) = slot.state {
                    let step = self.seal_link(slot, onward, now);
                    self.record(slot, step);
                }
            }
            slots = rest;
        }
        shuffle::shuffle(batch, &mut self.rng);
        self.opening.submit(self.worker, &self.common.slow);
    }

    /// Processes datagrams that have come back, at most a batch of them; `send` gets the
    /// batch. False if there were none.
    pub fn process_again(&mut self, now: Instant, send: impl FnOnce(&Batch<'_>)) -> bool {
        let count = self.again.len().min(BATCH);
        if count == 0 {
            return false;
        }
        let mut boxed: ArrayVec<Boxed, BATCH> = self.again.drain(..count).collect();
        let mut batch = Batch::new();
        for boxed in &mut boxed {
            let slot = Slot {
                datagram: &mut boxed.datagram,
                source: boxed.source,
                session: boxed.session,
                state: boxed.state,
                since: boxed.since,
            };
            let _ = batch.slots.try_push(slot);
        }
        self.process(&mut batch, now);
        send(&batch);
        true
    }

    /// Takes a datagram of one of this worker's sessions that came to another worker.
    pub fn take_over(&mut self, handover: Handover) {
        drop(handover.permit);
        self.again.push_back(Boxed {
            datagram: handover.datagram,
            source: handover.source,
            session: 0,
            state: State::Strayed(handover.worker),
            since: Some(handover.since),
            permit: None,
        });
    }

    /// Takes the answer of the slow path.
    pub fn take_opened(&mut self, opened: Opened, now: Instant) {
        self.path_opened(opened, now);
        self.opening.submit(self.worker, &self.common.slow);
    }

    /// Applies a command of the control plane. `Stop` is the worker's own affair.
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::Session {
                open,
                neighbour,
                usage,
                source,
            } => {
                self.sessions
                    .insert(LinkSession::new(open, neighbour, usage, source));
            }
            Command::Forget(index) => self.sessions.remove(index),
            Command::Link(neighbour, link) => {
                let up = link.is_some();
                self.next_hops.set_link(neighbour, link);
                if up {
                    self.release_waiting();
                }
            }
            Command::Relays(relays) => self.next_hops.set_relays(&relays),
            Command::Relay(relay, neighbour) => {
                self.next_hops.set_relay(relay, neighbour);
                self.release_waiting();
            }
            Command::Mailboxes(tokens, neighbour) => {
                for token in tokens.iter() {
                    self.next_hops.set_mailbox(*token, neighbour);
                }
            }
            Command::RelayAddresses(addresses) => self.relay_addresses = addresses,
            Command::OnionKeys(keys) => {
                self.paths.retain(|number| keys.is_live(number));
                self.keys = keys;
            }
            Command::NewPaths(opens) => self.opens_paths = opens,
            Command::MeanDelay(mean) => {
                if let Some(delay) = &mut self.delay {
                    delay.set_mean(mean);
                }
            }
            Command::Stop => {}
        }
    }

    /// Lets go of what has been held for too long, and sets free what is due. To be
    /// called when [`wake_at`](Self::wake_at) says so, and now and then.
    pub fn tick(&mut self, now: Instant) {
        let lost = self.opening.expire(now) + self.waiting.expire(now);
        self.counters.add(Outcome::HeldTooLong, lost);
        if let Some(delay) = &mut self.delay {
            self.again.extend(delay.due(now));
        }
    }

    /// When [`tick`](Self::tick) has something to do next, if anything is held.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let delayed = self.delay.as_ref().and_then(Delayed::next);
        let held = self
            .opening
            .next_expiry()
            .into_iter()
            .chain(self.waiting.next_expiry())
            .min();
        delayed.into_iter().chain(held).min()
    }

    /// Ends all delays: the relay stops.
    pub fn flush(&mut self) {
        if let Some(delay) = &mut self.delay {
            self.again.extend(delay.all());
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts datagrams that the port dropped.
    pub fn count(&mut self, outcome: Outcome, n: u64) {
        self.counters.add(outcome, n);
    }

    /// How many sessions and how many paths it knows.
    #[must_use]
    pub fn known(&self) -> (usize, usize) {
        (self.sessions.len(), self.paths.len())
    }

    /// Prefetches the sessions that a group has arrived under.
    fn prefetch_sessions(&self, group: &[Slot<'_>]) {
        let arrived = || group.iter().filter(|slot| slot.has_arrived());
        for slot in arrived() {
            self.sessions.locate(receiver_index(slot.datagram));
        }
        for slot in arrived() {
            let (index, counter) = (receiver_index(slot.datagram), counter(slot.datagram));
            self.sessions.prefetch(index, counter);
        }
        for slot in arrived() {
            self.sessions.prefetch_key(receiver_index(slot.datagram));
        }
    }

    /// Prefetches the paths of a group's cells.
    fn prefetch_paths(&self, group: &mut [Slot<'_>]) -> ArrayVec<Located, GROUP> {
        let located: ArrayVec<Located, GROUP> = cells(group)
            .map(|slot| self.paths.locate(header_of(slot.datagram)))
            .collect();
        for located in &located {
            self.paths.prefetch(*located);
        }
        located
    }

    fn record(&mut self, slot: &mut Slot<'_>, step: Step) {
        slot.state = match step {
            Ok(state) => state,
            Err(leave) => {
                if let Leave::With(outcome) = leave {
                    self.counters.add(outcome, 1);
                }
                State::Ended
            }
        };
    }
}

/// The slots of a group that hold a cell whose path's layer is to be taken off.
fn cells<'g, 'd>(group: &'g mut [Slot<'d>]) -> impl Iterator<Item = &'g mut Slot<'d>> {
    group
        .iter_mut()
        .filter(|slot| matches!(slot.state, State::Cell))
}
