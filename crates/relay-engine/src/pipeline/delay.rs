//! Delay, in a relay that delays: a peeled cell waits for a time of its own.

use std::time::Instant;

use mixline_protocol::path::Next;

use super::Pipeline;
use super::behaviour::Behaviour;
use super::boxed::Boxed;
use super::step::{Leave, Step};
use crate::batch::{Slot, State};
use crate::headers::Flow;
use crate::outcome::Outcome;

impl<B: Behaviour> Pipeline<B> {
    /// Lets a peeled cell wait, in a relay that delays.
    pub(super) fn delay(&mut self, slot: &Slot<'_>, next: Next, flow: Flow, now: Instant) -> Step {
        let Some(delay) = &mut self.delay else {
            return Ok(State::Due(next, flow));
        };
        let limit = Leave::With(Outcome::DelayLimit);
        let session = self.sessions.get_mut(slot.session).ok_or(limit)?;
        let permit = self.common.held.take(&session.usage.held).ok_or(limit)?;
        let datagram = self.common.pool.copy(slot.datagram).ok_or(limit)?;
        let cell = Boxed {
            datagram,
            source: slot.source,
            session: slot.session,
            state: slot.state,
            since: slot.since.or(Some(now)),
            permit: Some(permit),
        };
        delay.hold(cell, now, &mut self.rng);
        Err(Leave::ForNow)
    }
}
