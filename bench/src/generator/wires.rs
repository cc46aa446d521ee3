//! The namespace that a benchmark runs in, and the ends of wires in it.

use anyhow::{Context, Result};
use mixline_testnet::netns::{self, Namespace};

/// Runs something in a thread with a new network namespace.
///
/// # Errors
/// Of the system, above all without root's rights; and what the thread returns.
pub fn in_new_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = Namespace::new().context("this benchmark has a namespace of its own")?;
    namespace.run(|| {
        netns::ip("link set lo up\n")?;
        work()
    })?
}

/// Has the kernel write the checksums of what sockets send over a device, as on a wire that leads out
/// of the machine. Between veths it leaves them to the other end, and an echo of AF_XDP, which has
/// them sent back as they came, would return datagrams that no socket takes.
///
/// # Errors
/// With what `ethtool` says.
pub fn write_checksums(device: &str) -> Result<()> {
    netns::said(netns::tool("ethtool").args(["-K", device, "tx-checksumming", "off"]))?;
    Ok(())
}

/// Has a veth merge what it receives (GRO).
///
/// # Errors
/// With what `ethtool` says.
pub fn merge(device: &str) -> Result<()> {
    netns::said(netns::tool("ethtool").args(["-K", device, "gro", "on"]))?;
    Ok(())
}
