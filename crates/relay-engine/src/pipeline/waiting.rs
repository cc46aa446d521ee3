//! Cells that wait for a link to the next relay, while the control plane makes one. The
//! first cells of a path are not lost because it is the first to go that way.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;

use super::boxed::Boxed;
use crate::limits::{HELD_PER_QUEUE, HOLD_FOR};

/// How often the control plane is reminded that a link is wanted.
const WANT_EVERY: Duration = Duration::from_secs(1);

/// Cells by the relay that they wait for.
#[derive(Default)]
pub(super) struct Waiting(HashMap<ShortId, Queue>);

#[derive(Default)]
struct Queue {
    /// When each came, and the cell; the oldest first.
    cells: VecDeque<(Instant, Boxed)>,
    /// When the control plane was last told.
    wanted: Option<Instant>,
}

impl Waiting {
    /// Holds a cell for a relay; false if too many are held for it.
    pub(super) fn hold(&mut self, relay: ShortId, cell: Boxed, now: Instant) -> bool {
        let queue = self.0.entry(relay).or_default();
        let fits = queue.cells.len() < HELD_PER_QUEUE;
        if fits {
            queue.cells.push_back((now, cell));
        }
        fits
    }

    /// Whether the control plane is to be told that a link to this relay is wanted.
    pub(super) fn remind(&mut self, relay: &ShortId, now: Instant) -> bool {
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
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
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
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let oldest = |queue: &Queue| queue.cells.front().map(|(since, _)| *since + HOLD_FOR);
        self.0.values().filter_map(oldest).min()
    }

    /// Takes out the cells of all relays that can be sent to, which `is_up` says, each relay's in
    /// the order in which they came, and gives them to `take`.
    pub(super) fn release(
        &mut self,
        is_up: impl Fn(&ShortId) -> bool,
        mut take: impl FnMut(Boxed),
    ) {
        self.0.retain(|relay, queue| {
            let up = is_up(relay);
            if up {
                queue.cells.drain(..).for_each(|(_, cell)| take(cell));
            }
            !up
        });
    }
}
