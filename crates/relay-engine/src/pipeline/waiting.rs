//! Cells that wait for a link to the next relay, while the control plane makes one. The
//! first cells of a path are not lost because it is the first to go that way.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;

use super::{Behaviour, Boxed, Pipeline};
use crate::batch::State;

/// How long a cell is held: one handshake may be lost, and its repetition still helps.
pub const HOLD_FOR: Duration = Duration::from_secs(6);
/// Cells held for one path, or for one relay.
pub const HELD_PER_QUEUE: usize = 256;
/// Cells held for paths and links, over all workers: 6 MiB.
pub const HELD_CELLS: usize = 4096;

/// How often the control plane is reminded that a link is wanted.
const WANT_EVERY: Duration = Duration::from_secs(1);

/// Cells by the relay that they wait for.
#[derive(Default)]
pub struct Waiting(HashMap<ShortId, Queue>);

#[derive(Default)]
struct Queue {
    /// When each came, and the cell; the oldest first.
    cells: VecDeque<(Instant, Boxed)>,
    /// When the control plane was last told.
    wanted: Option<Instant>,
}

impl Waiting {
    /// Holds a cell for a relay; false if too many are held for it.
    pub fn hold(&mut self, relay: ShortId, cell: Boxed, now: Instant) -> bool {
        let queue = self.0.entry(relay).or_default();
        let fits = queue.cells.len() < HELD_PER_QUEUE;
        if fits {
            queue.cells.push_back((now, cell));
        }
        fits
    }

    /// Whether the control plane is to be told that a link to this relay is wanted.
    pub fn remind(&mut self, relay: &ShortId, now: Instant) -> bool {
        let Some(queue) = self.0.get_mut(relay) else {
            return false;
        };
        let due = queue
            .wanted
            .is_none_or(|at| now.saturating_duration_since(at) >= WANT_EVERY);
        if due {
            queue.wanted = Some(now);
        }
        due
    }

    /// Lets go of cells that have waited for too long; how many.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        self.0.retain(|_, queue| {
            while queue
                .cells
                .front()
                .is_some_and(|(since, _)| *since + HOLD_FOR <= now)
            {
                queue.cells.pop_front();
                lost += 1;
            }
            !queue.cells.is_empty()
        });
        lost
    }

    /// When the next cell has waited for too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = |queue: &Queue| queue.cells.front().map(|(since, _)| *since + HOLD_FOR);
        self.0.values().filter_map(oldest).min()
    }
}

impl<B: Behaviour> Pipeline<B> {
    /// Sets free the cells of all relays that can be sent to now.
    pub(super) fn release_waiting(&mut self) {
        let Self {
            waiting,
            next_hops,
            again,
            ..
        } = self;
        waiting.0.retain(|relay, queue| {
            let up = next_hops.is_up(relay);
            if up {
                again.extend(queue.cells.drain(..).map(|(_, cell)| cell));
            }
            !up
        });
    }
}

impl Boxed {
    /// The cell as one whose delay is over.
    pub(super) fn due(mut self) -> Self {
        if let State::Peeled(next, flow) = self.state {
            self.state = State::Due(next, flow);
        }
        self
    }
}
