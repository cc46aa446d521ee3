//! Takes off the path's layer: which path it is, and where it goes.

use std::time::Instant;

use mixline_protocol::path::{KnownPath, Located, Next, ReplayTag};
use mixline_protocol::replay::ReplayFilter;

use super::Pipeline;
use super::behaviour::{Action, Behaviour};
use super::boxed::Boxed;
use super::step::{Leave, Step};
use crate::batch::{Onward, Slot, State};
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
    ) -> Option<Onward> {
        let header = header_of(slot.datagram);
        let flow = flow_of(header);
        let known = self.paths.find(located, header, now)?;
        let (path, tag) = self.paths.peel(known, cell_of(slot.datagram));
        Some(onward(path, flow, tag, &self.common.replay))
    }

    /// From a peeled cell to what the next hop gets.
    pub(super) fn go_on(&mut self, slot: &mut Slot<'_>, mut onward: Onward, now: Instant) -> Step {
        let mut visits = 1;
        loop {
            if !self.is_own(&onward.next) {
                return self.decide(slot, onward);
            }
            if visits == MAX_VISITS {
                return Err(Leave::With(Outcome::Loop));
            }
            visits += 1;
            let located = self.paths.locate(header_of(slot.datagram));
            // The last visit's tag is the one that counts: one cell gives one other.
            onward = match self.peel(slot, located, now) {
                Some(onward) => onward,
                None => return Err(self.hold_for_path(slot, now)),
            };
        }
    }

    fn is_own(&self, next: &Next) -> bool {
        matches!(next, Next::Forward(relay) | Next::Junction(relay) if *relay == self.common.own)
    }

    /// Lets the relay's behaviour decide on a cell that is peeled.
    fn decide(&mut self, slot: &mut Slot<'_>, onward: Onward) -> Step {
        match self.behaviour.decide(cell_of(slot.datagram), &onward.next) {
            Action::Forward => {}
            Action::Drop => return Err(Leave::With(Outcome::Misbehaved)),
            Action::ForwardTwice => {
                if let Some(datagram) = self.common.pool.copy(slot.datagram) {
                    self.again.push_back(Boxed {
                        datagram,
                        source: slot.source,
                        session: slot.session,
                        state: State::Due(Onward {
                            replay: None,
                            ..onward
                        }),
                        since: slot.since,
                        permit: None,
                    });
                }
            }
        }
        Ok(State::Peeled(onward))
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
        // The key may have been erased while the header was being opened.
        let Some((path, key)) = opened.path.filter(|(_, key)| self.keys.is_live(*key)) else {
            self.counters
                .add(Outcome::BadHeader, waited.held.len() as u64);
            return;
        };
        let flow = flow_of(&opened.header);
        for mut held in waited.held {
            let cell = cell_of(&mut held.datagram);
            let tag = path.peel(cell);
            let onward = onward(&path, flow, tag, &self.common.replay);
            let source = held.source;
            let mut slot = Slot {
                datagram: &mut held.datagram,
                source,
                session: held.session,
                state: State::Cell,
                since: held.since,
            };
            let step = if self.is_own(&onward.next) {
                Ok(State::Cell)
            } else {
                self.decide(&mut slot, onward)
            };
            self.record(&mut slot, step);
            let state = slot.state;
            if !matches!(state, State::Ended) {
                self.again.push_back(Boxed { state, ..held });
            }
        }
        // When those of a full cache that were looked at are in use, none makes room: this one
        // is not remembered, and its cells go on by the slow path, in rounds with others.
        let _ = self.paths.insert(&opened.header, path, key, now);
    }
}

/// Where a cell goes that its path has peeled; locates its tag in the replay filter.
fn onward(path: &KnownPath, flow: Flow, tag: ReplayTag, replay: &ReplayFilter) -> Onward {
    Onward {
        next: path.next(),
        flow,
        replay: Some(replay.locate(&tag.0)),
    }
}
