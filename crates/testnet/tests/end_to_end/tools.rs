//! What the tests share: programs run inside namespaces within bounds, and checks.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::netns;
use mixline_testnet::process::POLL;
use mixline_testnet::topology::Node;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `freespeech.anon`.
pub const HOST: &str = "freespeech.anon";

/// A command in the client's namespace that is killed after `seconds`: generous, since a test
/// machine may be busy; nothing that works takes nearly as long.
pub fn on_client(seconds: u32, program: impl AsRef<OsStr>) -> Command {
    on(Node::Client, seconds, program)
}

/// A command in a node's namespace that is killed after `seconds`.
pub fn on(node: Node, seconds: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = netns::command(&node.namespace(), "timeout");
    command
        .args(["--kill-after=2", &seconds.to_string()])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// Runs a command that has to succeed; gives its standard output.
pub fn succeed(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .output()
        .with_context(|| format!("running {line}"))?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{line}: {}\n{out}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}

/// Runs a command that may fail.
pub fn output(command: &mut Command) -> Result<Output> {
    let line = line(command);
    command.output().with_context(|| format!("running {line}"))
}

/// Polls until `look` holds.
pub fn eventually(what: &str, seconds: u64, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !look()? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {seconds} s");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The length of a file that may not be there yet.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
