//! Cells of new paths, held while the slow path opens their headers.
//!
//! Three bounds keep a flood of new paths to itself. A neighbour holds only its part
//! of the headers that wait and of the cells that are held. Headers go to the slow path few at a
//! time, one of each neighbour in a round. And known paths never come here at all.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crossbeam::channel::Sender;
use mixline_protocol::size::Header;

use super::boxed::Boxed;
use super::common::Common;
use crate::batch::{Slot, State};
use crate::headers::header_of;
use crate::limits::{HELD_PER_QUEUE, HOLD_FOR, SLOW_WINDOW};
use crate::outcome::Outcome;
use crate::quota::{NeighbourUsage, Permit};
use crate::slow_path::Job;

/// A new path and its cells.
pub(super) struct NewPath {
    /// The cells, in order.
    pub(super) held: VecDeque<Boxed>,
    since: Instant,
    /// That neighbour's permit for the path.
    _permit: Permit,
}

/// The new paths of one worker.
#[derive(Default)]
pub(super) struct Opening {
    /// By header. All are in a queue, or on the slow path.
    paths: HashMap<Box<Header>, NewPath>,
    /// Headers that have not been sent to the slow path, by neighbour.
    queues: HashMap<u32, VecDeque<Box<Header>>>,
    /// Neighbours that have such headers, in the order in which they are served.
    rotation: VecDeque<u32>,
    /// Headers that the slow path has.
    out: usize,
}

impl Opening {
    /// Holds a cell whose path is not known.
    pub(super) fn hold(
        &mut self,
        slot: &Slot<'_>,
        neighbour: u32,
        usage: &NeighbourUsage,
        common: &Common,
        now: Instant,
    ) -> Result<(), Outcome> {
        let header = header_of(slot.datagram);
        let waiting = self.paths.get(header).map_or(0, |path| path.held.len());
        if waiting >= HELD_PER_QUEUE {
            return Err(Outcome::NewPathLimit);
        }
        let limit = Outcome::NewPathLimit;
        let permit = common.held.take(&usage.held).ok_or(limit)?;
        let datagram = common.pool.copy(slot.datagram).ok_or(limit)?;
        let boxed = Boxed {
            datagram,
            source: slot.source,
            session: slot.session,
            state: State::Cell,
            since: slot.since.or(Some(now)),
            permit: Some(permit),
        };
        if let Some(path) = self.paths.get_mut(header) {
            path.held.push_back(boxed);
            return Ok(());
        }
        let path = NewPath {
            held: VecDeque::from([boxed]),
            since: now,
            _permit: common.opening.take(&usage.opening).ok_or(limit)?,
        };
        self.paths.insert(Box::new(*header), path);
        let queue = self.queues.entry(neighbour).or_default();
        if queue.is_empty() {
            self.rotation.push_back(neighbour);
        }
        queue.push_back(Box::new(*header));
        Ok(())
    }

    /// Sends headers to the slow path, one neighbour after the other, while it may have more.
    pub(super) fn submit(&mut self, worker: usize, slow: &Sender<Job>) {
        while self.out < SLOW_WINDOW {
            let Some(neighbour) = self.rotation.pop_front() else {
                return;
            };
            let Some(queue) = self.queues.get_mut(&neighbour) else {
                continue;
            };
            if let Some(header) = queue.pop_front()
                // It may have waited for too long, and be forgotten.
                && self.paths.contains_key(&header)
                && slow.try_send(Job { worker, header }).is_ok()
            {
                self.out += 1;
            }
            if queue.is_empty() {
                self.queues.remove(&neighbour);
            } else {
                self.rotation.push_back(neighbour);
            }
        }
    }

    /// Takes the path that the slow path has answered for, if it still waits.
    pub(super) fn take(&mut self, header: &Header) -> Option<NewPath> {
        self.out = self.out.saturating_sub(1);
        self.paths.remove(header)
    }

    /// Forgets paths that have waited for too long; how many cells that loses.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        self.paths.retain(|_, path| {
            let keep = now.saturating_duration_since(path.since) < HOLD_FOR;
            if !keep {
                lost += path.held.len() as u64;
            }
            keep
        });
        lost
    }

    /// When the next path has waited for too long.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.paths.values().map(|path| path.since + HOLD_FOR).min()
    }
}
