//! What a relay says of itself, as far as the benchmarks ask: the JSON of
//! `mixline-relay status --json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use mixline_testnet::netns;
use serde::Deserialize;

/// The status of a relay.
#[derive(Debug, Deserialize)]
pub struct RelayStatus {
    /// How datagrams get in and out.
    pub port: PortStatus,
    /// What it has from the directory.
    pub directory: DirectoryStatus,
    /// Its neighbours.
    pub links: LinksStatus,
    /// Paths that it knows.
    pub paths: PathsStatus,
    /// Datagrams by what became of them.
    pub verdicts: BTreeMap<String, u64>,
    /// Frames by the XDP program's verdict; empty without one.
    #[serde(default)]
    pub xdp: BTreeMap<String, u64>,
    /// Its workers.
    #[serde(default)]
    pub per_worker: Vec<WorkerStatus>,
}

/// A worker.
#[derive(Debug, Default, Deserialize)]
pub struct WorkerStatus {
    /// Times in nanoseconds, and how many datagrams were inside for so long at most.
    pub inside_ns: Vec<(u64, u64)>,
}

/// Which port is in use.
#[derive(Debug, Deserialize)]
pub struct PortStatus {
    /// Why this one, with the mode that was granted.
    pub why: String,
}

/// What a relay has from the directory.
#[derive(Debug, Deserialize)]
pub struct DirectoryStatus {
    /// Relays in the newest snapshot; none without one.
    pub relays: Option<usize>,
}

/// Neighbours.
#[derive(Debug, Deserialize)]
pub struct LinksStatus {
    /// Relays with a link.
    pub relays: usize,
}

/// Paths.
#[derive(Debug, Deserialize)]
pub struct PathsStatus {
    /// Known now.
    pub known: usize,
}

impl RelayStatus {
    /// Asks the relay that `program` runs with this configuration.
    ///
    /// # Errors
    /// If none runs, or it does not answer.
    pub fn ask(program: &Path, config: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        let said = netns::said(command.args(["status", "--json", "--config"]).arg(config))?;
        serde_json::from_str(&said).context("reading the relay's status")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read() {
        let status: RelayStatus = serde_json::from_str(
            r#"{"name":"measured","port":{"kind":"xdp","why":"asked for"},
                "directory":{"url":"http://192.0.2.1/","relays":65,"listed":true},
                "links":{"relays":64,"clients":0},"paths":{"known":64,"most":4096},
                "verdicts":{"forwarded":7},
                "per_worker":[{"received":7,"inside_ns":[[512,3],[9216,4]]}]}"#,
        )
        .unwrap();
        assert_eq!(status.port.why, "asked for");
        assert_eq!(status.directory.relays, Some(65));
        assert_eq!((status.links.relays, status.paths.known), (64, 64));
        assert_eq!(status.verdicts["forwarded"], 7);
        assert!(status.xdp.is_empty());
        assert_eq!(status.per_worker[0].inside_ns, [(512, 3), (9216, 4)]);
    }
}
