//! Adds the next link's layer: who is next, whether the message is new, and the seal for
//! them.

use std::time::Instant;

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::path::Next;

use super::Pipeline;
use super::behaviour::Behaviour;
use super::boxed::Boxed;
use super::step::{Leave, Step};
use crate::batch::{Onward, Slot, State};
use crate::headers::cell_of;
use crate::messages::Signal;
use crate::next_hops::Route;
use crate::outcome::Outcome;

impl<B: Behaviour> Pipeline<B> {
    /// From a peeled cell to a datagram for the next hop's address.
    pub(super) fn seal_link(&mut self, slot: &mut Slot<'_>, onward: Onward, now: Instant) -> Step {
        let Onward { next, flow, replay } = onward;
        let link = match self.next_hops.route(&next) {
            Route::Link(link) => link,
            Route::RelayDown(relay) => return Err(self.hold_for_link(slot, relay, now)),
            Route::ClientDown => return Err(Leave::With(Outcome::LinkDown)),
            Route::UnknownRelay => return Err(Leave::With(Outcome::UnknownRelay)),
            Route::UnknownMailbox => return Err(Leave::With(Outcome::UnknownMailbox)),
        };
        if let Some(tag) = replay {
            self.common
                .admit(&mut self.lease, tag, now)
                .map_err(Leave::With)?;
        }
        if let Next::Deliver(token) = next {
            // In front of the cell, where the path header was and zeros are now: it tells
            // the client which of its tails the cell came through.
            cell_of(slot.datagram)[..token.0.len()].copy_from_slice(&token.0);
        }
        if link.seal.seal(slot.datagram, CellKind::Cell).is_err() {
            // Its counter is used up; the control plane replaces it long before.
            return Err(Leave::With(Outcome::LinkDown));
        }
        let outcome = match next {
            Next::Deliver(_) => Outcome::Delivered,
            Next::Forward(_) | Next::Junction(_) => Outcome::Forwarded,
        };
        self.counters.add(outcome, 1);
        Ok(State::Send(link.to, flow))
    }

    /// Sets free the cells of all relays that can be sent to now.
    pub(super) fn release_waiting(&mut self) {
        let Self {
            waiting,
            next_hops,
            again,
            ..
        } = self;
        waiting.release(|relay| next_hops.is_up(relay), |cell| again.push_back(cell));
    }

    fn hold_for_link(&mut self, slot: &Slot<'_>, relay: ShortId, now: Instant) -> Leave {
        let limit = Leave::With(Outcome::LinkDown);
        let Some(session) = self.sessions.get_mut(slot.session) else {
            return limit;
        };
        let Some(permit) = self.common.held.take(&session.usage.held) else {
            return limit;
        };
        let Some(datagram) = self.common.pool.copy(slot.datagram) else {
            return limit;
        };
        let cell = Boxed {
            datagram,
            source: slot.source,
            session: slot.session,
            state: slot.state,
            since: slot.since.or(Some(now)),
            permit: Some(permit),
        };
        if !self.waiting.hold(relay, cell, now) {
            return limit;
        }
        if self.waiting.remind(&relay, now) {
            self.common.control.signal(Signal::Want(relay));
        }
        Leave::ForNow
    }
}
