//! What a running relay says of itself: over a socket in its state directory, as JSON for
//! programs and as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_directory_client::FollowStatus;
use mixline_protocol::identity::{RelayId, ShortId};
use mixline_protocol::records::Snapshot;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::outcome::{Counters, Outcome};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::control::registration::RegistrationStatus;
use crate::control::{ControlStatistics, SharedOnionKeys};
use crate::state_dir::StateDir;
use crate::workers::WorkerStatistics;

/// How long `status` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that it reads.
const LONGEST: u64 = 1 << 20;

/// The state of a relay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What people call it.
    pub name: String,
    /// Its identity, in hexadecimal.
    pub id: String,
    /// Its short ID.
    pub short_id: String,
    /// What it runs.
    pub version: String,
    /// For how long, in seconds.
    pub uptime_s: u64,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub advertise: Vec<SocketAddr>,
    /// How datagrams get in and out.
    pub port: PortReport,
    /// Threads that forward.
    pub workers: usize,
    /// Bytes of memory in use.
    pub memory_bytes: u64,
    /// How it stands with the directory.
    pub directory: DirectoryReport,
    /// Epochs that it has onion keys of.
    pub onion_epochs: Vec<u32>,
    /// Its neighbours.
    pub links: LinksReport,
    /// Paths that it knows.
    pub paths: PathsReport,
    /// What it remembers of what it has relayed.
    pub replay: ReplayReport,
    /// Datagrams a second relayed of late.
    pub load: u32,
    /// Datagrams a second that it says it is good for.
    pub capacity: u32,
    /// Datagrams by what became of them.
    pub verdicts: BTreeMap<String, u64>,
    /// Frames by the XDP program's verdict; empty without one.
    #[serde(default)]
    pub xdp: BTreeMap<String, u64>,
}

/// Which port is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortReport {
    /// Its kind.
    pub kind: String,
    /// Why this one.
    pub why: String,
}

/// How a relay stands with the directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryReport {
    /// Where it is.
    pub url: String,
    /// Relays in the newest snapshot; none without one.
    pub relays: Option<usize>,
    /// Seconds since the newest snapshot was made.
    pub snapshot_age_s: Option<u64>,
    /// Seconds until it ends; 0 if it has.
    pub snapshot_valid_for_s: Option<u64>,
    /// Seconds since the directory last took a registration.
    pub registered_s_ago: Option<u64>,
    /// Whether the newest snapshot has this relay.
    pub listed: bool,
    /// What went wrong last, and still does.
    pub last_error: Option<String>,
    /// Seconds that this machine's clock is ahead of the directory's, which is a hint.
    pub clock_ahead_s: Option<i64>,
}

/// Neighbours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinksReport {
    /// Relays with a link.
    pub relays: usize,
    /// Clients with a link.
    pub clients: usize,
    /// Sessions that are received under.
    pub sessions: usize,
    /// Mailbox tokens.
    pub mailboxes: usize,
    /// Handshakes that were refused for want of room.
    pub refused: u64,
}

/// Paths.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PathsReport {
    /// Known now.
    pub known: usize,
    /// At most.
    pub most: usize,
}

/// Replay memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Everything relayed in so many seconds is surely remembered.
    pub horizon_s: u64,
    /// How full the current generation is, 1 when it is replaced.
    pub fill: f64,
}

/// Where a report comes from.
pub struct Source {
    /// Since when the relay runs.
    pub started: Instant,
    /// What does not change; the rest is filled in.
    pub name: String,
    /// Its identity.
    pub id: RelayId,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub advertise: Vec<SocketAddr>,
    /// The port in use.
    pub port: PortReport,
    /// The XDP program, where there is one.
    pub guard: Option<Arc<crate::port::Guard>>,
    /// Where the directory is.
    pub directory_url: String,
    /// How following it goes.
    pub follow: watch::Receiver<FollowStatus>,
    /// How registering goes.
    pub registration: Arc<Mutex<RegistrationStatus>>,
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// The control plane.
    pub control: Arc<ControlStatistics>,
    /// The workers.
    pub workers: Vec<Arc<WorkerStatistics>>,
    /// The most paths.
    pub max_paths: usize,
    /// What has been relayed.
    pub replay: Arc<ReplayFilter>,
    /// Datagrams a second relayed of late.
    pub load: watch::Receiver<u32>,
    /// Datagrams a second that it says it is good for.
    pub capacity: u32,
}

impl Source {
    /// The state at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let census = self.control.census();
        let mut verdicts = BTreeMap::new();
        for (outcome, count) in self.counters().iter() {
            verdicts.insert(outcome.name().to_owned(), count);
        }
        Report {
            name: self.name.clone(),
            id: self.id.to_string(),
            short_id: self.id.short().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.listen.clone(),
            advertise: self.advertise.clone(),
            port: self.port.clone(),
            workers: self.workers.len(),
            memory_bytes: memory(),
            directory: self.directory(),
            onion_epochs: self
                .onion
                .lock()
                .iter()
                .flat_map(|onion| onion.epochs())
                .collect(),
            links: LinksReport {
                relays: census.relays,
                clients: census.clients,
                sessions: self.workers.iter().map(|worker| worker.sessions()).sum(),
                mailboxes: census.mailboxes,
                refused: census.refused,
            },
            paths: PathsReport {
                known: self.workers.iter().map(|worker| worker.paths()).sum(),
                most: self.max_paths,
            },
            replay: ReplayReport {
                horizon_s: self.replay.horizon(Instant::now()).as_secs(),
                fill: self.replay.fill(),
            },
            load: *self.load.borrow(),
            capacity: self.capacity,
            verdicts,
            xdp: self
                .guard
                .iter()
                .flat_map(|guard| guard.verdicts())
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
        }
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for worker in &self.workers {
            for (outcome, count) in worker.counters().iter() {
                sum.add(outcome, count);
            }
        }
        sum
    }

    fn directory(&self) -> DirectoryReport {
        let now = UnixTime::from(SystemTime::now());
        let snapshot = self.snapshots.borrow().clone();
        let snapshot = snapshot.as_ref();
        let follow = self.follow.borrow().clone();
        let registration = self
            .registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let own: ShortId = self.id.short();
        DirectoryReport {
            url: self.directory_url.clone(),
            relays: snapshot.map(|s| s.relays.len()),
            snapshot_age_s: snapshot.map(|s| now.since(s.issued)),
            snapshot_valid_for_s: snapshot.map(|s| s.valid_until.since(now)),
            registered_s_ago: registration.last_success.map(|at| now.since(at)),
            listed: snapshot.is_some_and(|s| s.relay(&own).is_some()),
            last_error: follow.last_error.or(registration.last_error),
            clock_ahead_s: follow.clock_ahead,
        }
    }

    /// The workers, for metrics.
    #[must_use]
    pub fn workers(&self) -> &[Arc<WorkerStatistics>] {
        &self.workers
    }
}

/// Bytes of memory that this process has in use (`VmRSS`).
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Opens the socket where `status` asks. One that an earlier relay left there is
/// replaced: the lock of the state directory says that it does not run any more.
///
/// # Errors
/// Those of `bind(2)`; above all, a path that is too long for a socket.
pub fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = StateDir::control_socket(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Answers those who ask.
pub async fn serve(listener: UnixListener, source: Arc<Source>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let json = serde_json::to_vec(&source.report()).unwrap_or_default();
        // Who does not read does not keep others waiting.
        let answer = async {
            stream.write_all(&json).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(PATIENCE, answer).await;
    }
}

/// Asks the relay that runs on a state directory.
///
/// # Errors
/// If there is none, or it does not answer.
pub fn ask(state_dir: &Path) -> io::Result<Report> {
    let stream = UnixStream::connect(StateDir::control_socket(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut json = Vec::new();
    stream.take(LONGEST).read_to_end(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::from)
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key:<12} {value}");
        };
        line(
            "relay",
            format!("{} {} ({})", self.name, self.short_id, self.version),
        );
        line("identity", self.id.clone());
        line("up", duration(self.uptime_s));
        line("listen", list(&self.listen));
        line("reached at", list(&self.advertise));
        line(
            "port",
            format!(
                "{}: {}; {}",
                self.port.kind,
                self.port.why,
                plural(self.workers, "worker")
            ),
        );
        line(
            "memory",
            format!("{:.1} MiB", self.memory_bytes as f64 / (1 << 20) as f64),
        );
        let directory = &self.directory;
        line("directory", directory.url.clone());
        line("snapshot", directory.snapshot());
        line("registered", directory.registered());
        if let Some(error) = &directory.last_error {
            line("problem", error.clone());
        }
        let epochs: Vec<String> = self.onion_epochs.iter().map(u32::to_string).collect();
        line(
            "onion keys",
            if epochs.is_empty() {
                "none yet".into()
            } else {
                epochs.join(", ")
            },
        );
        let links = &self.links;
        line(
            "links",
            format!(
                "{}, {}; {}, {}",
                plural(links.relays, "relay"),
                plural(links.clients, "client"),
                plural(links.sessions, "session"),
                plural(links.mailboxes, "mailbox"),
            ),
        );
        line(
            "paths",
            format!("{} of at most {}", self.paths.known, self.paths.most),
        );
        line(
            "replay",
            format!(
                "the last {} are remembered, {:.0} % full",
                duration(self.replay.horizon_s),
                self.replay.fill * 100.0
            ),
        );
        line(
            "load",
            format!("{} of {} datagrams/s", self.load, self.capacity),
        );
        for outcome in Outcome::ALL {
            let count = self.verdicts.get(outcome.name()).copied().unwrap_or(0);
            if count > 0 {
                line("", format!("{count:>12} {}", outcome.name()));
            }
        }
        let mut label = "xdp program";
        for (name, count) in self.xdp.iter().filter(|(_, count)| **count > 0) {
            line(label, format!("{count:>12} {name}"));
            label = "";
        }
        out
    }
}

impl DirectoryReport {
    fn snapshot(&self) -> String {
        match (self.relays, self.snapshot_age_s, self.snapshot_valid_for_s) {
            (Some(relays), Some(age), Some(0)) => {
                format!(
                    "EXPIRED: {}, made {} ago",
                    plural(relays, "relay"),
                    duration(age)
                )
            }
            (Some(relays), Some(age), Some(left)) => format!(
                "{}, made {} ago, good for {}{}",
                plural(relays, "relay"),
                duration(age),
                duration(left),
                if self.listed {
                    ""
                } else {
                    "; this relay is not in it"
                }
            ),
            _ => "none yet".into(),
        }
    }

    fn registered(&self) -> String {
        self.registered_s_ago
            .map_or("not yet".into(), |ago| format!("{} ago", duration(ago)))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn plural(n: usize, what: &str) -> String {
    match (n, what) {
        (1, _) => format!("1 {what}"),
        (_, "mailbox") => format!("{n} mailboxes"),
        _ => format!("{n} {what}s"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
