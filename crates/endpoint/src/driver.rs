//! The engine's thread: sockets, device, clock, commands.
//!
//! One thread does everything, so that no packet crosses from one to another. The device is not
//! read while the sockets are blocked: anyone who sends too much through the interface is
//! slowed down by it, and nothing piles up here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mixline_protocol::identity::{AnonymousId, ShortId};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::Snapshot;
use rand_core::Rng;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Config;
use crate::device::PacketDevice;
use crate::diagnosis::Diagnosis;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::requests::{Request, Requests, Waiting};
use crate::service::MessageService;
use crate::sockets::{Bound, Port, Sockets};
use crate::state::{Kept, StateDir, Storing};
use crate::ways::Ways;
use mixline_endpoint_engine::clock::Now;
use mixline_endpoint_engine::command::Command;
use mixline_endpoint_engine::engine::Engine;
use mixline_endpoint_engine::{
    Event, Families, Identity, PacketBatch, PathFinding, SearchTask, SessionKey,
};

/// Events that a slow listener can catch up with.
const EVENTS: usize = 256;
/// Messages that the service answers at the same time.
const ANSWERING: usize = 32;
/// How often the ways to the guards are looked at, should the kernel announce nothing ...
const WAYS_EVERY: Duration = Duration::from_secs(10);
/// ... and how long after an announcement: changes come in groups. A neighbour that announces routers
/// has guards reached anew once in this rest.
const WAYS_AFTER: Duration = Duration::from_millis(50);
const WAYS_REST: Duration = Duration::from_secs(1);

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;
type Answer = (SessionKey, Vec<u8>);

/// The anonymous communication stack.
pub struct Endpoint;

impl Endpoint {
    /// Starts an endpoint on a thread of its own.
    ///
    /// It follows `snapshots` (verified ones; `None` until the first is there), moves packets
    /// between `device` and the peers, and answers messages by `service` if there is one. It
    /// runs until [`Handle::shutdown`], or until the last handle is dropped, or the device
    /// fails.
    ///
    /// # Errors
    /// A wrong configuration, an unusable state directory, no socket, no thread.
    pub fn start<D: PacketDevice>(
        config: Config,
        identity: Identity,
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        device: D,
        service: Option<Arc<dyn MessageService>>,
    ) -> Result<Handle> {
        config.engine.check()?;
        let state = StateDir::open(&config.state_dir)?;
        let guards = state.load_guards(config.engine.guards)?;
        let own_versions = state.load_own_versions()?;
        let sockets = Bound::new()?;
        let mut seed = Zeroizing::new([0; 32]);
        OsRandom::new().fill_bytes(seed.as_mut());

        let id = identity.key.anonymous_id();
        let (requests, request_queue) = Requests::new();
        let (events, _) = broadcast::channel(EVENTS);
        let (descriptor_sender, descriptor) = watch::channel(None);
        let (online_sender, online) = watch::channel(false);
        let (stopped_sender, stopped) = watch::channel(None);
        let handle = Handle {
            id,
            requests,
            events: events.clone(),
            descriptor,
            online,
            stopped,
        };

        let families = Families { v4: true, v6: true };
        let mut clock = Clock::new();
        let mut engine = Engine::new(
            config.engine,
            identity,
            guards,
            families,
            service.is_some(),
            *seed,
            clock.now(),
        );
        engine.set_own_versions(own_versions);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        std::thread::Builder::new()
            .name("mixline-endpoint".into())
            .spawn(move || {
                let result = runtime.block_on(async {
                    let driver = Driver {
                        id,
                        clock,
                        ways: Ways::new(),
                        diagnosis: Diagnosis::default(),
                        engine,
                        sockets: sockets.register()?,
                        device,
                        state,
                        storing_versions: Storing::of(Kept::OwnVersions),
                        storing_guards: Storing::of(Kept::Guards),
                        events,
                        descriptor: descriptor_sender,
                        online: online_sender,
                        service,
                        waiting: Waiting::default(),
                        answering: 0,
                        searching: false,
                        packets: PacketBatch::new(),
                        next_packet: 0,
                    };
                    driver.run(snapshots, request_queue).await
                });
                let error = result.err().map(Arc::new);
                if let Some(error) = &error {
                    tracing::error!(%error, "the endpoint stops");
                }
                stopped_sender.send_replace(Some(error));
                runtime.shutdown_background();
            })
            .map_err(Error::Thread)?;
        Ok(handle)
    }
}

struct Driver<D> {
    id: AnonymousId,
    clock: Clock,
    ways: Ways,
    diagnosis: Diagnosis,
    engine: Engine,
    sockets: Sockets,
    device: D,
    state: StateDir,
    storing_versions: Storing,
    storing_guards: Storing,
    events: broadcast::Sender<Event>,
    descriptor: watch::Sender<Option<Arc<mixline_protocol::records::ServiceDescriptor>>>,
    online: watch::Sender<bool>,
    service: Option<Arc<dyn MessageService>>,
    /// Who waits for which answer of the engine.
    waiting: Waiting,
    /// Messages that the service is answering.
    answering: usize,
    /// Whether another thread goes on with a search of the engine's.
    searching: bool,
    /// From the device, and which of them comes next.
    packets: PacketBatch,
    next_packet: usize,
}

/// What the driver has waited for.
enum Woken {
    Timeout,
    Readable { v4: bool },
    Writable,
    Announced,
    Found(ShortId, PathFinding),
    Packets(io::Result<()>),
    Request(Option<Request>),
    Snapshot(bool),
    Answer(Answer),
    Searched(Box<SearchTask>),
}

impl<D: PacketDevice> Driver<D> {
    async fn run(
        mut self,
        mut snapshots: Snapshots,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<()> {
        self.device.attach().map_err(Error::Device)?;
        let (answers_sender, mut answers) = mpsc::channel::<Answer>(ANSWERING);
        let (searched_sender, mut searched) = mpsc::channel::<Box<SearchTask>>(1);
        let mut ways_due = Instant::now();
        let mut rest_until = ways_due;
        let mut requests_open = true;
        let mut snapshots_open = true;
        snapshots.mark_changed();
        loop {
            self.send();
            self.deliver().await?;
            self.report(&answers_sender);
            self.search(&searched_sender);
            let now = self.clock.now();
            if self.engine.is_stopped(now) {
                self.send();
                return self.deliver().await;
            }
            let blocked = self.sockets.is_blocked();
            if self.next_packet < self.packets.len() && !blocked {
                self.next_packet = self
                    .engine
                    .handle_packets(&self.packets, self.next_packet, now);
                self.engine.finish_batch(now);
                continue;
            }
            let room = self.next_packet >= self.packets.len() && !blocked;
            if room {
                self.packets.clear();
                self.next_packet = 0;
            }
            let timeout = self.clock.timer(self.engine.next_timeout(now));
            let timeout = Instant::from_std(timeout).min(ways_due);
            let (v4, v6) = (self.sockets.v4.as_ref(), self.sockets.v6.as_ref());
            let woken = tokio::select! {
                () = tokio::time::sleep_until(timeout) => Woken::Timeout,
                () = readable(v4) => Woken::Readable { v4: true },
                () = readable(v6) => Woken::Readable { v4: false },
                () = writable(v4, v6), if blocked => Woken::Writable,
                result = self.device.receive(&mut self.packets), if room => Woken::Packets(result),
                () = self.ways.announced() => Woken::Announced,
                (guard, finding) = self.diagnosis.found() => Woken::Found(guard, finding),
                request = requests.recv(), if requests_open => Woken::Request(request),
                changed = snapshots.changed(), if snapshots_open => Woken::Snapshot(changed.is_ok()),
                Some(answer) = answers.recv() => Woken::Answer(answer),
                Some(task) = searched.recv() => Woken::Searched(task),
            };
            let now = self.clock.now();
            match woken {
                Woken::Timeout => {
                    self.engine.handle_timeout(now);
                    let silent = self.engine.silent_guards(now);
                    self.diagnosis.look(silent, now.instant);
                }
                Woken::Found(guard, finding) => {
                    if finding.is_narrow() {
                        // Which guard it is, only the status says.
                        tracing::warn!("the path to a guard is too narrow for datagrams");
                    }
                    self.engine.handle_finding(&guard, finding);
                }
                Woken::Readable { v4 } => self.receive(v4, now).await?,
                Woken::Writable => {}
                Woken::Announced => ways_due = ways_due.min(Instant::now() + WAYS_AFTER),
                Woken::Packets(result) => {
                    result.map_err(Error::Device)?;
                    self.next_packet = self.engine.handle_packets(&self.packets, 0, now);
                    self.engine.finish_batch(now);
                }
                Woken::Request(Some(request)) => {
                    let command = match request {
                        Request::Command(command) => command,
                        Request::Question(question, sender) => {
                            Command::Ask(self.waiting.add(sender), question)
                        }
                    };
                    self.engine.handle_command(command, now);
                    self.engine.finish_batch(now);
                }
                Woken::Request(None) => {
                    // The last handle is gone.
                    requests_open = false;
                    self.engine.shut_down(now);
                    self.engine.finish_batch(now);
                }
                Woken::Snapshot(open) => {
                    snapshots_open = open;
                    let snapshot = snapshots.borrow_and_update().clone();
                    if let Some(snapshot) = snapshot {
                        self.engine.set_families(self.sockets.families(&snapshot));
                        self.engine.handle_snapshot(snapshot, now);
                    }
                }
                Woken::Answer((session, message)) => {
                    self.answering -= 1;
                    self.engine.respond(session, &message, now);
                    self.engine.finish_batch(now);
                }
                Woken::Searched(task) => {
                    self.searching = false;
                    self.engine.handle_searched(*task, now);
                    self.engine.finish_batch(now);
                }
            }
            ways_due = ways_due.max(rest_until);
            if Instant::now() >= ways_due {
                ways_due = Instant::now() + WAYS_EVERY;
                let snapshot = snapshots.borrow().clone();
                if let Some(snapshot) = snapshot {
                    self.engine.set_families(self.sockets.families(&snapshot));
                }
                if self.ways.have_changed(self.engine.guard_addresses()) {
                    rest_until = Instant::now() + WAYS_REST;
                    tracing::info!("the way to the guards has changed: they are reached anew");
                    self.diagnosis.forget();
                    self.engine.host_changed(now);
                    self.engine.finish_batch(now);
                }
            }
        }
    }

    /// Has another thread go on with a search of the engine's: one at a time, so that solving puzzles of others
    /// takes one core at most.
    fn search(&mut self, searched: &mpsc::Sender<Box<SearchTask>>) {
        if self.searching {
            return;
        }
        let Some(mut task) = self.engine.next_search().map(Box::new) else {
            return;
        };
        let searched = searched.clone();
        self.searching = true;
        tokio::task::spawn_blocking(move || {
            task.go_on();
            // The driver receives as long as it runs.
            let _ = searched.blocking_send(task);
        });
    }

    /// Sends what there is; what a restart has to know of it is stored before.
    fn send(&mut self) {
        let now = self.clock.now().instant;
        let text = || self.engine.own_versions_to_store();
        if self.storing_versions.store(&self.state, text, now) {
            self.engine.own_versions_stored();
        }
        self.sockets.send(self.engine.outbox());
    }

    /// Takes a batch from a socket, and gives the packets in it to the device.
    async fn receive(&mut self, v4: bool, now: Now) -> Result<()> {
        let Self {
            sockets,
            engine,
            device,
            ..
        } = self;
        let port = if v4 { &mut sockets.v4 } else { &mut sockets.v6 };
        let Some(port) = port else {
            return Ok(());
        };
        if let Err(error) = port.receive() {
            if error.kind() != io::ErrorKind::WouldBlock {
                tracing::debug!(%error, "receiving fails");
            }
            return Ok(());
        }
        for received in port.ring.take(usize::MAX) {
            if !engine.can_receive() {
                device.send(engine.inbound()).await.map_err(Error::Device)?;
                engine.inbound().clear();
            }
            engine.handle_datagram(received.datagram, now);
        }
        engine.finish_batch(now);
        Ok(())
    }

    /// Hands the packets that have come to the device.
    async fn deliver(&mut self) -> Result<()> {
        let packets = self.engine.inbound();
        if !packets.is_empty() {
            self.device.send(packets).await.map_err(Error::Device)?;
            packets.clear();
        }
        Ok(())
    }

    /// Tells the outside what has changed, and gives the service its messages.
    fn report(&mut self, answers: &mpsc::Sender<Answer>) {
        while let Some(event) = self.engine.next_event() {
            match &event {
                Event::Online => tracing::info!(id = %self.id, "online"),
                Event::Offline(why) => tracing::warn!(%why, "offline"),
                Event::Published => tracing::info!("the directory has the current descriptor"),
                Event::PublishFailed(why) => tracing::warn!(%why, "publishing failed"),
                Event::SessionOpened(peer) => tracing::debug!(%peer, "session opened"),
                Event::SessionClosed(peer, why) => {
                    tracing::debug!(%peer, %why, "session closed");
                }
            }
            let _ = self.events.send(event);
        }
        while let Some((number, outcome)) = self.engine.next_answer() {
            self.waiting.answer(number, outcome);
        }
        let now = self.clock.now().instant;
        let text = || self.engine.guards_to_store();
        if self.storing_guards.store(&self.state, text, now) {
            self.engine.guards_stored();
        }
        if let Some(descriptor) = self.engine.changed_descriptor() {
            self.descriptor.send_replace(Some(descriptor));
        }
        let online = self.engine.is_online();
        self.online
            .send_if_modified(|was| std::mem::replace(was, online) != online);
        while self.answering < ANSWERING {
            let Some(service) = self.service.clone() else {
                return;
            };
            let Some(request) = self.engine.next_request() else {
                return;
            };
            let answers = answers.clone();
            self.answering += 1;
            tokio::task::spawn_blocking(move || {
                let answer = service.answer(request.from, &request.message);
                // The driver receives as long as it runs.
                let _ = answers.blocking_send((request.session, answer));
            });
        }
    }
}

/// Waits for a socket to have something; forever if there is no socket.
async fn readable(port: Option<&Port>) {
    match port {
        Some(port) => port.readable().await,
        None => std::future::pending().await,
    }
}

/// Waits for a blocked socket to take datagrams again.
async fn writable(v4: Option<&Port>, v6: Option<&Port>) {
    let one = async |port: Option<&Port>| match port {
        Some(port) if port.blocked => port.writable().await,
        _ => std::future::pending().await,
    };
    tokio::select! {
        () = one(v4) => {}
        () = one(v6) => {}
    }
}
