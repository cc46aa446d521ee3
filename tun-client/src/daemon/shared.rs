//! What the tasks of one lifecycle share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mixline_directory_client::FollowStatus;
use mixline_endpoint::Handle;
use mixline_protocol::records::Lease;
use tokio::sync::{mpsc, watch};

use super::backend::EndpointBackend;
use super::host::HostState;
use super::names::Names;
use super::status::{DnsStatus, Phase, Problems};
use crate::config::Config;
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
    /// The configuration.
    pub config: Config,
    /// What of the host is changed.
    pub host: Host,
    /// The state directory, locked.
    pub state: Arc<State>,
    /// The endpoint.
    pub handle: Handle,
    /// Whether others may open sessions.
    pub accepting: bool,
    /// The names that are served.
    pub names: Arc<Names>,
    /// The own lease.
    pub lease: watch::Sender<Option<Lease>>,
    /// Lookups.
    pub backend: Arc<EndpointBackend>,
    /// How the snapshot is fetched.
    pub follow: watch::Receiver<FollowStatus>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
