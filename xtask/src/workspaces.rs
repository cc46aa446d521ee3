//! The four workspaces, each with a lock file of its own.

use crate::run;
use anyhow::Result;
use mixline_testnet::programs;
use std::process::Command;

/// One workspace.
pub struct Workspace {
    /// Its manifest, from the root of the working copy.
    pub manifest: &'static str,
    /// What cargo is told of packages and features.
    pub features: &'static [&'static str],
    /// Whether it has tests; what has none is compiled by its lints alone.
    pub tests: bool,
}

/// All of them, the one with the programs first.
pub const ALL: &[Workspace] = &[
    Workspace {
        manifest: "Cargo.toml",
        // All but the benchmarks' `peers`: 200 crates of others, which take minutes.
        features: &["--workspace", "--features=mixline-protocol/vectors"],
        tests: true,
    },
    // What is linted and tested of the XDP programs is what compiles on the host; their build
    // scripts compile them for the kernel.
    Workspace {
        manifest: "relay-ebpf/Cargo.toml",
        features: &[],
        tests: true,
    },
    Workspace {
        manifest: "bench/ebpf/Cargo.toml",
        features: &[],
        tests: false,
    },
    Workspace {
        manifest: "fuzz/Cargo.toml",
        features: &[],
        tests: false,
    },
];

impl Workspace {
    /// Cargo with a subcommand for this workspace. All have one target directory: what has the same
    /// version, features and profile in two of them is compiled once.
    pub fn cargo(&self, subcommand: &[&str]) -> Command {
        let mut command = programs::cargo();
        command
            .args(subcommand)
            .args(["--manifest-path", self.manifest]);
        command.env("CARGO_TARGET_DIR", programs::target_directory());
        command
    }

    /// Fails unless all of it is formatted.
    pub fn check_format(&self) -> Result<()> {
        run::finish(self.cargo(&["fmt", "--all"]).args(["--", "--check"]))
    }

    /// Fails at any warning.
    pub fn lint(&self) -> Result<()> {
        run::finish(
            self.cargo(&["clippy", "--locked", "--all-targets"])
                .args(self.features)
                .args(["--", "-Dwarnings"]),
        )
    }
}
