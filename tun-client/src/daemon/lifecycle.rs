//! One life of the interface and the endpoint behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mixline_daemon::service_manager;
use mixline_directory_client::{FollowStatus, Following, follow_settings};
use mixline_endpoint::Endpoint;
use mixline_protocol::records::Snapshot;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::backend::EndpointBackend;
use super::clients::Clients;
use super::control_requests::ControlRequests;
use super::host::{self, HostState};
use super::known;
use super::names::Names;
use super::outside;
use super::reloading::{self, Reloader};
use super::service;
use super::shared::{self, Ending, Facts, Shared};
use super::startup::{Snapshots, Startup};
use super::status::{DnsStatus, Phase, Problems};
use super::stop_signals::StopSignals;
use super::told::Told;
use crate::config::DnsMode;
use crate::control;
use crate::error::{Error, Result};
use crate::host::announcements::Announcements;
use crate::host_dns::{self, Active, Earlier, Host};
use crate::progress::Progress;
use crate::state::State;
use crate::tun::device::Tun;

/// How long peers, guards and directories are given to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(8);

/// A lifecycle and the tasks that keep it going.
struct Lifecycle<'a> {
    shared: Arc<Shared>,
    snapshots: Snapshots,
    earlier: Earlier,
    progress: &'a Progress,
    tasks: JoinSet<()>,
    /// The task that has the host's resolver ask here.
    resolver: Option<AbortHandle>,
}

/// Runs one lifecycle.
///
/// # Errors
/// What keeps it from starting, or made it stop; the host is as before then.
pub async fn run(
    reloader: &Arc<Reloader>,
    host: &Host,
    state: &Arc<State>,
    signals: &mut StopSignals,
    told: &Arc<Told>,
    progress: &Progress,
    closed: bool,
) -> Result<Ending> {
    let (mut lifecycle, mut endings) = begin(reloader, host, state, told, progress)?;
    let shared = Arc::clone(&lifecycle.shared);
    let working = async {
        lifecycle.startup().run().await?;
        lifecycle.watch().await
    };
    let result = tokio::select! {
        result = working => result,
        () = signals.wait() => Ok(Ending::Stop),
        Some(ending) = endings.recv() => Ok(ending),
        error = shared.handle.stopped() => {
            Err(error.map_or(Error::EndpointStopped, Error::EndpointFailed))
        }
    };
    match &result {
        Ok(Ending::Restart) => service_manager::status("starting again"),
        Ok(Ending::Stop) | Err(_) => service_manager::stopping("putting the host back"),
    }
    let open = match &result {
        Ok(Ending::Stop) => true,
        Ok(Ending::Restart) => false,
        // What failed on its way up leaves the host as it was; what was up stays closed.
        Err(_) => !closed && shared.facts().phase == Phase::Starting,
    };
    if result.is_err() && !open {
        progress.step("the host stays closed to virtual addresses: `mixline-client down` opens it");
    }
    let left = lifecycle.finish(open).await;
    match (result, left) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(ending), Ok(())) => Ok(ending),
    }
}

/// Makes everything that can be made without the network; what fails here fails at once.
fn begin<'a>(
    reloader: &Arc<Reloader>,
    host: &Host,
    state: &Arc<State>,
    told: &Arc<Told>,
    progress: &'a Progress,
) -> Result<(Lifecycle<'a>, mpsc::Receiver<Ending>)> {
    let config = &*reloader.config();
    let identity = state.identity()?;
    let names = Arc::new(Names::load(&config.publish, Arc::clone(state))?);
    let earlier = match host_dns::recover(host, state.directory()) {
        Err(error) if config.dns.mode == DnsMode::Off => {
            tracing::debug!(%error, "the host's resolver is left alone");
            Earlier::default()
        }
        earlier => earlier?,
    };
    let control = control::server::Server::bind(&config.control_socket())?;

    let reconciler = host::take(&config.interface)?;
    let tun = Tun::create(&config.interface, config.mtu)?;
    let announcements = Announcements::listen()?;
    let settings = mixline_endpoint::Config {
        engine: shared::engine(config, &names),
        ..mixline_endpoint::Config::new(config.state_dir.clone())
    };
    let (snapshot_sender, snapshots) = watch::channel(None);
    let handle = Endpoint::start(
        settings,
        identity,
        snapshots.clone(),
        tun.into_device(),
        None,
    )
    .map_err(Error::Endpoint)?;

    let (lease, own_lease) = watch::channel(None);
    let host_state = HostState::new(Arc::clone(told));
    let backend = EndpointBackend::new(handle.clone(), own_lease, names.held(), host_state.told());
    let (follow_sender, follow) = watch::channel(FollowStatus::default());
    let known = State::known_in(state.directory(), config.network.id);
    let known = watch::Sender::new(known);
    let following = Following {
        snapshots: snapshot_sender,
        known: known.clone(),
        status: follow_sender,
    };
    let (ending, endings) = mpsc::channel(4);
    let shared = Arc::new(Shared {
        reloader: Arc::clone(reloader),
        host: host.clone(),
        state: Arc::clone(state),
        handle,
        settling: AsyncMutex::default(),
        names,
        clients: Clients::new(Arc::clone(state)),
        lease,
        backend: Arc::new(backend),
        follow,
        known,
        ending,
        host_state,
        facts: Mutex::new(Facts::default()),
        problems: Mutex::new(Problems::default()),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(follow_settings(
        reloader.follow(),
        |config| &config.network.urls,
        following,
    ));
    tasks.spawn(known::keep(Arc::clone(&shared)));
    tasks.spawn(reloading::follow(Arc::clone(&shared), config.mtu));
    tasks.spawn(control.serve(Arc::new(ControlRequests::new(Arc::clone(&shared)))));
    tasks.spawn(service::keep_alive(Arc::clone(&shared)));
    tasks.spawn(outside::keep(Arc::clone(&shared), snapshots.clone()));
    tasks.spawn(host::keep(Arc::clone(&shared), reconciler, announcements));
    Ok((
        Lifecycle {
            shared,
            snapshots,
            earlier,
            progress,
            tasks,
            resolver: None,
        },
        endings,
    ))
}

impl Lifecycle<'_> {
    fn startup(&mut self) -> Startup<'_> {
        Startup {
            shared: Arc::clone(&self.shared),
            snapshots: self.snapshots.clone(),
            earlier: &self.earlier,
            progress: self.progress,
            tasks: &mut self.tasks,
            resolver: &mut self.resolver,
        }
    }

    /// Waits for what makes a lifecycle end by itself: the directory moved the network.
    async fn watch(&mut self) -> Result<Ending> {
        let mut snapshots = self.snapshots.clone();
        let network = |snapshot: &Option<Arc<Snapshot>>| {
            snapshot
                .as_ref()
                .map(|snapshot| snapshot.parameters.network)
        };
        let first = network(&snapshots.borrow());
        let moved = snapshots
            .wait_for(|snapshot| network(snapshot) != first)
            .await
            .is_ok();
        if moved {
            tracing::warn!("the directory moved the virtual network");
            return Ok(Ending::Restart);
        }
        Err(Error::SnapshotsEnded)
    }

    /// Says goodbye, and puts the host's resolver back. The host stays closed unless it is to be
    /// `open`.
    async fn finish(mut self, open: bool) -> Result<()> {
        let shared = &self.shared;
        // It would take back what is put back now.
        if let Some(resolver) = self.resolver.take() {
            resolver.abort();
        }
        let active = shared.facts().dns.mode;
        shared.update(|facts| facts.phase = Phase::Stopping);
        let restored = host_dns::restore(&shared.host, &active, shared.state.directory());
        shared.update(|facts| {
            facts.dns = DnsStatus {
                mode: Active::Off,
                ..DnsStatus::default()
            }
        });
        // The interface goes with the endpoint's thread.
        let goodbye = tokio::time::timeout(GOODBYE, shared.handle.shutdown()).await;
        self.tasks.shutdown().await;
        let opened = if open { host::release(shared) } else { Ok(()) };
        restored?;
        opened?;
        goodbye.map_err(|_| Error::EndpointHangs)
    }
}
