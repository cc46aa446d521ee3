//! Delay, in a relay that delays: a peeled cell waits for a time of its own.
//!
//! Whether its message is new is asked before: of copies that each draw a time, the first one due would be
//! sent, and whoever sends enough copies would have no delay left.

use std::time::Instant;

use super::Pipeline;
use super::behaviour::Behaviour;
use super::boxed::Boxed;
use super::step::{Leave, Step};
use crate::batch::{Onward, Slot, State};
use crate::next_hops::Route;
use crate::outcome::Outcome;

impl<B: Behaviour> Pipeline<B> {
    /// Lets a peeled cell wait, in a relay that delays, if it leads somewhere and is new.
    pub(super) fn delay(&mut self, slot: &Slot<'_>, mut onward: Onward, now: Instant) -> Step {
        if self.delay.is_none() {
            return Ok(State::Due(onward));
        }
        match self.next_hops.route(&onward.next) {
            Route::Link(_) | Route::RelayDown(_) => {}
            Route::ClientDown => return Err(Leave::With(Outcome::LinkDown)),
            Route::UnknownRelay => return Err(Leave::With(Outcome::UnknownRelay)),
            Route::UnknownMailbox => return Err(Leave::With(Outcome::UnknownMailbox)),
        }
        let limit = Leave::With(Outcome::DelayLimit);
        let session = self.sessions.get_mut(slot.session).ok_or(limit)?;
        let permit = self.common.held.take(&session.usage.held).ok_or(limit)?;
        let datagram = self.common.pool.copy(slot.datagram).ok_or(limit)?;
        if let Some(tag) = onward.replay.take() {
            self.common
                .admit(&mut self.lease, tag, now)
                .map_err(Leave::With)?;
        }
        let cell = Boxed {
            datagram,
            source: slot.source,
            session: slot.session,
            state: State::Peeled(onward),
            since: slot.since.or(Some(now)),
            permit: Some(permit),
        };
        if let Some(delay) = &mut self.delay {
            delay.hold(cell, now, &mut self.rng);
        }
        Err(Leave::ForNow)
    }
}
