//! Reading the configuration again while the client runs.
//!
//! The configuration that counts is a value that the parts of a client follow, each for itself: names
//! and endpoint here, the responder and the snapshots in their own tasks. What cannot change in place
//! keeps its old value in it, so that nobody meets a half of a new one.

use std::sync::{Arc, Mutex, PoisonError};

use mixline_daemon::reload::{Origin, Reloaded, announced};
use tokio::sync::watch;

use super::shared::Shared;
use crate::config::{Config, ReloadError};
use crate::tun::mtu;

/// The configuration, and where it comes from.
pub struct Reloader {
    origin: Origin,
    counts: watch::Sender<Arc<Config>>,
    /// One at a time reads the file.
    reading: Mutex<()>,
}

impl Reloader {
    /// A client that was started with `config`.
    #[must_use]
    pub fn new(config: Config, origin: Origin) -> Self {
        Self {
            origin,
            counts: watch::Sender::new(Arc::new(config)),
            reading: Mutex::new(()),
        }
    }

    /// What counts now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.counts.borrow())
    }

    /// What counts, from now on.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Config>> {
        self.counts.subscribe()
    }

    /// Reads the file again. The log and the service manager hear of it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        announced(|| {
            let mut config = Config::clone(&self.config());
            let done = config.reload(&self.origin)?;
            // Also if it is the same: names that a command withdrew come back.
            self.counts.send_replace(Arc::new(config));
            Ok(done)
        })
    }
}

/// Has names, endpoint and interface follow the configuration, for ever. `begun` is the one that they
/// were made with.
pub async fn follow(shared: Arc<Shared>, begun: Arc<Config>) {
    let mut configs = shared.reloader.follow();
    let mut before = begun;
    loop {
        let config = Arc::clone(&configs.borrow_and_update());
        shared.names.configure(&config.publish);
        if config.mtu != before.mtu
            && let Err(error) = mtu::set(&config.interface, config.mtu)
        {
            tracing::error!("mtu: {error}");
        }
        shared.settle_endpoint().await;
        before = config;
        if configs.changed().await.is_err() {
            return;
        }
    }
}
