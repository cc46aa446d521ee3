//! Takes off the link's layer: which session it is, whether it is fresh and authentic, and what
//! is inside.

use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use mixline_protocol::link::{CellKind, DatagramType, counter, datagram_type, receiver_index};

use super::Pipeline;
use super::behaviour::Behaviour;
use super::step::{Leave, Step};
use crate::batch::{Slot, State};
use crate::link_sessions::worker_of;
use crate::messages::{ControlMessage, Handover, Handshake, Signal};
use crate::outcome::Outcome;
use crate::quota::Permit;
use crate::room::Place;

/// How often the control plane is told that a neighbour is heard.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl<B: Behaviour> Pipeline<B> {
    /// From a datagram as it arrived to a cell of a path; everything else leaves here.
    pub(super) fn open_link(&mut self, slot: &mut Slot<'_>, now: Instant) -> Step {
        match datagram_type(&slot.datagram[..]) {
            Ok(DatagramType::Data) => {}
            Ok(DatagramType::Probe) => {
                let queue = &self.common.control.probes;
                return Err(self.hand_to_control(slot, queue, None, Outcome::Probe));
            }
            Ok(DatagramType::Response | DatagramType::Cookie) => {
                let queue = &self.common.control.answers;
                return Err(self.hand_to_control(slot, queue, None, Outcome::Handshake));
            }
            Ok(DatagramType::Initiation) => return Err(self.hand_initiation(slot)),
            Err(_) => return Err(Leave::With(Outcome::Malformed)),
        }
        let index = receiver_index(slot.datagram);
        if worker_of(index) != self.worker {
            return Err(self.hand_over(slot, index, now));
        }
        let Some(session) = self.sessions.get_mut(index) else {
            return Err(Leave::With(Outcome::UnknownIndex));
        };
        // A counter that was seen costs no decryption; it is marked as seen only after
        // the datagram has authenticated, so that nobody else can use up counters.
        let counter = counter(slot.datagram);
        if !session.window.check(counter) {
            return Err(Leave::With(Outcome::LinkReplay));
        }
        let Ok(kind) = session.open.open(slot.datagram) else {
            return Err(Leave::With(Outcome::LinkAuthentication));
        };
        if session.window.accept(counter).is_err() {
            return Err(Leave::With(Outcome::LinkReplay));
        }
        slot.session = index;
        // The first is told at once, since the control plane waits for it to use the
        // session; so is the first that is not cover.
        let tell = session.told.is_none_or(|(at, told)| {
            (told == CellKind::Cover && kind != CellKind::Cover)
                || now.saturating_duration_since(at) >= TELL_EVERY
        });
        if tell {
            // The control plane gives the next session of this neighbour to the worker that its datagrams
            // come to. Before this one authenticated, its index was anybody's.
            if let State::Strayed(worker) = slot.state {
                self.common.control.signal(Signal::Strayed(index, worker));
            }
            if self.common.control.signal(Signal::Heard(index, kind)) {
                session.told = Some((now, kind));
            }
        }
        // A neighbour is where its newest datagram comes from: behind a NAT, that changes.
        if session.newest.is_none_or(|newest| counter > newest) {
            session.newest = Some(counter);
            if session.source != slot.source
                && self
                    .common
                    .control
                    .signal(Signal::Moved(index, slot.source))
            {
                session.source = slot.source;
            }
        }
        match kind {
            CellKind::Cell => Ok(State::Cell),
            CellKind::Cover => Err(Leave::With(Outcome::Cover)),
            CellKind::Control => {
                let usage = &session.usage.control;
                let outcome = match self.common.control_messages.take(usage) {
                    Some(permit) => self.hand_message(slot, permit),
                    None => Outcome::ControlLimit,
                };
                Err(Leave::With(outcome))
            }
        }
    }

    fn hand_message(&self, slot: &Slot<'_>, permit: Permit) -> Outcome {
        let Some(datagram) = self.common.pool.copy(slot.datagram) else {
            return Outcome::ControlLimit;
        };
        let message = ControlMessage {
            datagram,
            index: slot.session,
            permit,
        };
        if self.common.control.messages.push(message).is_err() {
            return Outcome::ControlLimit;
        }
        self.common.control.waker.wake();
        Outcome::Control
    }

    /// An initiation goes to the control plane if its network has room there.
    fn hand_initiation(&self, slot: &Slot<'_>) -> Leave {
        let control = &self.common.control;
        let from = slot.source.ip().to_canonical();
        let room = if self.relay_addresses.contains(&from) {
            &control.room_of_relays
        } else {
            &control.room
        };
        let Some(place) = room.take(from) else {
            return Leave::With(Outcome::ControlLimit);
        };
        self.hand_to_control(slot, &control.handshakes, Some(place), Outcome::Handshake)
    }

    fn hand_to_control(
        &self,
        slot: &Slot<'_>,
        queue: &ArrayQueue<Handshake>,
        place: Option<Place>,
        done: Outcome,
    ) -> Leave {
        let Some(datagram) = self.common.pool.copy(slot.datagram) else {
            return Leave::With(Outcome::ControlLimit);
        };
        let handshake = Handshake {
            datagram,
            source: slot.source,
            place,
        };
        if queue.push(handshake).is_err() {
            return Leave::With(Outcome::ControlLimit);
        }
        self.common.control.waker.wake();
        Leave::With(done)
    }

    /// To the worker that owns the session. It counts what becomes of the datagram.
    fn hand_over(&self, slot: &Slot<'_>, index: u32, now: Instant) -> Leave {
        let Some(owner) = self.common.workers.get(worker_of(index)) else {
            return Leave::With(Outcome::UnknownIndex);
        };
        // Whoever sees an index can send more of it than there is room for, and leaves some to others.
        let Some(permit) = owner.strays.take(index) else {
            return Leave::With(Outcome::HandoverLimit);
        };
        let Some(datagram) = self.common.pool.copy(slot.datagram) else {
            return Leave::With(Outcome::HandoverLimit);
        };
        let handover = Handover {
            datagram,
            source: slot.source,
            since: slot.since.unwrap_or(now),
            worker: self.worker,
            permit: Some(permit),
        };
        if owner.handovers.push(handover).is_err() {
            return Leave::With(Outcome::HandoverLimit);
        }
        owner.waker.wake();
        Leave::ForNow
    }
}
