//! Reading the configuration again while the client runs.
//!
//! The configuration that counts is a value that the parts of a client follow, each for itself: names
//! and endpoint here, the responder and the snapshots in their own tasks. What cannot change in place
//! keeps its old value in it, so that nobody meets a half of a new one.

use std::sync::{Arc, Mutex, PoisonError};

use mixline_daemon::reload::{Origin, Reloaded, announced};
use tokio::sync::watch;

use super::shared::Shared;
use crate::config::{Change, Config, ReloadError};
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
            let change = Change::read(&config, &self.origin)?;
            // The last that can fail: nothing else has changed yet.
            if change.mtu() != config.mtu {
                mtu::set_if_there(&config.interface, change.mtu()).map_err(ReloadError::Mtu)?;
            }
            let done = change.commit(&mut config);
            // Also if it is the same: names that a command withdrew come back.
            self.counts.send_replace(Arc::new(config));
            Ok(done)
        })
    }
}

/// Has names and endpoint follow the configuration, for ever. `mtu` is the one that the interface was
/// made with.
pub async fn follow(shared: Arc<Shared>, mtu: u16) {
    let mut configs = shared.reloader.follow();
    // Of a file that was read again while there was no interface.
    let config = shared.config();
    if config.mtu != mtu
        && let Err(error) = mtu::set_if_there(&config.interface, config.mtu)
    {
        tracing::error!("mtu: {error}");
    }
    loop {
        let config = Arc::clone(&configs.borrow_and_update());
        shared.names.configure(&config.publish);
        shared.settle_endpoint().await;
        if configs.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mixline_daemon::logging::Logging;
    use mixline_testnet::netns;
    use mixline_testnet::skip::namespace_or_skip;

    use super::*;

    #[test]
    fn an_interface_that_refuses_its_mtu_and_a_log_that_is_gone_change_nothing() {
        let Some(namespace) = namespace_or_skip() else {
            return;
        };
        let reload = || {
            // The one below lets no larger MTU through.
            netns::ip(
                "link add below0 type veth peer name far0\n\
                 link set below0 mtu 1400\n\
                 link add mixline0 link below0 type macvlan\n",
            )
            .unwrap();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("client.yaml");
            let write = |more: &str| {
                let id = "a".repeat(52);
                let directory = format!("directory: {{url: \"http://127.0.0.1:1\", id: {id}}}\n");
                fs::write(&file, directory + more).unwrap();
            };
            write("mtu: 1400\n");
            let config = Config::load(&file).unwrap();
            let origin = Origin {
                file: file.clone(),
                logging: Logging::gone(),
            };
            let reloader = Reloader::new(config.clone(), origin);
            let counts = reloader.follow();
            let mtu = || netns::ip_output("-o link show mixline0").unwrap();

            write("mtu: 1500\npublish: [name]\n");
            let error = reloader.reload().unwrap_err();
            assert!(matches!(error, ReloadError::Mtu(_)), "{error}");
            write("mtu: 1300\nlog: debug\n");
            let error = reloader.reload().unwrap_err();
            assert!(matches!(error, ReloadError::Log(_)), "{error}");
            assert!(mtu().contains("mtu 1400"), "{}", mtu());
            assert!(!counts.has_changed().unwrap());
            assert_eq!(*reloader.config(), config);

            write("mtu: 1300\npublish: [name]\n");
            assert_eq!(reloader.reload().unwrap().changed, ["mtu", "publish"]);
            assert!(mtu().contains("mtu 1300"), "{}", mtu());
            // Where there is no interface, the next one is made with what counts.
            netns::ip("link del mixline0\n").unwrap();
            write("mtu: 1400\n");
            assert_eq!(reloader.reload().unwrap().changed, ["mtu", "publish"]);
        };
        namespace.run(reload).unwrap();
    }
}
