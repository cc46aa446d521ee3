//! The state of a relay as `status` reports it. The names of the fields are those in its JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::volume::Volume;

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
    /// Which of the processor's instructions datagrams are sealed and opened with.
    #[serde(default)]
    pub cpu: String,
    /// Threads that forward.
    pub workers: usize,
    /// Bytes of memory in use.
    pub memory_bytes: u64,
    /// How it stands with the directory.
    pub directory: DirectoryReport,
    /// Whether it leaves: it takes no new paths, and its descriptor is withdrawn.
    #[serde(default)]
    pub leaving: bool,
    /// Whether it has sent all that it may in this month: it waits for the next.
    #[serde(default)]
    pub hibernating: bool,
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
    /// Bytes a second that it sends at most, headers included; none without a limit.
    #[serde(default)]
    pub bandwidth: Option<u64>,
    /// Bytes that it sends in a month at most; none without a limit.
    #[serde(default)]
    pub monthly: Option<u64>,
    /// What it has sent in this month.
    #[serde(default)]
    pub volume: Option<Volume>,
    /// How people reach the operator.
    #[serde(default)]
    pub contact: Option<String>,
    /// Datagrams by what became of them.
    pub verdicts: BTreeMap<String, u64>,
    /// Frames by the XDP program's verdict; empty without one.
    #[serde(default)]
    pub xdp: BTreeMap<String, u64>,
    /// How long datagrams were inside, from all workers.
    #[serde(default)]
    pub inside: InsideReport,
    /// What each worker does.
    #[serde(default)]
    pub per_worker: Vec<WorkerReport>,
    /// What the system says of the process.
    #[serde(default)]
    pub process: ProcessReport,
}

/// How long datagrams that left were inside, since the start: a thirty-second part of a time is the
/// most that it is wrong by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct InsideReport {
    /// How many have left.
    pub datagrams: u64,
    /// Half of them were inside for at most so many microseconds; 0 without any ...
    pub p50_us: f64,
    /// ... 99 of 100 ...
    pub p99_us: f64,
    /// ... and 999 of 1000.
    pub p999_us: f64,
}

/// What a worker does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Datagrams of the right length that it received.
    pub received: u64,
    /// Datagrams that it sent.
    pub sent: u64,
    /// Sessions that it receives under.
    pub sessions: usize,
    /// Paths that it knows.
    pub paths: usize,
    /// Time that its thread has used of a core, in seconds.
    pub cpu_s: Option<f64>,
    /// How long datagrams were inside.
    pub inside: InsideReport,
    /// The same, with all that is known: times in nanoseconds, and how many datagrams were inside for
    /// at most that, and longer than the time before.
    pub inside_ns: Vec<(u64, u64)>,
}

/// What the system says of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Time that all its threads have used of cores, in seconds.
    pub cpu_s: f64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most that it may have open; none if that has no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it started, in seconds since 1970.
    pub started: f64,
}

/// Which port is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortReport {
    /// Its kind.
    pub kind: String,
    /// Why this one.
    pub why: String,
    /// With XDP, whether what arrives was seen to arrive whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The queues of the card with AF_XDP; empty without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueReport>,
}

/// A queue of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Frames that the XDP program gave to its socket.
    pub redirected: u64,
    /// Frames that came out of the socket.
    pub received: u64,
}

/// How a relay stands with the network's directories.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryReport {
    /// Where they are, as configured, with commas between them.
    pub url: String,
    /// Which version of the network's roster counts; none if its directory is alone.
    #[serde(default)]
    pub roster: Option<u32>,
    /// Which round is believed: when the newest snapshot was made, in seconds since 1970.
    #[serde(default)]
    pub round: Option<u64>,
    /// Relays in the newest snapshot; none without one.
    pub relays: Option<usize>,
    /// Seconds since the newest snapshot was made.
    pub snapshot_age_s: Option<u64>,
    /// Seconds until it ends; 0 if it has.
    pub snapshot_valid_for_s: Option<u64>,
    /// Seconds since a directory last took a registration or a heartbeat.
    pub registered_s_ago: Option<u64>,
    /// When that was, in seconds since 1970.
    #[serde(default)]
    pub registered_at: Option<u64>,
    /// Whether the newest snapshot has this relay.
    pub listed: bool,
    /// What went wrong last, and still does: no directory is of use, or too few have this relay.
    pub last_error: Option<String>,
    /// Seconds that this machine's clock is ahead of the directory's, which is a hint.
    pub clock_ahead_s: Option<i64>,
    /// Each of them.
    #[serde(default)]
    pub directories: Vec<OneDirectoryReport>,
}

/// How a relay stands with one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneDirectoryReport {
    /// Where it is.
    pub url: String,
    /// What the roster calls it; none for an address that is only configured.
    pub name: Option<String>,
    /// Seconds since it last answered with a snapshot that was believed; none if it did not, or was not asked.
    pub answered_s_ago: Option<u64>,
    /// What went wrong when it was asked last.
    pub problem: Option<String>,
    /// How registration goes there; none where the relay does not register.
    pub registered: Option<RegisteredReport>,
}

/// How registration goes with one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredReport {
    /// Seconds since it last took a registration or a heartbeat.
    pub s_ago: Option<u64>,
    /// When that was, in seconds since 1970.
    pub at: Option<u64>,
    /// What went wrong since.
    pub problem: Option<String>,
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
    /// The most that can be known at a time.
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
