//! A relay from its start to its end.

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use mixline_daemon::hangup;
use mixline_daemon::reload::Origin;
use mixline_daemon::service_manager;
use mixline_directory_client::{FollowStatus, Following, Known, NetworkClient, follow_settings};
use mixline_protocol::link::InitiationTimes;
use mixline_protocol::random::OsRandom;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::pipeline::Behaviour;
use mixline_relay_engine::queues::WorkerHandle;
use mixline_relay_engine::slow_path::Keys;
use rand_core::Rng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::believed_time::BelievedTime;
use crate::config::Config;
use crate::control::neighbours::Neighbours;
use crate::control::registration::{Registration, Versions};
use crate::control::{Control, ControlStatistics, SharedOnionKeys, tell};
use crate::drain::Departure;
use crate::given_up;
use crate::observe::socket::Desk;
use crate::observe::{PortReport, Source, metrics, socket};
use crate::onion_keys::OnionKeys;
use crate::port::{OpenError, Ports};
use crate::reload::{Offer, Reloader};
use crate::service;
use crate::standing::Standing;
use crate::state_dir::{StateDir, StateError};
use crate::volume::Accounts;
use crate::workers::ControlWaker;
use crate::workers::{Started, Threads};

/// How long a relay waits for its workers when it stops.
const STOP: Duration = Duration::from_secs(3);

/// Why a relay did not start, or not stop in order: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The directory's address in the configuration.
    #[error(transparent)]
    Directory(#[from] mixline_directory_client::Error),
    /// An address to listen on.
    #[error("cannot listen on {address} ({key}): {error}{}", hint(error))]
    Listen {
        /// The key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The control socket.
    #[error("cannot make the control socket {path}: {error}")]
    ControlSocket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The port cannot be opened.
    #[error(transparent)]
    Port(OpenError),
    /// Memory for the replay filter.
    #[error("no memory for replay_memory_mib: {0}; take a smaller value")]
    ReplayMemory(mixline_protocol::Error),
    /// A thread ended, or did not.
    #[error("a part of the relay did not end in order: the next start has new onion keys")]
    Broken,
    /// Threads, signals, and such.
    #[error("cannot {what}: {error}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it: stop that, or take another port",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Runs a relay until SIGTERM or SIGINT; SIGHUP reads the configuration again, if it has an
/// `origin`. `behave` gives each worker its behaviour:
/// [`Honest`](mixline_relay_engine::pipeline::Honest), outside of tests.
///
/// # Errors
/// [`RunError`].
pub fn run<B: Behaviour>(
    config: Config,
    origin: Option<Origin>,
    behave: impl FnMut(usize) -> B,
) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System {
            what: "start the control plane",
            error,
        })?;
    let result = runtime.block_on(async {
        let hangups = hangup::listen().map_err(|error| RunError::System {
            what: "listen to signals",
            error,
        })?;
        let stopped = until_signal()?;
        let relay = Relay::start(config, origin, behave).await?;
        let source = Arc::clone(&relay.source);
        service::wait_for_workers(&source).await;
        service_manager::ready(&service::line(&source.report()));
        tokio::select! {
            () = stopped => {}
            () = relay.broken() => {}
            () = service::show_status(&source) => {}
            () = service::keep_alive(&source) => {}
            () = source.accounts.run(|| source.relayed()) => {}
            () = reload_on(hangups, &relay.reloader) => {}
            () = relay.departure.run(|| source.relayed(), || source.is_withdrawn()) => {}
        }
        service_manager::stopping("sending what there is, and writing the replay memory");
        relay.stop().await
    });
    // A thread that does not end must not keep the process.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

fn listen(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(|error| RunError::System {
        what: "listen to signals",
        error,
    })
}

/// Reads the configuration again at each of these signals. What comes out is in the log.
async fn reload_on(mut signals: Signal, reloader: &Arc<Reloader>) {
    while signals.recv().await.is_some() {
        let _ = reloader.reload().await;
    }
    std::future::pending().await
}

fn until_signal() -> Result<impl Future<Output = ()>, RunError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A relay that runs in the current tokio runtime.
struct Relay {
    stop: watch::Sender<bool>,
    control: tokio::task::JoinHandle<Control>,
    tasks: tokio::task::JoinSet<()>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    handles: Vec<WorkerHandle>,
    state: Arc<StateDir>,
    replay: Arc<ReplayFilter>,
    source: Arc<Source>,
    reloader: Arc<Reloader>,
    departure: Arc<Departure>,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// [`RunError`].
    async fn start<B: Behaviour>(
        config: Config,
        origin: Option<Origin>,
        behave: impl FnMut(usize) -> B,
    ) -> Result<Self, RunError> {
        let started = Instant::now();
        let mut rng = OsRandom::new();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let worker_count = config.worker_count(cores);

        // All that can be refused, before anything is changed.
        NetworkClient::new(&config.network.urls, Known::nothing(config.network.id))?;
        let state = Arc::new(StateDir::open(&config.state_dir)?);
        let known = state.known(config.network.id)?;
        let versions = Arc::new(Versions::new(state.version()?));
        let (identity, link) = state.identity(&mut rng)?;
        let Ports {
            ports,
            sockets,
            filter: xdp,
            kind: port,
            why,
        } = crate::port::open(&config, worker_count).map_err(|error| match error {
            OpenError::Listen(address, error) => RunError::Listen {
                key: "listen",
                address,
                error,
            },
            error => RunError::Port(error),
        })?;
        let metrics = match config.metrics {
            None => None,
            Some(address) => Some((
                address,
                metrics::listen(address)
                    .await
                    .map_err(|error| RunError::Listen {
                        key: "metrics",
                        address,
                        error,
                    })?,
            )),
        };
        let control_socket =
            socket::listen(&config.state_dir).map_err(|error| RunError::ControlSocket {
                path: StateDir::control_socket(&config.state_dir),
                error,
            })?;

        let Memory { onion, replay } = remember(&state, &config, started)?;
        let onion = Arc::new(SharedOnionKeys::new(onion));
        let keys = Arc::new(Keys::default());
        let own = identity.relay_id();
        let waker = Arc::new(ControlWaker::default());
        let threads = Threads {
            cores,
            behave,
            ports,
        };
        let Started {
            workers,
            handles,
            statistics,
            allowance,
            queues,
        } = threads
            .start(
                &config,
                own.short(),
                Arc::clone(&replay),
                &keys,
                Arc::clone(&waker) as _,
                &mut rng,
            )
            .map_err(|error| RunError::System {
                what: "start a thread",
                error,
            })?;

        let (snapshot_sender, snapshots) = watch::channel(None);
        let (follow_sender, follow) = watch::channel(FollowStatus::default());
        let (known_sender, known) = watch::channel(known);
        let (load_sender, load) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let (port_sender, port_report) = watch::channel(PortReport {
            kind: port.into(),
            why: why.clone(),
            check: None,
            queues: Vec::new(),
        });
        let registration_status = Arc::new(Mutex::new(Default::default()));
        let control_statistics = Arc::new(ControlStatistics::default());
        let (standing_sender, standing) = watch::channel(Standing::default());
        let departure = Arc::new(Departure::new(standing_sender.clone(), handles.clone()));
        let offer = watch::Sender::new(Offer::of(&config, worker_count));
        let accounts = Arc::new(Accounts::new(
            Arc::clone(&state),
            allowance,
            handles.clone(),
            standing_sender,
            offer.subscribe(),
        ));
        let source = Arc::new(Source {
            started,
            offer: offer.subscribe(),
            id: own,
            listen: sockets.addresses().collect(),
            port: port_report,
            xdp_filter: xdp.as_ref().map(|(filter, _)| Arc::clone(filter)),
            follow,
            registration: Arc::clone(&registration_status),
            standing: standing.clone(),
            accounts: Arc::clone(&accounts),
            snapshots: snapshots.clone(),
            onion: Arc::clone(&onion),
            control: Arc::clone(&control_statistics),
            workers: statistics.clone(),
            max_paths: config.max_paths,
            replay: Arc::clone(&replay),
            load,
        });
        let registration = Registration {
            identity: Arc::new(identity),
            link: link.clone(),
            offer: offer.subscribe(),
            standing,
            snapshots: snapshots.clone(),
            known: known.clone(),
            onion: Arc::clone(&onion),
            workers: statistics,
            versions,
            state: Arc::clone(&state),
            status: registration_status,
            load: load_sender,
        };
        let families = (
            sockets.reaches(&SocketAddr::from(([0, 0, 0, 0], 0))),
            sockets.reaches(&SocketAddr::from(([0_u16; 8], 0))),
        );
        let mut control = Control {
            neighbours: Neighbours::new(
                link,
                own.short(),
                worker_count,
                families,
                rng,
                Instant::now(),
            ),
            queues,
            waker,
            workers: handles.clone(),
            sockets,
            snapshots: snapshots.clone(),
            onion,
            keys,
            replay: Arc::clone(&replay),
            state: Arc::clone(&state),
            unstored: None,
            statistics: control_statistics,
            time: BelievedTime::default(),
        };
        let times = InitiationTimes::new(state.link_time()?);
        control.neighbours.set_times(times);
        if let Some((filter, _)) = &xdp {
            control.neighbours.set_gate(filter.sessions());
        }
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(follow_settings(
            offer.subscribe(),
            |offer: &Offer| &offer.directories,
            Following {
                snapshots: snapshot_sender,
                known: known_sender,
                status: follow_sender,
            },
        ));
        tasks.spawn(remember_network(Arc::clone(&state), known));
        tasks.spawn(registration.run());
        let reloader = Arc::new(Reloader::new(
            config.clone(),
            origin,
            handles.clone(),
            offer.clone(),
            metrics::place(&source, metrics),
        ));
        let desk = Desk {
            source: Arc::clone(&source),
            reloader: Arc::clone(&reloader),
            departure: Arc::clone(&departure),
        };
        tasks.spawn(socket::serve(control_socket, Arc::new(desk)));
        if let Some((filter, watch)) = xdp {
            tasks.spawn(maintain(filter));
            tasks.spawn(given_up::watch_port(
                watch,
                port_sender,
                handles.clone(),
                offer.subscribe(),
            ));
        }
        let control = tokio::spawn(async move {
            control.run(stopping).await;
            control
        });
        tracing::info!(
            relay = %own.short(),
            listen = ?source.listen,
            workers = worker_count,
            "relay {} is up; port {port}: {why}",
            config.name
        );
        Ok(Self {
            stop,
            control,
            tasks,
            workers,
            handles,
            state,
            replay,
            source,
            reloader,
            departure,
        })
    }

    /// Returns when a part of the relay has ended that should not have.
    async fn broken(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while !self.control.is_finished() && !self.workers.iter().any(JoinHandle::is_finished) {
            ticks.tick().await;
        }
    }

    /// Stops in order: what is under way is sent, neighbours hear of it, and what must not
    /// be forgotten is written.
    ///
    /// # Errors
    /// [`RunError::State`] if it cannot be written, [`RunError::Broken`] if a thread has
    /// failed or does not end; the next start then has new onion keys.
    async fn stop(mut self) -> Result<(), RunError> {
        tracing::info!("stopping");
        self.tasks.shutdown().await;
        let workers = self.workers;
        let handles = self.handles;
        let joined = tokio::task::spawn_blocking(move || {
            handles
                .iter()
                .for_each(|worker| tell(worker, Command::Stop));
            workers
                .into_iter()
                .map(JoinHandle::join)
                .map(|result| match result {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "a worker cannot go on");
                        false
                    }
                    Err(_) => false,
                })
                .fold(true, |all, one| all & one)
        });
        // The control plane goes on until the workers are done, so that none waits for it.
        let in_order = matches!(tokio::time::timeout(STOP, joined).await, Ok(Ok(true)));
        let _ = self.stop.send(true);
        let Ok(mut control) = self.control.await else {
            return Err(RunError::Broken);
        };
        control.close();
        if !in_order {
            return Err(RunError::Broken);
        }
        self.source.accounts.close(self.source.relayed());
        let filter = self.replay.save(Instant::now(), SystemTime::now().into());
        self.state.store_replay_filter(&filter)?;
        self.state.mark_clean()?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Renews the replay filter of the XDP program when its time has come, and passes on what it logs.
async fn maintain(filter: Arc<crate::port::XdpFilter>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        filter.maintain(Instant::now());
    }
}

/// Writes down what is known of the network when that changes, if there is something to go back behind.
async fn remember_network(state: Arc<StateDir>, mut known: watch::Receiver<Known>) {
    while known.changed().await.is_ok() {
        let now = known.borrow_and_update().clone();
        if now.roster().is_some()
            && let Err(error) = state.store_known(&now)
        {
            tracing::warn!("{error}; after a restart an older roster would be believed");
        }
    }
}

/// What a relay knows from its last run.
struct Memory {
    onion: Option<OnionKeys>,
    replay: Arc<ReplayFilter>,
}

/// Onion keys and replay memory of the last run, if it ended in order and both are whole.
/// Otherwise neither.
fn remember(state: &StateDir, config: &Config, now: Instant) -> Result<Memory, RunError> {
    let wall = UnixTime::from(SystemTime::now());
    if state.take_clean()? {
        let filter = state.take_replay_filter()?;
        let filter = filter.and_then(|bytes| ReplayFilter::load(&bytes, now, wall).ok());
        let onion = state.onion_keys()?;
        let onion = onion.and_then(|bytes| OnionKeys::decode(&bytes).ok());
        if let (Some(filter), Some(onion)) = (filter, onion) {
            return Ok(Memory {
                onion: Some(onion),
                replay: Arc::new(filter),
            });
        }
        tracing::info!("no replay memory to go with the onion keys: new ones");
    } else {
        tracing::info!("the last run did not stop in order, or this is the first: new onion keys");
    }
    let mut key = [0; 16];
    OsRandom::new().fill_bytes(&mut key);
    let bytes = config.replay_memory_mib << 19;
    let replay = ReplayFilter::new(bytes, key, now).map_err(RunError::ReplayMemory)?;
    Ok(Memory {
        onion: None,
        replay: Arc::new(replay),
    })
}
