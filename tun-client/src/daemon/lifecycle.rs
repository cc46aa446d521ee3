//! One life of the interface and the endpoint behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mixline_directory_client::{DirectoryClient, FollowStatus};
use mixline_endpoint::{Endpoint, Handle};
use mixline_protocol::address::{self, VirtualNetwork};
use mixline_protocol::records::{Lease, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::backend::EndpointBackend;
use super::names::{Names, Standing};
use super::control_requests::Orders;
use super::status::{self, DnsStatus, Phase, Problems};
use super::{End, StopSignals, lease};
use crate::config::{Accept, Config, DNS_PORT, DnsMode};
use crate::control;
use crate::dns::forward::Forwarder;
use crate::dns::responder::{Families, Responder};
use crate::dns::server::Server as DnsServer;
use crate::dns::zone::{Zone, is_virtual};
use crate::host_dns::{self, Active, Earlier, Host};
use crate::net::interface::Interface;
use crate::progress::Progress;
use crate::state::State;
use crate::tun::device::Tun;
use crate::{Error, Result};

/// How long peers, guards and the directory are given to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(8);
/// While a step takes long, what holds it up is told this often.
const REMIND: Duration = Duration::from_secs(10);

/// What the tasks of a session share.
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
    /// How the snapshot is got.
    pub follow: watch::Receiver<FollowStatus>,
    /// How the session is to end.
    pub orders: mpsc::Sender<End>,
    interface: Mutex<Interface>,
    facts: Mutex<Facts>,
    problems: Mutex<Problems>,
}

/// Where the session stands.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it is doing.
    pub phase: Phase,
    /// The step it is at.
    pub step: String,
    /// How `.anon` is found.
    pub dns: DnsStatus,
}

impl Shared {
    /// Where the session stands.
    #[must_use]
    pub fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    /// What is wrong; not to be held across a wait.
    pub fn problems(&self) -> MutexGuard<'_, Problems> {
        lock(&self.problems)
    }

    /// The interface; not to be held across a wait.
    pub fn interface(&self) -> MutexGuard<'_, Interface> {
        lock(&self.interface)
    }

    fn set(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.facts));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// A session and what keeps it going.
struct Session<'a> {
    shared: Arc<Shared>,
    snapshots: Snapshots,
    earlier: Earlier,
    progress: &'a Progress,
    tasks: JoinSet<()>,
}

/// Runs one session.
///
/// # Errors
/// What keeps it from starting, or made it stop; the host is as before then.
pub async fn run(
    config: &Config,
    host: &Host,
    state: &Arc<State>,
    signals: &mut StopSignals,
    progress: &Progress,
) -> Result<End> {
    let (mut session, mut orders) = begin(config, host, state, progress)?;
    let shared = Arc::clone(&session.shared);
    let working = async {
        session.start().await?;
        session.watch().await
    };
    let result = tokio::select! {
        result = working => result,
        () = signals.wait() => Ok(End::Stop),
        Some(end) = orders.recv() => Ok(end),
        error = shared.handle.stopped() => Err(Error::Stopped {
            reason: error.map_or_else(|| "the endpoint stopped".to_owned(), |e| e.to_string()),
        }),
    };
    let left = session.finish().await;
    match (result, left) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(end), Ok(())) => Ok(end),
    }
}

/// Makes everything that can be made without the network; what fails here fails at once.
fn begin<'a>(
    config: &Config,
    host: &Host,
    state: &Arc<State>,
    progress: &'a Progress,
) -> Result<(Session<'a>, mpsc::Receiver<End>)> {
    let identity = state.identity()?;
    let names = Arc::new(Names::load(&config.publish, Arc::clone(state))?);
    let earlier = match host_dns::recover(host, state.directory()) {
        Err(error) if config.dns.mode == DnsMode::Off => {
            tracing::debug!(%error, "the host's resolver is left alone");
            Earlier::default()
        }
        earlier => earlier?,
    };
    let directory =
        DirectoryClient::new(&config.directory.url, config.directory.id).map_err(|error| {
            Error::Directory {
                reason: error.to_string(),
            }
        })?;
    let control = control::server::Server::bind(&config.control_socket())?;

    let tun = Tun::create(&config.interface, config.mtu)?;
    let interface = Interface::find(&config.interface)?;
    let accepting = match config.accept {
        Accept::Always => true,
        Accept::Published => !names.is_empty(),
        Accept::Never => false,
    };
    let mut settings = mixline_endpoint::Config::new(config.state_dir.clone());
    settings.policies.clone_from(&config.policies);
    settings.accept_sessions = accepting;
    settings.publish = accepting;
    settings.mtu = config.mtu;
    let (snapshot_sender, snapshots) = watch::channel(None);
    let handle = Endpoint::start(
        settings,
        identity,
        snapshots.clone(),
        tun.into_device(),
        None,
    )?;

    let (lease, own_lease) = watch::channel(None);
    let backend = EndpointBackend::new(handle.clone(), own_lease, names.held());
    let (follow_sender, follow) = watch::channel(FollowStatus::default());
    let (orders, order_queue) = mpsc::channel(4);
    let shared = Arc::new(Shared {
        config: config.clone(),
        host: host.clone(),
        state: Arc::clone(state),
        handle,
        accepting,
        names,
        lease,
        backend: Arc::new(backend),
        follow,
        orders,
        interface: Mutex::new(interface),
        facts: Mutex::new(Facts {
            phase: Phase::Starting,
            step: String::new(),
            dns: DnsStatus::default(),
        }),
        problems: Mutex::new(Problems::default()),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(directory.follow(snapshot_sender, follow_sender));
    tasks.spawn(control.serve(Arc::new(Orders(Arc::clone(&shared)))));
    Ok((
        Session {
            shared,
            snapshots,
            earlier,
            progress,
            tasks,
        },
        order_queue,
    ))
}

impl Session<'_> {
    /// All steps until applications can use the interface. What the network holds up is
    /// waited for, visibly; what cannot become better is an error.
    async fn start(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let url = &shared.config.directory.url;
        self.step(&format!("fetching the snapshot from {url}"));
        let mut snapshots = self.snapshots.clone();
        let network = self
            .patiently(async move {
                let snapshot = snapshots.wait_for(Option::is_some).await;
                snapshot
                    .ok()
                    .and_then(|s| s.as_ref().map(|s| s.parameters.network))
            })
            .await
            .unwrap_or_default();

        self.step(&format!("setting up {}", shared.config.interface));
        let families = self.configure_interface(&network)?;

        self.step("connecting to guards");
        let mut online = shared.handle.online();
        let _ = self
            .patiently(async move { online.wait_for(|up| *up).await.map(|_| ()) })
            .await;

        self.lease(&network).await?;
        self.dns(&network, families).await?;
        self.publish().await;

        shared.set(|facts| {
            facts.phase = Phase::Up;
            facts.step.clear();
        });
        self.progress.step(&self.summary());
        self.progress.ready();
        Ok(())
    }

    fn configure_interface(&self, network: &VirtualNetwork) -> Result<Families> {
        let shared = &self.shared;
        let mut interface = shared.interface();
        let mut warnings = interface.conflicts(network)?;
        warnings.extend(self.underlay_conflict(network));
        let own = address::ipv6(&shared.handle.id());
        let (families, warning) = interface.configure(network, own)?;
        warnings.extend(warning);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        shared.problems().interface = warnings;
        Ok(families)
    }

    /// Relays whose own addresses lie in the virtual network cannot be reached once that
    /// is routed into the tunnel.
    fn underlay_conflict(&self, network: &VirtualNetwork) -> Option<String> {
        let snapshot = self.snapshots.borrow();
        let relays = &snapshot.as_ref()?.relays;
        let hidden = relays.iter().filter(|relay| {
            relay
                .addresses
                .iter()
                .all(|address| is_virtual(network, address.ip()))
        });
        let count = hidden.count();
        (count > 0).then(|| {
            format!(
                "{count} of {} relays have no address outside {network} and cannot be used",
                relays.len()
            )
        })
    }

    /// Takes up the kept lease, or waits for one; renews it from then on.
    async fn lease(&mut self, network: &VirtualNetwork) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (id, directory) = (shared.handle.id(), shared.config.directory.id);
        let kept = lease::usable(shared.state.lease(), id, &directory, network, status::now());
        if let Some(kept) = kept {
            lease::adopt(&shared, kept)?;
            shared.handle.set_lease(kept).await;
        }
        self.tasks.spawn(lease::keep(Arc::clone(&shared)));
        if kept.is_none() {
            self.step("leasing an address");
            let mut lease = shared.lease.subscribe();
            let _ = self
                .patiently(async move { lease.wait_for(Option::is_some).await.map(|_| ()) })
                .await;
        }
        Ok(())
    }

    async fn dns(&mut self, network: &VirtualNetwork, families: Families) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (config, resolver) = (&shared.config, network.resolver());
        self.step(&format!("answering names at {resolver}"));
        let upstreams = host_dns::upstreams(&config.dns, &self.earlier, resolver);
        let mut problem = upstream_problem(network, &upstreams);
        let forwarder = Forwarder::new(&upstreams);
        let zone = Zone::new(*network, &self.earlier.search);
        let backend = Arc::clone(&shared.backend);
        let responder = Arc::new(Responder::new(backend, zone, families, forwarder));
        let address = SocketAddr::new(IpAddr::V4(resolver), DNS_PORT);
        let listening = match DnsServer::bind(address, &config.interface).await {
            Ok(server) => {
                self.tasks.spawn(server.serve(responder));
                true
            }
            Err(source) if config.dns.mode == DnsMode::Off => {
                problem = Some(Error::DnsListen { address, source }.to_string());
                false
            }
            Err(source) => return Err(Error::DnsListen { address, source }),
        };
        let (mode, warning) = host_dns::apply(
            &shared.host,
            config.dns.mode,
            shared.state.directory(),
            &config.interface,
            resolver,
            network,
        )
        .await?;
        shared.set(|facts| {
            facts.dns = DnsStatus {
                mode,
                resolver: listening.then_some(resolver),
                upstream: upstreams
                    .iter()
                    .map(|server| server.ip().to_string())
                    .collect(),
            };
        });
        let problem = warning.or(problem);
        if let Some(problem) = &problem {
            tracing::warn!("{problem}");
        }
        shared.problems().dns = problem;
        Ok(())
    }

    /// Claims the names, once; what fails is tried again in the background.
    async fn publish(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.accepting {
            self.step("publishing where this service is reached");
            let directory = shared.handle.directory();
            if let Err(error) = self
                .patiently(async move { directory.publish().await })
                .await
            {
                tracing::warn!("not published yet: {error}");
            }
        }
        if !shared.names.is_empty() {
            self.step("claiming names");
            let (names, directory) = (Arc::clone(&shared.names), shared.handle.directory());
            self.patiently(async move { names.claim_due(&directory).await })
                .await;
        }
        // It may get its first name by command.
        self.tasks
            .spawn(Arc::clone(&shared.names).keep(shared.handle.directory()));
    }

    /// Waits for what makes a session end by itself: the directory moved the network.
    async fn watch(&mut self) -> Result<End> {
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
            return Ok(End::Restart);
        }
        Err(Error::Stopped {
            reason: "snapshots are no longer fetched".to_owned(),
        })
    }

    /// Puts the host back and says goodbye.
    async fn finish(mut self) -> Result<()> {
        let shared = &self.shared;
        let active = shared.facts().dns.mode;
        shared.set(|facts| facts.phase = Phase::Stopping);
        let restored = host_dns::restore(
            &shared.host,
            &active,
            shared.state.directory(),
            &shared.config.interface,
        );
        let restored = restored.await;
        shared.set(|facts| {
            facts.dns = DnsStatus {
                mode: Active::Off,
                ..DnsStatus::default()
            }
        });
        // The interface goes with the endpoint's thread.
        let goodbye = tokio::time::timeout(GOODBYE, shared.handle.shutdown()).await;
        self.tasks.shutdown().await;
        restored?;
        goodbye.map_err(|_| Error::Stopped {
            reason: "the endpoint did not stop in time".to_owned(),
        })
    }

    fn step(&self, text: &str) {
        self.shared.set(|facts| text.clone_into(&mut facts.step));
        self.progress.step(text);
    }

    /// Waits for something, and tells what holds it up while it takes long.
    async fn patiently<T>(&self, waiting: impl Future<Output = T>) -> T {
        tokio::pin!(waiting);
        loop {
            match tokio::time::timeout(REMIND, &mut waiting).await {
                Ok(done) => return done,
                Err(_) => {
                    let status = status::collect(&self.shared).await;
                    let why = status
                        .endpoint
                        .problems
                        .first()
                        .map(|problem| format!(": {problem}"));
                    self.progress.step(&format!(
                        "still {}{}",
                        status.step,
                        why.unwrap_or_default()
                    ));
                }
            }
        }
    }

    fn summary(&self) -> String {
        let shared = &self.shared;
        let id = shared.handle.id();
        let ipv4 = shared
            .lease
            .borrow()
            .as_ref()
            .map(|lease| format!("{} and ", lease.ipv4));
        let names: Vec<String> = shared
            .names
            .list()
            .into_iter()
            .filter(|name| name.standing == Standing::Published)
            .map(|name| name.name)
            .collect();
        let mut line = format!(
            "up on {} as {}, {}{}; .anon names through {}",
            shared.config.interface,
            id.host(),
            ipv4.unwrap_or_default(),
            address::ipv6(&id),
            shared.facts().dns.mode,
        );
        if !names.is_empty() {
            line += &format!("; serving {}", names.join(", "));
        }
        line
    }
}

/// Servers for other domains that would be looked for inside the virtual network.
fn upstream_problem(network: &VirtualNetwork, upstreams: &[SocketAddr]) -> Option<String> {
    let inside: Vec<String> = upstreams
        .iter()
        .filter(|server| is_virtual(network, server.ip()))
        .map(|server| server.ip().to_string())
        .collect();
    (!inside.is_empty()).then(|| {
        format!(
            "the name server {} lies in {network}: it is reached only if the host has a route of \
             its own to it; name others under `dns: {{upstream: [...]}}`",
            inside.join(", ")
        )
    })
}
