//! A runtime for requests, of a store whose callers wait.

use std::future::Future;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};

use crate::{Error, Result};

/// One thread that makes requests and drives their connections. Whoever calls the store may be on any
/// thread, of another runtime too.
#[derive(Debug)]
pub(super) struct Requests {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Requests {
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(|error| Error::Store(format!("starting a thread: {error}")))?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Does it beside everything else, until the store is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }

    /// Does it, and waits for what comes out.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = mpsc::sync_channel(1);
        self.spawn(async move {
            // Who asked may be gone.
            let _ = done.send(work.await);
        });
        let stopped = |_| Error::Unknown("the thread that asks etcd has stopped".into());
        outcome.recv().map_err(stopped)?
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it is not allowed on another runtime's threads.
            runtime.shutdown_background();
        }
    }
}
