//! What the demo found out, for people and as JSON.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// The demo's figures; the field names are those of the JSON file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the 100 MB, from the request to the last byte.
    pub download_bytes_per_s: f64,
    /// From typing the first curl to the first byte of the page: name, session and paths included.
    pub first_byte_ms: f64,
    /// All relays of the network.
    pub relays: Vec<RelayReport>,
    /// Virtual address of the client.
    pub client_ipv4: String,
    /// Virtual address of the service.
    pub service_ipv4: String,
    /// Virtual address of the service.
    pub service_ipv6: String,
    /// The service's anonymous ID.
    pub service_id: String,
}

/// One relay, after the download.
#[derive(Debug, Serialize)]
pub struct RelayReport {
    /// Its name.
    pub name: String,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// CPU time since its start, seconds.
    pub cpu_s: f64,
    /// What its XDP program did with frames; none without one.
    pub xdp: Option<FramesReport>,
}

/// What an XDP program did with frames.
#[derive(Debug, Serialize)]
pub struct FramesReport {
    /// Passed to the kernel.
    pub passed: u64,
    /// Given to AF_XDP sockets.
    pub redirected: u64,
    /// Dropped.
    pub dropped: u64,
}

impl Report {
    /// Writes the JSON file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(path, json).with_context(|| format!("writing {}", path.display()))
    }
}
