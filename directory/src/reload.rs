//! Reading the directory's configuration again while it runs.

use std::sync::Arc;

use mixline_daemon::place::Place;
use mixline_daemon::reload::{Origin, Reloaded, announced_in_time};
use tokio::sync::{Mutex, watch};

use crate::config::Config;
use crate::http::listen;
use crate::registry::Registry;
use crate::rounds::Maker;
use crate::{Error, Result};

/// Reads the configuration again.
pub struct Reloader {
    origin: Option<Origin>,
    registry: Arc<Registry>,
    maker: Maker,
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
        maker: Maker,
        place: Place,
    ) -> Self {
        Self {
            origin,
            registry,
            maker,
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
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded> {
        let own = Arc::clone(self);
        announced_in_time(async move { own.read_again().await }).await
    }

    async fn read_again(&self) -> Result<Reloaded> {
        let mut place = self.place.lock().await;
        let origin = self.origin.as_ref().ok_or(Error::NoFile)?;
        let new = Config::load(&origin.file)?;
        let mut config = Config::clone(&self.counts.borrow());
        let log = origin
            .prepare_log(config.log.as_ref(), new.log.as_ref())
            .map_err(Error::Log)?;
        // The last that can fail: nothing else has changed yet, and then it is served where it was.
        if new.listen != config.listen {
            let moved = place.move_to(Some(new.listen)).await;
            moved.map_err(|error| listen::failed(new.listen, &error))?;
        }
        let done = config.take_over(new, log);
        self.registry
            .set_rules(config.admission_policy(), config.relay_timeout_s);
        self.maker.set_validity(config.snapshot_validity_s);
        self.counts.send_if_modified(|counts| {
            let differs = **counts != config;
            *counts = Arc::new(config);
            differs
        });
        Ok(done)
    }

    /// Serves no longer, when what is under way is finished.
    pub async fn close(&self) {
        self.place.lock().await.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mixline_daemon::logging::Logging;
    use mixline_protocol::identity::X25519Public;

    use super::*;
    use crate::registry::tests::{directory_key, registry};
    use crate::rounds::ServiceKeys;
    use crate::rounds::alone::Alone;

    #[tokio::test]
    async fn what_fails_at_the_log_leaves_the_place_and_the_rules_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("directory.yaml");
        let addresses = [(); 2].map(|()| {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap()
        });
        let write = |listen, more: &str| {
            let text = format!("state_dir: /tmp\nlisten: \"{listen}\"\n{more}");
            std::fs::write(&file, text).unwrap();
        };
        let [before, after] = addresses;
        write(before, "");
        let config = Config::load(&file).unwrap();
        let registry = Arc::new(registry());
        let keys = ServiceKeys {
            identity: Arc::new(directory_key()),
            session: X25519Public([1; 32]),
        };
        let alone = Alone::new(registry.clone(), Arc::default(), keys, 600, None).unwrap();
        let mut place = Place::new(|listener, stop| async move {
            stop.await;
            drop(listener);
        });
        place.move_to(Some(before)).await.unwrap();
        let origin = Origin {
            file: file.clone(),
            logging: Logging::gone(),
        };
        let reloader = Arc::new(Reloader::new(
            config.clone(),
            Some(origin),
            registry,
            Maker::Alone(Arc::new(alone)),
            place,
        ));
        let counts = reloader.follow();

        write(after, "log: debug\nrelay_timeout_s: 30\n");
        let error = reloader.reload().await.unwrap_err();
        assert!(matches!(error, Error::Log(_)), "{error}");
        TcpListener::bind(before).unwrap_err();
        TcpListener::bind(after).unwrap();
        assert_eq!(**counts.borrow(), config);
        // All of it is taken once nothing fails.
        write(after, "relay_timeout_s: 30\n");
        let done = reloader.reload().await.unwrap();
        assert_eq!(done.changed, ["listen", "relay_timeout_s"]);
        TcpListener::bind(after).unwrap_err();
    }
}
