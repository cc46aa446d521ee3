//! Reading the relay's configuration again while it runs.

use std::sync::{Mutex, PoisonError};

use mixline_daemon::logging::LoggingError;
use mixline_daemon::reload::{Origin, Reloaded, announced};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};

/// What a relay says of itself in its descriptor, and can change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub family: Option<String>,
    /// Datagrams a second that it is willing to relay.
    pub capacity: u32,
    /// How people reach the operator; not in the descriptor, which has no room for it.
    pub contact: Option<String>,
    /// Bytes a second that it sends at most.
    pub bandwidth: Option<u64>,
    /// Bytes that it sends in a month at most.
    pub monthly: Option<u64>,
}

impl Offer {
    /// What a configuration offers with so many workers.
    fn of(config: &Config, workers: usize) -> Self {
        Self {
            name: config.name.clone(),
            family: config.family.clone(),
            capacity: config.stated_capacity(workers),
            contact: config.contact.clone(),
            bandwidth: config.bandwidth.map(|rate| rate.0),
            monthly: config.monthly.map(|most| most.0),
        }
    }
}

/// Why a configuration was not read again: one line. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be changed.
    #[error(transparent)]
    Log(#[from] LoggingError),
    /// The relay was not started from a file.
    #[error("this relay was not started from a file")]
    NoFile,
}

/// Reads the configuration again.
pub struct Reloader {
    origin: Option<Origin>,
    workers: usize,
    /// What counts now.
    running: Mutex<Config>,
    offer: watch::Sender<Offer>,
}

impl Reloader {
    /// For a relay with so many workers that was started with `config`.
    #[must_use]
    pub fn new(config: Config, workers: usize, origin: Option<Origin>) -> Self {
        Self {
            origin,
            workers,
            offer: watch::Sender::new(Offer::of(&config, workers)),
            running: Mutex::new(config),
        }
    }

    /// What the descriptor says of the configuration.
    #[must_use]
    pub fn offer(&self) -> watch::Receiver<Offer> {
        self.offer.subscribe()
    }

    /// Reads the file again, and applies what can change in place. The log and the service manager
    /// hear of it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        announced(|| {
            let origin = self.origin.as_ref().ok_or(ReloadError::NoFile)?;
            let new = Config::load(&origin.file)?;
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let done = take_over(&mut running, new, origin)?;
            let offer = Offer::of(&running, self.workers);
            self.offer.send_if_modified(|old| {
                let differs = *old != offer;
                *old = offer;
                differs
            });
            Ok(done)
        })
    }
}

/// Takes over what can change in place, and names what differs.
fn take_over(running: &mut Config, new: Config, origin: &Origin) -> Result<Reloaded, LoggingError> {
    // Whoever adds a key decides here what a reload does with it.
    let Config {
        name,
        state_dir,
        listen,
        advertise,
        directory,
        workers,
        family,
        capacity,
        bandwidth,
        monthly,
        contact,
        mean_delay_ms,
        log,
        metrics,
        port,
        interface,
        xdp_send,
        xdp_frame_bytes,
        max_paths,
        replay_memory_mib,
    } = new;
    let mut done = Reloaded::default();
    done.replace_log(&origin.logging, &mut running.log, log)?;
    done.replace("name", &mut running.name, name);
    done.replace("family", &mut running.family, family);
    done.replace("capacity", &mut running.capacity, capacity);
    done.replace("bandwidth", &mut running.bandwidth, bandwidth);
    done.replace("monthly", &mut running.monthly, monthly);
    done.replace("contact", &mut running.contact, contact);

    done.keep("state_dir", &running.state_dir, &state_dir);
    done.keep("listen", &running.listen, &listen);
    done.keep("advertise", &running.advertise, &advertise);
    done.keep("directory", &running.directory, &directory);
    done.keep("workers", &running.workers, &workers);
    done.keep("mean_delay_ms", &running.mean_delay_ms, &mean_delay_ms);
    done.keep("metrics", &running.metrics, &metrics);
    done.keep("port", &running.port, &port);
    done.keep("interface", &running.interface, &interface);
    done.keep("xdp_send", &running.xdp_send, &xdp_send);
    done.keep(
        "xdp_frame_bytes",
        &running.xdp_frame_bytes,
        &xdp_frame_bytes,
    );
    done.keep("max_paths", &running.max_paths, &max_paths);
    done.keep(
        "replay_memory_mib",
        &running.replay_memory_mib,
        &replay_memory_mib,
    );
    Ok(done)
}
