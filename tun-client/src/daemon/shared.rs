//! What the tasks of one lifecycle share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mixline_directory_client::{FollowStatus, Known};
use mixline_endpoint::{EngineConfig, Handle};
use mixline_protocol::records::Lease;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::backend::EndpointBackend;
use super::clients::{Clients, ClientsError};
use super::host::HostState;
use super::names::Names;
use super::reloading::Reloader;
use super::status::{DnsStatus, Phase, Problems};
use crate::config::{Accept, Config};
use crate::host_dns::Host;
use crate::state::State;

/// How a lifecycle ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process ends with it.
    Stop,
    /// Another lifecycle follows.
    Restart,
}

/// What the tasks of a lifecycle share.
pub struct Shared {
    /// The configuration, as it counts.
    pub reloader: Arc<Reloader>,
    /// What of the host is changed.
    pub host: Host,
    /// The state directory, locked.
    pub state: Arc<State>,
    /// The endpoint.
    pub handle: Handle,
    /// Held while the endpoint is told what it should do.
    pub settling: AsyncMutex<()>,
    /// The names that are served.
    pub names: Arc<Names>,
    /// Who may open sessions.
    pub clients: Clients,
    /// The own lease.
    pub lease: watch::Sender<Option<Lease>>,
    /// Lookups.
    pub backend: Arc<EndpointBackend>,
    /// How the snapshot is fetched.
    pub follow: watch::Receiver<FollowStatus>,
    /// What is known of the network's directories.
    pub known: watch::Sender<Known>,
    /// Asks the lifecycle to end. The first request counts.
    pub ending: mpsc::Sender<Ending>,
    /// The host, as it is wanted and as it is.
    pub host_state: HostState,
    /// What the lifecycle is doing.
    pub facts: Mutex<Facts>,
    /// What is wrong.
    pub problems: Mutex<Problems>,
}

/// What a lifecycle is doing.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether it starts, works or stops.
    pub phase: Phase,
    /// The step it is at.
    pub step: String,
    /// How `.anon` is found.
    pub dns: DnsStatus,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            step: String::new(),
            dns: DnsStatus::default(),
        }
    }
}

impl Shared {
    /// The configuration that counts now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.reloader.config()
    }

    /// Whether others may open sessions.
    #[must_use]
    pub fn accepting(&self) -> bool {
        accepting(&self.config(), &self.names)
    }

    /// Tells the endpoint what configuration and names ask of it now. Sessions go on.
    pub async fn settle_endpoint(&self) {
        // What is told last is the latest.
        let _one = self.settling.lock().await;
        let settings = engine(&self.config(), &self.names);
        if let Err(error) = self.handle.reconfigure(settings).await {
            tracing::error!("the configuration counts in part: {error}");
        }
    }

    /// Changes who may open sessions or whose client this host is, and tells the endpoint.
    ///
    /// # Errors
    /// Those of the change, after which all is as it was.
    pub async fn change_clients<T>(
        &self,
        change: impl FnOnce(&Clients) -> Result<T, ClientsError>,
    ) -> Result<T, ClientsError> {
        // One change at a time; what is told last is the latest.
        let _one = self.settling.lock().await;
        // What cannot be read could not be told either.
        self.clients.access()?;
        let done = change(&self.clients)?;
        self.handle.set_access(self.clients.access()?).await;
        Ok(done)
    }

    /// What the lifecycle is doing.
    #[must_use]
    pub fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    /// Changes what the lifecycle is doing.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.facts));
    }

    /// What is wrong; not to be held across a wait.
    pub fn problems(&self) -> MutexGuard<'_, Problems> {
        lock(&self.problems)
    }
}

fn accepting(config: &Config, names: &Names) -> bool {
    match config.accept {
        Accept::Always => true,
        Accept::Published => !names.is_empty(),
        Accept::Never => false,
    }
}

/// What configuration and names ask of the endpoint.
#[must_use]
pub fn engine(config: &Config, names: &Names) -> EngineConfig {
    let accepting = accepting(config, names);
    EngineConfig {
        accept_sessions: accepting,
        publish: accepting,
        ..config.engine()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
