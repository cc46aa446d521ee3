//! Reading the directory's configuration again while it runs.

use std::sync::Arc;

use mixline_daemon::place::Place;
use mixline_daemon::reload::{Origin, Reloaded, announced_in_time};
use tokio::sync::{Mutex, watch};

use crate::config::Config;
use crate::http::listen;
use crate::registry::Registry;
use crate::snapshot::Publisher;
use crate::{Error, Result};

/// Reads the configuration again.
pub struct Reloader {
    origin: Option<Origin>,
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    /// What counts now, for who follows it.
    counts: watch::Sender<Arc<Config>>,
    /// Where HTTP is served. Held by the one who reads the file.
    place: Mutex<Place>,
}

impl Reloader {
    /// For a directory that was started with `config`, and serves at `place`.
    #[must_use]
    pub fn new(
        config: Config,
        origin: Option<Origin>,
        registry: Arc<Registry>,
        publisher: Arc<Publisher>,
        place: Place,
    ) -> Self {
        Self {
            origin,
            registry,
            publisher,
            counts: watch::Sender::new(Arc::new(config)),
            place: Mutex::new(place),
        }
    }

    /// The configuration that counts, from now on.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Config>> {
        self.counts.subscribe()
    }

    /// Reads the file again, and applies what can change in place. The log and the service manager
    /// hear of it.
    ///
    /// # Errors
    /// [`Error`]; then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded> {
        let mut place = self.place.lock().await;
        announced_in_time(async {
            let origin = self.origin.as_ref().ok_or(Error::NoFile)?;
            let new = Config::load(&origin.file)?;
            let mut config = Config::clone(&self.counts.borrow());
            if new.listen != config.listen {
                let moved = place.move_to(Some(new.listen)).await;
                moved.map_err(|error| listen::failed(new.listen, &error))?;
            }
            let done = config.take_over(new, &origin.logging)?;
            self.registry
                .set_rules(config.admission_policy(), config.relay_timeout_s);
            self.publisher.set_validity(config.snapshot_validity_s);
            self.counts.send_if_modified(|counts| {
                let differs = **counts != config;
                *counts = Arc::new(config);
                differs
            });
            Ok(done)
        })
        .await
    }

    /// Serves no longer, when what is under way is finished.
    pub async fn close(&self) {
        self.place.lock().await.close().await;
    }
}
