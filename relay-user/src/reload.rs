//! Reading the relay's configuration again while it runs.

use std::io;
use std::net::SocketAddr;

use mixline_daemon::logging::LoggingError;
use mixline_daemon::place::Place;
use mixline_daemon::reload::{Origin, Reloaded, announced_in_time};
use mixline_directory_client::DirectoryClient;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::queues::WorkerHandle;
use tokio::sync::{Mutex, watch};

use crate::config::{Config, ConfigError};
use crate::control::tell;

/// What of the configuration the parts of a relay follow while it runs: what it says of itself, what it
/// may use, and where the directory is.
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
    /// Where others reach it.
    pub advertise: Vec<SocketAddr>,
    /// Where the directory is.
    pub directory_url: String,
}

impl Offer {
    /// What a configuration offers with so many workers.
    #[must_use]
    pub fn of(config: &Config, workers: usize) -> Self {
        Self {
            name: config.name.clone(),
            family: config.family.clone(),
            capacity: config.stated_capacity(workers),
            contact: config.contact.clone(),
            bandwidth: config.bandwidth.map(|rate| rate.0),
            monthly: config.monthly.map(|most| most.0),
            advertise: config.advertised().to_vec(),
            directory_url: config.directory.url.clone(),
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
    /// The directory's address is none.
    #[error(transparent)]
    Directory(#[from] mixline_directory_client::Error),
    /// Metrics cannot be served where they should be.
    #[error("cannot listen at the address of `metrics`: {0}")]
    Metrics(io::Error),
    /// The relay was not started from a file.
    #[error("this relay was not started from a file")]
    NoFile,
}

/// Reads the configuration again.
pub struct Reloader {
    origin: Option<Origin>,
    workers: Vec<WorkerHandle>,
    offer: watch::Sender<Offer>,
    running: Mutex<Running>,
}

/// What counts now.
struct Running {
    config: Config,
    metrics: Place,
}

impl Reloader {
    /// For a relay with these workers that was started with `config`, whose parts follow `offer`, and
    /// whose metrics are served at `metrics`.
    #[must_use]
    pub fn new(
        config: Config,
        origin: Option<Origin>,
        workers: Vec<WorkerHandle>,
        offer: watch::Sender<Offer>,
        metrics: Place,
    ) -> Self {
        Self {
            origin,
            workers,
            offer,
            running: Mutex::new(Running { config, metrics }),
        }
    }

    /// Reads the file again, and applies what can change in place. The log and the service manager
    /// hear of it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let mut running = self.running.lock().await;
        announced_in_time(async {
            let Running { config, metrics } = &mut *running;
            let origin = self.origin.as_ref().ok_or(ReloadError::NoFile)?;
            let new = Config::load(&origin.file)?;
            DirectoryClient::new(&new.directory.url, new.directory.id)?;
            if new.metrics != config.metrics {
                metrics
                    .move_to(new.metrics)
                    .await
                    .map_err(ReloadError::Metrics)?;
            }
            let done = take_over(config, new, origin)?;
            if let Some(mean) = config.mean_delay() {
                for worker in &self.workers {
                    tell(worker, Command::MeanDelay(mean));
                }
            }
            let offer = Offer::of(config, self.workers.len());
            self.offer.send_if_modified(|old| {
                let differs = *old != offer;
                *old = offer;
                differs
            });
            Ok(done)
        })
        .await
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
    done.replace("metrics", &mut running.metrics, metrics);
    if directory.id == running.directory.id {
        let url = &mut running.directory.url;
        done.replace("directory.url", url, directory.url);
    } else {
        // Another network: not the old one at the address of the new.
        done.keep("directory", &running.directory, &directory);
    }
    if listen == running.listen {
        done.replace("advertise", &mut running.advertise, advertise);
    } else {
        // What is advertised is reached where the relay listens.
        done.keep("listen", &running.listen, &listen);
        done.keep("advertise", &running.advertise, &advertise);
    }
    if running.mean_delay_ms > 0 && mean_delay_ms > 0 {
        done.replace("mean_delay_ms", &mut running.mean_delay_ms, mean_delay_ms);
    } else {
        // Room for cells that wait is made at the start.
        done.keep("mean_delay_ms", &running.mean_delay_ms, &mean_delay_ms);
    }

    done.keep("state_dir", &running.state_dir, &state_dir);
    done.keep("workers", &running.workers, &workers);
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
