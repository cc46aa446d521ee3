//! Network namespaces, and the programs that set up what is in them.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Runs something in a thread with a new network namespace, on this core if given.
///
/// # Errors
/// Of the system, above all for want of rights; and what the thread returns.
pub fn in_new_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("a new network namespace: this benchmark needs root")?;
            ip("link set lo up\n")?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Has a veth merge what it receives (GRO).
///
/// # Errors
/// With what `ethtool` says.
pub fn merge(device: &str) -> Result<()> {
    let output = Command::new("ethtool")
        .env("PATH", mixline_testnet::netns::system_path())
        .args(["-K", device, "gro", "on"])
        .output()
        .context("running ethtool (package ethtool)")?;
    ensure!(
        output.status.success(),
        "ethtool: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs lines of `ip -batch` in the namespace of this thread.
///
/// # Errors
/// With what `ip` says.
pub fn ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .env("PATH", mixline_testnet::netns::system_path())
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ip: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
