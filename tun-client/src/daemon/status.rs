//! What the client says about itself, as types; `status --json` prints [`Status`].

use std::net::Ipv4Addr;

use serde::Serialize;

use super::names::Name;
use crate::host_dns::Active;

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// On the way up.
    Starting,
    /// Applications can use it.
    Up,
    /// On the way down.
    Stopping,
}

/// What is wrong, by the part that found it.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// Of the host's resolver.
    pub dns: Option<String>,
    /// Of the lease.
    pub lease: Option<String>,
}

/// How `.anon` is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsStatus {
    /// How the host's resolver is pointed at the responder.
    pub mode: Active,
    /// The responder's address, once it listens.
    pub resolver: Option<Ipv4Addr>,
    /// Where other domains are asked; refused if empty.
    pub upstream: Vec<String>,
}

impl Default for DnsStatus {
    fn default() -> Self {
        Self {
            mode: Active::Off,
            resolver: None,
            upstream: Vec::new(),
        }
    }
}

/// How the snapshot is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// Where it is fetched: the first that is configured.
    pub url: String,
    /// When it was fetched last, unix seconds.
    pub last_success: Option<u64>,
    /// What went wrong since.
    pub last_error: Option<String>,
    /// Seconds that this machine's clock is ahead of the directory's.
    pub clock_ahead_s: Option<i64>,
    /// Which round is believed: when the newest snapshot was made, unix seconds.
    pub round: Option<u64>,
    /// Which version of the roster of directories counts; none if the directory is alone.
    pub roster: Option<u32>,
    /// Each directory that is asked.
    pub directories: Vec<DirectoryAnswers>,
}

/// How a directory has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectoryAnswers {
    /// Where it is asked.
    pub url: String,
    /// What the roster calls it; none if it is only configured.
    pub name: Option<String>,
    /// When it last answered as it should, unix seconds.
    pub last_success: Option<u64>,
    /// What went wrong since.
    pub last_error: Option<String>,
}

impl From<mixline_directory_client::DirectoryStatus> for DirectoryAnswers {
    fn from(of: mixline_directory_client::DirectoryStatus) -> Self {
        Self {
            url: of.url,
            name: of.name,
            last_success: of.last_success.map(|time| time.0),
            last_error: of.last_error,
        }
    }
}

/// The state of a client. The endpoint's own fields stand beside the client's.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What it is doing.
    pub state: Phase,
    /// The step it is at while it starts.
    pub step: String,
    /// The process.
    pub pid: u32,
    /// Which of the processor's instructions datagrams are sealed and opened with.
    pub cpu: &'static str,
    /// The interface's name.
    pub interface: String,
    /// Whether others may open sessions.
    pub accepting: bool,
    /// When the lease ends, unix seconds.
    pub lease_expires: Option<u64>,
    /// How `.anon` is found.
    pub dns: DnsStatus,
    /// The names that it serves.
    pub names: Vec<Name>,
    /// How the snapshot is fetched.
    pub snapshot: SnapshotStatus,
    /// Everything else; `problems` has the client's as well.
    #[serde(flatten)]
    pub endpoint: mixline_endpoint::Status,
}
