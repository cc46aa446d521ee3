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

/// Has a veth merge what it receives (GRO).
///
/// # Errors
/// With what `ethtool` says.
pub fn merge(device: &str) -> Result<()> {
    netns::said(netns::tool("ethtool").args(["-K", device, "gro", "on"]))?;
    Ok(())
}
