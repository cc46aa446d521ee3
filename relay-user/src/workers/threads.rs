//! A relay's threads: workers and slow path, and what they share.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mixline_protocol::identity::ShortId;
use mixline_protocol::replay::ReplayFilter;
use mixline_relay_engine::buffer_pool::Pool;
use mixline_relay_engine::pipeline::{
    Behaviour, Common, DELAYED_CELLS, HELD_CELLS, OPENING_PATHS, Pipeline, Setup,
};
use mixline_relay_engine::queues::{
    ControlQueues, HANDOVERS, HANDSHAKES, MESSAGES, WorkerHandle, worker_queues,
};
use mixline_relay_engine::quota::Places;
use mixline_relay_engine::slow_path::{self, Keys};
use mixline_relay_engine::wake::Wake;
use rand_core::CryptoRng;

use super::worker::{Board, Worker};
use crate::config::Config;
use crate::port::Port;

/// What the threads are made of.
pub struct Threads<F> {
    /// The machine's cores.
    pub cores: usize,
    /// Gives each worker its behaviour.
    pub behave: F,
    /// The workers' ports, one for each.
    pub ports: Vec<Box<dyn Port>>,
}

/// The threads at work.
pub struct Started {
    /// The workers' threads.
    pub workers: Vec<JoinHandle<io::Result<()>>>,
    /// Where the workers are reached.
    pub handles: Vec<WorkerHandle>,
    /// What they show.
    pub boards: Vec<Arc<Board>>,
    /// Where they reach the control plane.
    pub queues: Arc<ControlQueues>,
}

impl<B: Behaviour, F: FnMut(usize) -> B> Threads<F> {
    /// Starts them.
    ///
    /// # Errors
    /// If the system has no thread, epoll instance or eventfd to give.
    pub fn start(
        mut self,
        config: &Config,
        own: ShortId,
        replay: Arc<ReplayFilter>,
        keys: &Arc<Keys>,
        waker: Arc<dyn Wake>,
        rng: &mut impl CryptoRng,
    ) -> io::Result<Started> {
        let count = self.ports.len();
        let (handles, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| worker_queues()).unzip();
        let (slow, jobs) = slow_path::queue(count);
        // Public-key work is for new paths only: a quarter of the cores, at least one.
        super::slow_path::start(self.cores.div_ceil(4), &jobs, keys, &handles)?;
        let mean_delay = config.mean_delay();
        let held = HELD_CELLS
            + if mean_delay.is_some() {
                DELAYED_CELLS
            } else {
                0
            };
        let control = ControlQueues::new(waker);
        let common = Arc::new(Common {
            own,
            replay,
            // As many as all that hold them together may.
            pool: Pool::new(held + HANDSHAKES + MESSAGES + count * HANDOVERS),
            held: Places::new(held),
            opening: Places::new(OPENING_PATHS),
            control_places: Places::new(MESSAGES),
            control: Arc::clone(&control),
            workers: handles.clone(),
            slow,
        });
        // A worker for each core has that core to itself. Fewer are put where there is
        // room: this machine may run other things, and other relays.
        let core_ids = if count == self.cores {
            core_affinity::get_core_ids()
        } else {
            None
        };
        let mut workers = Vec::with_capacity(count);
        let mut boards = Vec::with_capacity(count);
        for (number, (queues, port)) in queues.into_iter().zip(self.ports).enumerate() {
            let setup = Setup {
                worker: number,
                paths: config.max_paths.div_ceil(count),
                mean_delay,
                behaviour: (self.behave)(number),
            };
            let board = Arc::new(Board::default());
            boards.push(Arc::clone(&board));
            let worker = Worker {
                pipeline: Pipeline::new(Arc::clone(&common), setup, rng),
                port,
                queues,
                board,
                core: core_ids.as_ref().and_then(|ids| ids.get(number)).copied(),
            };
            workers.push(worker.start(number)?);
        }
        Ok(Started {
            workers,
            handles,
            boards,
            queues: control,
        })
    }
}
