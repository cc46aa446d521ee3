//! What the workers of a relay share, and the queues that join them to its other threads.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use mixline_protocol::identity::ShortId;
use mixline_protocol::replay::{Position, ReplayFilter};

use crate::allowance::Allowance;
use crate::buffer_pool::Pool;
use crate::limits::{
    ANSWERS, DELAYED_CELLS, HANDOVERS, HANDSHAKES, HELD_CELLS, MESSAGES, OPENING_PATHS, PROBES,
    RELAYS_HANDSHAKES,
};
use crate::outcome::Outcome;
use crate::queues::{ControlQueues, WorkerHandle, WorkerQueues, worker_queues};
use crate::quota::Quota;
use crate::slow_path::{self, Job};
use crate::wake::Wake;

/// What all workers of a relay share.
pub struct Common {
    /// The relay's own short ID.
    pub(crate) own: ShortId,
    /// Remembers what has been relayed.
    pub(crate) replay: Arc<ReplayFilter>,
    /// Memory for datagrams outside of batches.
    pub(crate) pool: Arc<Pool>,
    /// Datagrams that may be held for a path, a link or a delay.
    pub(crate) held: Arc<Quota>,
    /// New paths that may wait to be opened.
    pub(crate) opening: Arc<Quota>,
    /// Control messages that may wait for the control plane.
    pub(crate) control_messages: Arc<Quota>,
    /// How much they may send together.
    pub allowance: Arc<Allowance>,
    /// The control plane.
    pub control: Arc<ControlQueues>,
    /// All workers, by number.
    pub workers: Vec<WorkerHandle>,
    /// The slow path.
    pub(crate) slow: Sender<Job>,
}

/// What workers share, and the ends of their queues that are somebody's own.
pub struct Assembly {
    /// What they share.
    pub common: Arc<Common>,
    /// Each worker's own ends, by number.
    pub workers: Vec<WorkerQueues>,
    /// The slow path's own end: headers to be opened.
    pub jobs: Receiver<Job>,
}

impl Common {
    /// Makes what `workers` workers share, within the bounds that all relays have.
    ///
    /// `delays`: whether cells are delayed, and so more of them held at a time; `control`: wakes
    /// the control plane when there is something in its queues.
    #[must_use]
    pub fn assemble(
        own: ShortId,
        replay: Arc<ReplayFilter>,
        workers: usize,
        delays: bool,
        control: Arc<dyn Wake>,
    ) -> Assembly {
        let (handles, queues): (Vec<_>, Vec<_>) = (0..workers).map(|_| worker_queues()).unzip();
        let (slow, jobs) = slow_path::queue(workers);
        let held = HELD_CELLS + if delays { DELAYED_CELLS } else { 0 };
        let for_control = ANSWERS + HANDSHAKES + RELAYS_HANDSHAKES + PROBES + MESSAGES;
        let common = Arc::new(Self {
            own,
            replay,
            // As many as all that hold them together may.
            pool: Pool::new(held + for_control + workers * HANDOVERS),
            held: Quota::new(held),
            opening: Quota::new(OPENING_PATHS),
            control_messages: Quota::new(MESSAGES),
            allowance: Arc::default(),
            control: ControlQueues::new(control),
            workers: handles,
            slow,
        });
        Assembly {
            common,
            workers: queues,
            jobs,
        }
    }

    /// Lets a cell be sent that goes somewhere: within the rate, and once. `lease`: datagrams that may be sent
    /// before the rate is asked again.
    #[inline]
    pub(super) fn admit(
        &self,
        lease: &mut u32,
        tag: Position,
        now: Instant,
    ) -> Result<(), Outcome> {
        if *lease == 0 {
            *lease = self.allowance.take(now);
        }
        // A shaper would hold datagrams of constant length for a time that depends on what others
        // send; what is over the rate is dropped instead, and the ends send less.
        let left = lease.checked_sub(1).ok_or(Outcome::BandwidthLimit)?;
        // Only what goes out is remembered: cells that lead nowhere, which cost whoever sends them nothing, would
        // make the filter forget others. Whatever was not let through is no replay when it comes again.
        if !self.replay.check_and_set_at(tag) {
            return Err(Outcome::Replay);
        }
        *lease = left;
        Ok(())
    }
}
