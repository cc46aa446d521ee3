//! A relay's threads: workers and slow path, and what they share.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mixline_protocol::identity::ShortId;
use mixline_protocol::replay::ReplayFilter;
use mixline_relay_engine::allowance::Allowance;
use mixline_relay_engine::pipeline::{Assembly, Behaviour, Common, Pipeline, Setup};
use mixline_relay_engine::queues::{ControlQueues, WorkerHandle};
use mixline_relay_engine::slow_path::Keys;
use mixline_relay_engine::wake::Wake;
use rand_core::CryptoRng;

use super::slow_path;
use super::statistics::WorkerStatistics;
use super::worker::Worker;
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
    pub statistics: Vec<Arc<WorkerStatistics>>,
    /// How much they may send together.
    pub allowance: Arc<Allowance>,
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
        let mean_delay = config.mean_delay();
        let Assembly {
            common,
            workers: queues,
            jobs,
        } = Common::assemble(own, replay, count, mean_delay.is_some(), waker);
        // Public-key work is for new paths only: a quarter of the cores, at least one.
        slow_path::start(self.cores.div_ceil(4), &jobs, keys, &common.workers)?;
        // A worker for each core has that core to itself. Fewer are put where there is
        // room: this machine may run other things, and other relays.
        let core_ids = if count == self.cores {
            core_affinity::get_core_ids()
        } else {
            None
        };
        let mut workers = Vec::with_capacity(count);
        let mut statistics = Vec::with_capacity(count);
        for (number, (queues, port)) in queues.into_iter().zip(self.ports).enumerate() {
            let setup = Setup {
                worker: number,
                paths: config.max_paths.div_ceil(count),
                mean_delay,
                behaviour: (self.behave)(number),
            };
            let shown = Arc::new(WorkerStatistics::default());
            statistics.push(Arc::clone(&shown));
            let worker = Worker {
                pipeline: Pipeline::new(Arc::clone(&common), setup, rng),
                port,
                queues,
                statistics: shown,
                core: core_ids.as_ref().and_then(|ids| ids.get(number)).copied(),
            };
            workers.push(worker.start(number)?);
        }
        Ok(Started {
            workers,
            handles: common.workers.clone(),
            statistics,
            allowance: Arc::clone(&common.allowance),
            queues: Arc::clone(&common.control),
        })
    }
}
