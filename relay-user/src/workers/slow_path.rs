//! The threads that open headers of new paths, away from the workers.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::Receiver;
use mixline_relay_engine::queues::WorkerHandle;
use mixline_relay_engine::slow_path::{Job, Keys, Opened, open};

/// Starts the threads. They end when all senders of jobs are gone.
///
/// # Errors
/// If a thread cannot be started.
pub fn start(
    threads: usize,
    jobs: &Receiver<Job>,
    keys: &Arc<Keys>,
    workers: &[WorkerHandle],
) -> std::io::Result<Vec<JoinHandle<()>>> {
    (0..threads)
        .map(|number| {
            let (jobs, keys, workers) = (jobs.clone(), Arc::clone(keys), workers.to_vec());
            thread::Builder::new()
                .name(format!("slow-{number}"))
                .spawn(move || work(&jobs, &keys, &workers))
        })
        .collect()
}

fn work(jobs: &Receiver<Job>, keys: &Keys, workers: &[WorkerHandle]) {
    while let Ok(Job { worker, header }) = jobs.recv() {
        let path = open(&keys.get(), &header);
        let Some(worker) = workers.get(worker) else {
            continue;
        };
        // A worker that has ended needs no answer.
        let _ = worker.opened.send(Opened { header, path });
        worker.waker.wake();
    }
}
