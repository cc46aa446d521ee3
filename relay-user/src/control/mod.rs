//! The control plane: everything that is not done for each datagram. One task owns the
//! neighbours and the onion keys; another registers the relay with the directories.

pub mod handshakes;
mod indices;
mod known_relays;
mod mailboxes;
pub mod neighbour_table;
pub mod neighbours;
pub mod places;
mod prefix;
mod price;
pub mod registration;
pub mod staying;
mod unconfirmed;
pub mod unproven;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::queue::ArrayQueue;
use mixline_protocol::link::probe::Answer;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{CLOCK_SKEW, Snapshot};
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::messages::{Command, Handshake};
use mixline_relay_engine::queues::{ControlQueues, WorkerHandle};
use mixline_relay_engine::slow_path::Keys;
use mixline_relay_engine::wake::Wake as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::believed_time::BelievedTime;
use crate::onion_keys::OnionKeys;
use crate::port::ControlSockets;
use crate::state_dir::StateDir;
use crate::workers::ControlWaker;
use handshakes::WORK_EVERY;
use neighbours::{Census, Neighbours, Output};

/// How long a disk is left alone that did not take the onion keys.
const STORE_AGAIN: Duration = Duration::from_secs(30);
/// How often the control plane looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// Answers to handshakes worked off before each initiation: all that fit into their queue. A forged one costs a
/// look into a table and, under an index in use, one HMAC.
const ANSWERS_AT_ONCE: usize = 256;
/// Initiations that cost public-key work worked off in one round, before anything else: some 10 ms.
const HANDSHAKES_AT_ONCE: usize = 32;
/// Others looked at before each of those: all that fit into their queue. A forged one costs some microseconds, and
/// those that are served in turn must not be lost among them.
const LOOKED_AT: usize = 256;
/// Path probes worked off in the same round: 0.1 ms, so a flood of them delays handshakes by no more.
const PROBES_AT_ONCE: usize = 16;

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
    /// The network's snapshots.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// The slow path's view of them.
    pub keys: Arc<Keys>,
    /// What has been relayed under them.
    pub replay: Arc<ReplayFilter>,
    /// Where they are stored.
    pub state: Arc<StateDir>,
    /// When they could not be stored, if the last time failed.
    pub unstored: Option<Instant>,
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
                () = sleep(WORK_EVERY), if self.neighbours.has_work() => {}
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
        let neighbours = &mut self.neighbours;
        let all = work_off(&self.queues, &mut Counter { neighbours, now });
        self.neighbours.solve(now);
        if !all {
            self.waker.wake();
        }
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
            .filter(|relay| relay.descriptor.alive(now))
            .map(|relay| relay.descriptor.clone())
            .collect();
        self.neighbours.set_relays(&live, Instant::now());
        let parameters = &snapshot.parameters;
        // A message can come back as long as a key opens its path: tried from an epoch before its own, and
        // honoured for its own and the grace.
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
        // What was not stored is stored again, for the sake of a restart.
        if changed
            || self
                .unstored
                .is_some_and(|since| since.elapsed() >= STORE_AGAIN)
        {
            let stored = self.state.store_onion_keys(&onion.encode());
            self.unstored = stored.is_err().then(Instant::now);
            if let Err(error) = stored {
                tracing::warn!("{error}; a restart before that works will need new onion keys");
            }
        }
        if !changed {
            return;
        }
        self.tell_all(&Command::OnionKeys(onion.live()));
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

/// Where handshakes and probes are worked off.
trait Desk {
    /// Takes one; whether it was an initiation that cost public-key work.
    fn take(&mut self, message: &Handshake) -> bool;
    /// Serves one of the initiations that wait, if there is one whose turn it is; whether it did.
    fn serve(&mut self) -> bool;
}

/// The neighbours, at a moment.
struct Counter<'a> {
    neighbours: &'a mut Neighbours<OsRandom>,
    now: Instant,
}

impl Desk for Counter<'_> {
    fn take(&mut self, message: &Handshake) -> bool {
        let Self { neighbours, now } = self;
        neighbours.handshake(&message.datagram, message.source, *now)
    }

    fn serve(&mut self) -> bool {
        self.neighbours.serve(self.now)
    }
}

/// Takes a round of handshakes and probes; whether those were all. Answers come before each initiation, which
/// costs a hundred times as much: their queue must not fill with forged ones while initiations are worked off.
fn work_off(queues: &ControlQueues, desk: &mut impl Desk) -> bool {
    let ControlQueues {
        answers,
        handshakes,
        probes,
        ..
    } = queues;
    take(answers, ANSWERS_AT_ONCE, desk);
    for _ in 0..HANDSHAKES_AT_ONCE {
        let look = |_| take(handshakes, 1, desk);
        let costly = (0..LOOKED_AT).map(look).find(|took| *took != Took::Cheap);
        if costly != Some(Took::Costly) && !desk.serve() {
            break;
        }
        take(answers, ANSWERS_AT_ONCE, desk);
    }
    take(probes, PROBES_AT_ONCE, desk);
    answers.is_empty() && handshakes.is_empty() && probes.is_empty()
}

/// What became of some messages of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    /// There were none.
    Nothing,
    /// None cost public-key work.
    Cheap,
    /// One did.
    Costly,
}

/// Takes so many messages at most.
fn take(queue: &ArrayQueue<Handshake>, at_once: usize, desk: &mut impl Desk) -> Took {
    let mut took = Took::Nothing;
    for message in std::iter::from_fn(|| queue.pop()).take(at_once) {
        let costly = desk.take(&message);
        took = if costly { Took::Costly } else { Took::Cheap };
    }
    took
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mixline_protocol::identity::ShortId;
    use mixline_protocol::size::DATAGRAM;
    use mixline_relay_engine::pipeline::{Assembly, Common};
    use mixline_relay_engine::testing::{ANSWERS, HANDSHAKES, RELAYS_HANDSHAKES, pooled};
    use mixline_relay_engine::wake::NeverSleeps;

    use super::*;

    #[test]
    fn forged_answers_keep_the_right_one_out_of_no_queue_while_initiations_are_worked_off() {
        const INITIATION: u8 = 1;
        const FORGED: u8 = 2;
        const RIGHT: u8 = 3;
        let filter = ReplayFilter::new(1 << 12, [1; 16], Instant::now()).unwrap();
        let waker = Arc::new(NeverSleeps);
        let Assembly { common, .. } =
            Common::assemble(ShortId([1; 8]), Arc::new(filter), 1, false, waker);
        let queues = &common.control;
        let push = |queue: &ArrayQueue<Handshake>, what| {
            let message = Handshake {
                datagram: pooled(&common, &[what; DATAGRAM]).unwrap(),
                source: SocketAddr::from(([192, 0, 2, 1], 7000)),
                place: None,
            };
            queue.push(message).is_ok()
        };
        while push(&queues.handshakes, INITIATION) {}
        let initiations = HANDSHAKES + RELAYS_HANDSHAKES;
        assert_eq!(queues.handshakes.len(), initiations);
        struct Fake<P> {
            push: P,
            worked: usize,
            right: usize,
        }
        impl<P: Fn(u8) -> bool> Desk for Fake<P> {
            fn take(&mut self, message: &Handshake) -> bool {
                match message.datagram[0] {
                    INITIATION => {
                        // What comes meanwhile.
                        self.worked += 1;
                        let after = self.worked;
                        for _ in 1..ANSWERS {
                            assert!((self.push)(FORGED), "after {after} initiations");
                        }
                        assert!((self.push)(RIGHT), "after {after} initiations");
                        true
                    }
                    what => {
                        self.right += usize::from(what == RIGHT);
                        false
                    }
                }
            }

            fn serve(&mut self) -> bool {
                false
            }
        }
        let mut desk = Fake {
            push: |what| push(&queues.answers, what),
            worked: 0,
            right: 0,
        };
        let mut rounds = 1;
        while !work_off(queues, &mut desk) {
            rounds += 1;
        }
        assert_eq!((desk.worked, desk.right), (initiations, initiations));
        assert_eq!(rounds, initiations / HANDSHAKES_AT_ONCE);
    }
}
