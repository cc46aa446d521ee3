//! Probes from the client to an echo at the service, each end a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use mixline_testnet::topology::Node;
use mixline_testnet::{interrupted, netns};

use super::round_trips::Counts;

/// The echo's port.
const PORT: u16 = 7007;

/// Sends `count` probes of `length` bytes from the client to the echo, one every so many
/// microseconds.
pub fn run(to: Ipv4Addr, count: u64, every: u64, length: usize) -> Result<Counts> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut child = netns::command(&Node::Client.namespace(), own)
        .arg("round-trips")
        .arg(SocketAddr::from((to, PORT)).to_string())
        .args(["--count", &count.to_string(), "--every", &every.to_string()])
        .args(["--length", &length.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("running the probes")?;
    let output = child.stdout.take().context("no output")?;
    let counts: Result<Counts, _> = serde_json::from_reader(output);
    let status = child.wait()?;
    if interrupted() {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("the probes: {status}");
    }
    counts.context("reading what the probes say")
}

/// The echo in the service's namespace. Dropping it kills it.
pub struct Echo(Child);

impl Echo {
    /// Starts it at the service's virtual address.
    pub fn start(at: Ipv4Addr) -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let child = netns::command(&Node::Service.namespace(), own)
            .arg("echo")
            .arg(SocketAddr::from((at, PORT)).to_string())
            .stdin(Stdio::null())
            .spawn()
            .context("running the echo")?;
        Ok(Self(child))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
