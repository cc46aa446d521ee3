//! Runs cargo and other programs.

use anyhow::{Context, Result, bail};
use mixline_testnet::programs;
use std::ffi::OsStr;
use std::process::Command;

/// Runs cargo with its output on the terminal; fails when it fails.
pub fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<()> {
    finish(programs::cargo().args(arguments))
}

/// Runs a command with its output on the terminal; fails when it fails.
pub fn finish(command: &mut Command) -> Result<()> {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    let status = command
        .status()
        .with_context(|| format!("running {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// What a program writes to its output.
pub fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!(
            "{name}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes `first`, a program that runs another one, run `command`: where and with what environment that would.
pub fn behind(first: &mut Command, command: &Command) {
    first.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        first.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => first.env(name, value),
            None => first.env_remove(name),
        };
    }
}

/// Builds the programs, optimised; for the tests also the relay that misbehaves.
pub fn build(rogue: bool) -> Result<()> {
    cargo(programs::build_arguments(rogue))
}
