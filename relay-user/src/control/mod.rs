//! The control plane: everything that is not done for each datagram. One task owns the
//! neighbours and the onion keys; another registers the relay with the directory.

mod handshakes;
mod indices;
mod known_relays;
mod mailboxes;
pub mod neighbour_table;
pub mod neighbours;
mod prefix;
pub mod registration;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::link::probe::Answer;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{CLOCK_SKEW, Snapshot};
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::queues::{ControlQueues, WorkerHandle};
use mixline_relay_engine::slow_path::Keys;
use mixline_relay_engine::wake::Wake as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::believed_time::BelievedTime;
use crate::onion_keys::OnionKeys;
use crate::port::ControlSockets;
use crate::state_dir::StateDir;
use crate::workers::ControlWaker;
use neighbours::{Census, Neighbours, Output};

/// How often the control plane looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// Handshakes worked off in one round, before anything else: some 10 ms.
const HANDSHAKES_AT_ONCE: usize = 32;

/// Onion keys, which two tasks look at; none before the network's parameters are known.
#[derive(Default)]
pub struct SharedOnionKeys(Mutex<Option<OnionKeys>>);

impl SharedOnionKeys {
    /// With keys from an earlier run, if there are any.
    #[must_use]
    pub fn new(keys: Option<OnionKeys>) -> Self {
        Self(Mutex::new(keys))
    }

    /// The keys, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, Option<OnionKeys>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the control plane shows of itself.
#[derive(Debug, Default)]
pub struct ControlStatistics {
    census: Mutex<Census>,
    ticks: AtomicU64,
}

impl ControlStatistics {
    /// How many neighbours and mailboxes there are.
    #[must_use]
    pub fn census(&self) -> Census {
        *self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it has looked at the time: once a second, as long as it lives.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    fn show(&self, census: Census) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        *self.census.lock().unwrap_or_else(PoisonError::into_inner) = census;
    }
}

/// The task that owns the neighbours.
pub struct Control {
    /// All neighbours.
    pub neighbours: Neighbours<OsRandom>,
    /// What workers have for the control plane.
    pub queues: Arc<ControlQueues>,
    /// Wakes this task when something was added to them.
    pub waker: Arc<ControlWaker>,
    /// The workers.
    pub workers: Vec<WorkerHandle>,
    /// Where to send from.
    pub sockets: ControlSockets,
    /// The directory's snapshots.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// The slow path's view of them.
    pub keys: Arc<Keys>,
    /// What has been relayed under them.
    pub replay: Arc<ReplayFilter>,
    /// Where they are stored.
    pub state: Arc<StateDir>,
    /// What is shown.
    pub statistics: Arc<ControlStatistics>,
    /// The time by which onion keys are made and erased.
    pub time: BelievedTime,
}

impl Control {
    /// Works until `stop` says so.
    pub async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        let waker = Arc::clone(&self.waker);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = waker.woken() => {}
                _ = ticks.tick() => self.tick(),
                Ok(()) = self.snapshots.changed() => self.take_snapshot(),
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.read_queues();
            self.flush();
        }
    }

    /// Tells the neighbours that the relay goes. The workers have stopped.
    pub fn close(&mut self) {
        self.neighbours.close_all(Instant::now());
        self.flush();
    }

    fn read_queues(&mut self) {
        let now = Instant::now();
        // These are cheap, and bounded by their queues.
        for _ in 0..self.queues.signals.len() {
            let Some(signal) = self.queues.signals.pop() else {
                break;
            };
            self.neighbours.signal(signal, now);
        }
        for _ in 0..self.queues.messages.len() {
            let Some(mut message) = self.queues.messages.pop() else {
                break;
            };
            self.neighbours
                .message(message.index, &mut message.datagram, now);
        }
        for _ in 0..HANDSHAKES_AT_ONCE {
            let Some(handshake) = self.queues.handshakes.pop() else {
                return;
            };
            self.neighbours
                .handshake(&handshake.datagram, handshake.source, now);
        }
        self.waker.wake();
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.neighbours.tick(now);
        self.replay.rotate(now);
        self.advance_onion_keys();
        self.statistics.show(self.neighbours.census());
    }

    fn take_snapshot(&mut self) {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else {
            return;
        };
        let now = UnixTime::from(SystemTime::now());
        let live: Vec<_> = snapshot
            .relays
            .iter()
            .filter(|r| r.alive(now))
            .cloned()
            .collect();
        self.neighbours.set_relays(&live);
        let parameters = &snapshot.parameters;
        // A message can come back as long as a key opens its path: published an epoch
        // early, and honoured for an epoch and the grace.
        let life = u64::from(parameters.epoch_seconds) * 2 + u64::from(parameters.grace_seconds);
        self.replay.set_life(Duration::from_secs(life));
        let changed = self
            .onion
            .lock()
            .get_or_insert_with(|| OnionKeys::new(parameters))
            .set_parameters(parameters);
        if changed {
            tracing::warn!(
                epoch_seconds = parameters.epoch_seconds,
                "the network's epochs have another length: all onion keys are new"
            );
        }
        self.advance_onion_keys();
    }

    /// Makes and erases onion keys as time goes.
    fn advance_onion_keys(&mut self) {
        let snapshot = self.snapshots.borrow().clone();
        let valid =
            snapshot.map(|snapshot| snapshot.issued.minus(CLOCK_SKEW)..snapshot.valid_until);
        let now = self
            .time
            .believed(SystemTime::now().into(), Instant::now(), valid.as_ref());
        let mut guard = self.onion.lock();
        let Some(onion) = guard.as_mut() else { return };
        let changed = onion.advance(now, &mut OsRandom::new());
        self.keys.set(onion.keyring(now));
        if !changed {
            return;
        }
        if let Err(error) = self.state.store_onion_keys(&onion.encode()) {
            tracing::warn!("{error}; a restart will need new onion keys");
        }
        if let Some(oldest) = onion.oldest() {
            self.tell_all(&Command::ForgetEpochsBefore(oldest));
        }
        tracing::info!(epochs = ?onion.epochs().collect::<Vec<_>>(), "onion keys");
    }

    fn flush(&mut self) {
        if let Some(seconds) = self.neighbours.time_to_store()
            && let Err(error) = self.state.store_link_time(seconds)
        {
            tracing::warn!("{error}; after a restart with a slow clock, relays may refuse links");
        }
        for output in self.neighbours.take_output() {
            match output {
                Output::One(worker, command) => {
                    if let Some(worker) = self.workers.get(worker) {
                        tell(worker, command);
                    }
                }
                Output::All(command) => self.tell_all(&command),
                Output::Send(datagram, to) => self.sockets.send(&datagram, to),
                Output::Answer(Answer { bytes, to }) => self.sockets.send_short(&bytes, to),
            }
        }
    }

    fn tell_all(&self, command: &Command) {
        for worker in &self.workers {
            tell(worker, command.clone());
        }
    }
}

/// Gives a worker a command; waits for room, which a worker soon makes. One that has ended
/// needs none.
pub fn tell(worker: &WorkerHandle, command: Command) {
    if let Err(crossbeam::channel::TrySendError::Full(command)) = worker.commands.try_send(command)
    {
        worker.waker.wake();
        let _ = worker.commands.send(command);
    }
    worker.waker.wake();
}
