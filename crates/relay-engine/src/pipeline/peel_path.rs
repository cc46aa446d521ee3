//! Takes off the path's layer: which path it is, whether the message is new, and where it goes.

use std::time::Instant;

use mixline_protocol::path::{KnownPath, Located, Next};
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::size::Cell;

use super::Pipeline;
use super::behaviour::{Action, Behaviour};
use super::boxed::Boxed;
use super::step::{Leave, Peeled, Step};
use crate::batch::{Slot, State};
use crate::headers::{Flow, cell_of, flow_of, header_of};
use crate::outcome::Outcome;
use crate::slow_path::Opened;

/// How often in a row a path may lead through this relay: a head and a tail that were
/// chosen independently can meet at one relay, or, if its parts were made to, longer.
const MAX_VISITS: usize = 2;

impl<B: Behaviour> Pipeline<B> {
    /// Takes off the layer of the path that was located, if it is known, and locates the
    /// cell's tag in the replay filter.
    pub(super) fn peel(
        &mut self,
        slot: &mut Slot<'_>,
        located: Located,
        now: Instant,
    ) -> Option<Peeled> {
        let header = header_of(slot.datagram);
        let flow = flow_of(header);
        let known = self.paths.find(located, header, now)?;
        let path = self.paths.get(known);
        let tag = path.peel(cell_of(slot.datagram));
        Some(Peeled {
            replay: self.common.replay.locate(&tag.0),
            next: path.next(),
            flow,
        })
    }

    /// From a peeled cell, if its message is new, to what the next hop gets.
    pub(super) fn go_on(&mut self, slot: &mut Slot<'_>, mut peeled: Peeled, now: Instant) -> Step {
        let mut visits = 1;
        loop {
            if !self.common.replay.check_and_set_at(peeled.replay) {
                return Err(Leave::With(Outcome::Replay));
            }
            if !self.is_own(&peeled.next) {
                return self.decide(slot, peeled.next, peeled.flow);
            }
            if visits == MAX_VISITS {
                return Err(Leave::With(Outcome::Loop));
            }
            visits += 1;
            let located = self.paths.locate(header_of(slot.datagram));
            peeled = match self.peel(slot, located, now) {
                Some(peeled) => peeled,
                None => return Err(self.hold_for_path(slot, now)),
            };
        }
    }

    fn is_own(&self, next: &Next) -> bool {
        matches!(next, Next::Forward(relay) | Next::Junction(relay) if *relay == self.common.own)
    }

    /// Lets the relay's behaviour decide on a cell that is peeled.
    fn decide(&mut self, slot: &mut Slot<'_>, next: Next, flow: Flow) -> Step {
        match self.behaviour.decide(cell_of(slot.datagram), &next) {
            Action::Forward => {}
            Action::Drop => return Err(Leave::With(Outcome::Misbehaved)),
            Action::ForwardTwice => {
                if let Some(datagram) = self.common.pool.copy(slot.datagram) {
                    self.again.push_back(Boxed {
                        datagram,
                        source: slot.source,
                        session: slot.session,
                        state: State::Due(next, flow),
                        since: slot.since,
                        permit: None,
                    });
                }
            }
        }
        Ok(State::Peeled(next, flow))
    }

    /// Holds a cell of a new path until the slow path has opened its header.
    pub(super) fn hold_for_path(&mut self, slot: &Slot<'_>, now: Instant) -> Leave {
        if !self.opens_paths {
            return Leave::With(Outcome::PathRefused);
        }
        let Some(session) = self.sessions.get_mut(slot.session) else {
            return Leave::With(Outcome::UnknownIndex);
        };
        let (neighbour, usage) = (session.neighbour, &session.usage);
        match self.opening.hold(slot, neighbour, usage, &self.common, now) {
            Ok(()) => Leave::ForNow,
            Err(outcome) => Leave::With(outcome),
        }
    }

    /// The slow path has answered: the cells that waited for it go on.
    pub(super) fn path_opened(&mut self, opened: Opened, now: Instant) {
        let Some(waited) = self.opening.take(&opened.header) else {
            return;
        };
        // An epoch may have ended while the header was being opened.
        let Some((path, epoch)) = opened.path.filter(|(_, epoch)| *epoch >= self.oldest_epoch)
        else {
            self.counters
                .add(Outcome::BadHeader, waited.held.len() as u64);
            return;
        };
        let flow = flow_of(&opened.header);
        for mut held in waited.held {
            let step = peel(&path, &self.common.replay, cell_of(&mut held.datagram));
            let source = held.source;
            let mut slot = Slot {
                datagram: &mut held.datagram,
                source,
                session: held.session,
                state: State::Cell,
                since: held.since,
            };
            let step = match step {
                Ok(next) if self.is_own(&next) => Ok(State::Cell),
                Ok(next) => self.decide(&mut slot, next, flow),
                Err(leave) => Err(leave),
            };
            self.record(&mut slot, step);
            let state = slot.state;
            if !matches!(state, State::Ended) {
                self.again.push_back(Boxed { state, ..held });
            }
        }
        // When those of a full cache that were looked at are in use, none makes room: this one
        // is not remembered, and its cells go on by the slow path, in rounds with others.
        let _ = self.paths.insert(&opened.header, path, epoch, now);
    }
}

/// Takes a path's layer off a cell, if its message has not been relayed before.
fn peel(path: &KnownPath, replay: &ReplayFilter, cell: &mut Cell) -> Result<Next, Leave> {
    let tag = path.peel(cell);
    if replay.check_and_set(&tag.0) {
        Ok(path.next())
    } else {
        Err(Leave::With(Outcome::Replay))
    }
}
