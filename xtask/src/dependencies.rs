//! What the workspaces depend on: licences, sources and names by `cargo deny`; that the crates
//! without input and output stay so; and that the benchmarks measure the daemons as programs.

use crate::run;
use crate::tools::Tool;
use crate::workspaces::{self, Workspace};
use anyhow::{Context, Result, bail};
use mixline_testnet::programs;
use std::process::Command;

/// Checks dependencies against `deny.toml`. Unoptimised it builds in a fraction of the time, and checks
/// in seconds all the same.
pub const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--debug"],
    environment: &[("CARGO_PROFILE_DEV_DEBUG", "0")],
};

/// Crates, and what each has no use for.
const BORDERS: &[(&str, &[&str])] = &[
    ("mixline-bench", DAEMONS),
    // These get bytes, time and randomness, and give bytes and decisions.
    ("mixline-directory-engine", IMPURE),
    ("mixline-endpoint-engine", IMPURE),
    ("mixline-protocol", IMPURE),
    ("mixline-relay-engine", IMPURE),
];

/// The daemons, which are libraries only for their own programs, examples and tests.
const DAEMONS: &[&str] = &["mixline-client", "mixline-directory", "mixline-relay"];

/// Runtimes, sockets, devices, system calls.
const IMPURE: &[&str] = &[
    "aya",
    "mio",
    "nix",
    "quinn-udp",
    "socket2",
    "tokio",
    "tun-rs",
];

/// Installs `cargo deny` where it is missing.
pub fn install_cargo_deny() -> Result<()> {
    if CARGO_DENY.find().is_some() {
        return Ok(());
    }
    println!(
        "building cargo-deny {}, which checks dependencies",
        CARGO_DENY.version
    );
    CARGO_DENY.install()
}

/// Licences, sources and banned names of all workspaces. Advisories need a database from the
/// network and are left to anyone who has one: `cargo deny check advisories`.
pub fn deny() -> Result<()> {
    let program = CARGO_DENY
        .find()
        .context("cargo-deny is not installed: run `cargo xtask setup`")?;
    let config = programs::root().join("deny.toml");
    for Workspace { manifest, .. } in workspaces::ALL {
        println!("{manifest}");
        run::finish(
            Command::new(&program)
                .current_dir(programs::root())
                .args(["--locked", "--manifest-path", manifest])
                .arg("--config")
                .arg(&config)
                .args(["check", "--hide-inclusion-graph"])
                .args(["bans", "licenses", "sources"]),
        )?;
    }
    Ok(())
}

/// No crate depends on what it has no use for, however far away.
pub fn borders() -> Result<()> {
    for (package, unwanted) in BORDERS {
        let output = programs::cargo()
            .args(["tree", "--locked", "--package", package])
            .args(["--edges", "normal", "--prefix", "none"])
            .args(["--format", "{p}"])
            .output()
            .context("running cargo tree")?;
        if !output.status.success() {
            bail!(
                "cargo tree of {package}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let tree = String::from_utf8_lossy(&output.stdout);
        let found = among(&tree, unwanted);
        if !found.is_empty() {
            bail!(
                "{package} has no use for {}: see `cargo tree --package {package} --edges normal \
                 --invert {}`",
                found.join(", "),
                found[0]
            );
        }
        let packages = names(&tree).len();
        println!(
            "{package}: {packages} packages, none of {}",
            unwanted.join(", ")
        );
    }
    Ok(())
}

/// The unwanted packages in what `cargo tree` prints.
fn among<'a>(tree: &'a str, unwanted: &[&str]) -> Vec<&'a str> {
    let mut found = names(tree);
    found.retain(|name| unwanted.contains(name));
    found
}

/// The packages in what `cargo tree` prints, each once.
fn names(tree: &str) -> Vec<&str> {
    let mut names: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unwanted_is_found_wherever_it_is() {
        let tree = "mixline-protocol v0.1.0 (/somewhere)\naes v0.9.4\ntokio v1.54.1\nnix v0.31.3\n\
                    tokio v1.54.1 (*)\ntokio-macros v2.0.0\n";
        assert_eq!(among(tree, IMPURE), ["nix", "tokio"]);
        assert_eq!(names(tree).len(), 5);
        assert!(among("mixline-protocol v0.1.0\naes v0.9.4\n", IMPURE).is_empty());
        assert!(among(tree, DAEMONS).is_empty());
    }
}
