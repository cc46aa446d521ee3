//! What the client tells about itself.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use mixline_protocol::time::UnixTime;
use serde::Serialize;

use super::names::{Name, Standing};
use super::lifecycle::Shared;
use crate::host_dns::{self, Active};

/// The wall clock, for records.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

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

/// What is wrong, by who found it.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// Found when the interface was set up.
    pub interface: Vec<String>,
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

/// How the snapshot is got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// From where.
    pub url: String,
    /// When it was last got, unix seconds.
    pub last_success: Option<u64>,
    /// What went wrong since.
    pub last_error: Option<String>,
    /// Seconds that this machine's clock is ahead of the directory's.
    pub clock_ahead_s: Option<i64>,
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
    /// How the snapshot is got.
    pub snapshot: SnapshotStatus,
    /// Everything else; `problems` has the client's as well.
    #[serde(flatten)]
    pub endpoint: mixline_endpoint::Status,
}

/// Puts it all together.
pub async fn collect(shared: &Shared) -> Status {
    let mut endpoint = shared.handle.status().await.unwrap_or_default();
    let facts = shared.facts();
    let follow = shared.follow.borrow().clone();
    let names = shared.names.list();
    let lease = *shared.lease.borrow();
    if endpoint.id.is_empty() {
        endpoint.id = shared.handle.id().to_string();
    }
    let mut problems = Vec::new();
    problems.extend(follow.last_error.clone());
    problems.extend(clock_problem(follow.clock_ahead));
    problems.append(&mut endpoint.problems);
    {
        let own = shared.problems();
        problems.extend(own.interface.iter().cloned());
        problems.extend(own.lease.clone());
        problems.extend(own.dns.clone());
    }
    problems.extend(host_dns::check(
        &shared.host,
        &facts.dns.mode,
        shared.state.directory(),
    ));
    for name in &names {
        match &name.standing {
            Standing::Refused(why) => problems.push(format!("{}: refused: {why}", name.name)),
            Standing::Waiting(why) => problems.push(format!("{}: {why}", name.name)),
            Standing::Claiming | Standing::Published => {}
        }
    }
    endpoint.problems = problems;
    Status {
        state: facts.phase,
        step: facts.step,
        pid: std::process::id(),
        interface: shared.config.interface.clone(),
        accepting: shared.accepting,
        lease_expires: lease.map(|lease| lease.expires.0),
        dns: facts.dns,
        names,
        snapshot: SnapshotStatus {
            url: shared.config.directory.url.clone(),
            last_success: follow.last_success.map(|time| time.0),
            last_error: follow.last_error,
            clock_ahead_s: follow.clock_ahead,
        },
        endpoint,
    }
}

/// A clock that is off by so much that records soon seem over, seconds.
const CLOCK_TOLERANCE: i64 = 60;

fn clock_problem(ahead: Option<i64>) -> Option<String> {
    let ahead = ahead.filter(|ahead| ahead.abs() > CLOCK_TOLERANCE)?;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "this machine's clock is {} s {way} the directory's: set it",
        ahead.abs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told() {
        assert_eq!(clock_problem(None), None);
        assert_eq!(clock_problem(Some(-30)), None);
        assert!(clock_problem(Some(3600)).unwrap().contains("3600 s ahead"));
        assert!(
            clock_problem(Some(-3600))
                .unwrap()
                .contains("3600 s behind")
        );
    }
}
