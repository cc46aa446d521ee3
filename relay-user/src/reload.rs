//! Reading the relay's configuration again while it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mixline_daemon::logging::LoggingError;
use mixline_daemon::place::Place;
use mixline_daemon::reload::{LogChange, Origin, Reloaded, announced_in_time};
use mixline_daemon::{keep, replace};
use mixline_directory_client::{Known, NetworkClient};
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
    /// Where the network's directories are.
    pub directories: Vec<String>,
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
            directories: config.network.urls.clone(),
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
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let own = Arc::clone(self);
        announced_in_time(async move { own.read_again().await }).await
    }

    async fn read_again(&self) -> Result<Reloaded, ReloadError> {
        let mut running = self.running.lock().await;
        let Running { config, metrics } = &mut *running;
        let origin = self.origin.as_ref().ok_or(ReloadError::NoFile)?;
        let new = Config::load(&origin.file)?;
        NetworkClient::new(&new.network.urls, Known::nothing(new.network.id))?;
        let log = origin.prepare_log(config.log.as_ref(), new.log.as_ref())?;
        // The last that can fail: nothing else has changed yet, and then they stay where they are.
        if new.metrics != config.metrics {
            let moved = metrics.move_to(new.metrics).await;
            moved.map_err(ReloadError::Metrics)?;
        }
        let done = take_over(config, new, log);
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
    }
}

/// Takes over what can change in place, and names what differs.
fn take_over(running: &mut Config, new: Config, log_change: LogChange) -> Reloaded {
    // Whoever adds a key decides here what a reload does with it.
    let Config {
        name,
        state_dir,
        listen,
        advertise,
        network,
        network_id,
        directories,
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
        time_inside,
    } = new;
    let mut done = Reloaded::default();
    done.replace_log(log_change, &mut running.log, log);
    replace!(
        done, running, name, family, capacity, bandwidth, monthly, contact, metrics
    );
    let alone = directory.is_some();
    if network.id == running.network.id {
        let key = if alone {
            "directory.url"
        } else {
            "directories"
        };
        done.replace(key, &mut running.network.urls, network.urls);
        (running.network_id, running.directories) = (network_id, directories);
        running.directory = directory;
    } else {
        // Another network: not the old one at the addresses of the new.
        let key = if alone { "directory" } else { "network" };
        done.keep(key, &running.network, &network);
    }
    if listen == running.listen {
        replace!(done, running, advertise);
    } else {
        // What is advertised is reached where the relay listens.
        keep!(done, running, listen, advertise);
    }
    if running.mean_delay_ms > 0 && mean_delay_ms > 0 {
        replace!(done, running, mean_delay_ms);
    } else {
        // Room for cells that wait is made at the start.
        keep!(done, running, mean_delay_ms);
    }
    keep!(
        done,
        running,
        state_dir,
        workers,
        port,
        interface,
        xdp_send,
        xdp_frame_bytes,
        max_paths,
        replay_memory_mib,
        time_inside,
    );
    done
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mixline_daemon::logging::Logging;

    use super::*;

    #[tokio::test]
    async fn what_fails_at_the_log_leaves_metrics_and_offer_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.yaml");
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let text = format!(
            "name: relay\nstate_dir: /tmp\nlisten: [\"127.0.0.1:7000\"]\nworkers: 1\n\
             directory: {{url: \"http://127.0.0.1:1\", id: {}}}\n",
            "a".repeat(52)
        );
        std::fs::write(&file, &text).unwrap();
        let config = Config::load(&file).unwrap();
        let (offer, offered) = watch::channel(Offer::of(&config, 1));
        let before = offered.borrow().clone();
        let metrics = Place::new(|listener, stop| async move {
            stop.await;
            drop(listener);
        });
        let origin = Origin {
            file: file.clone(),
            logging: Logging::gone(),
        };
        let reloader = Arc::new(Reloader::new(
            config,
            Some(origin),
            Vec::new(),
            offer,
            metrics,
        ));

        let more = format!("log: debug\nname: other\nmetrics: \"{address}\"\n");
        let text = text.replace("name: relay\n", &more);
        std::fs::write(&file, &text).unwrap();
        let error = reloader.reload().await.unwrap_err();
        assert!(matches!(error, ReloadError::Log(_)), "{error}");
        TcpListener::bind(address).unwrap();
        assert_eq!(*offered.borrow(), before);
        // All of it is taken once nothing fails.
        std::fs::write(&file, text.replace("log: debug\n", "")).unwrap();
        let done = reloader.reload().await.unwrap();
        assert_eq!(done.changed, ["name", "metrics"]);
        TcpListener::bind(address).unwrap_err();
    }
}
