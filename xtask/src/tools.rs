//! Programs that cargo builds for this project's own use, and where they are.

use crate::{privileges, run};
use anyhow::Result;
use mixline_testnet::programs;
use std::path::PathBuf;

/// A program that comes by `cargo install`.
pub struct Tool {
    /// Name of program and package.
    pub name: &'static str,
    /// The version that is installed where there is none.
    pub version: &'static str,
    /// Features and the like.
    pub options: &'static [&'static str],
    /// Environment of the build.
    pub environment: &'static [(&'static str, &'static str)],
}

impl Tool {
    /// The program, if it is there: of any version, since it may be somebody's own.
    pub fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::iter::once(directory().join("bin"))
            .chain(std::env::split_paths(&path))
            .map(|directory| directory.join(self.name))
            .find(|program| program.is_file())
    }

    /// Builds and installs it.
    pub fn install(&self) -> Result<()> {
        let mut command = programs::cargo();
        command
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(self.options)
            .envs(self.environment.iter().copied());
        // Others than root have it among their own programs of cargo's.
        if privileges::is_root() {
            command.arg("--root").arg(directory());
        }
        run::finish(&mut command)
    }
}

/// Where root has these programs; the build scripts of the XDP programs look here, too.
fn directory() -> PathBuf {
    std::env::var_os("MIXLINE_TOOLS").map_or_else(|| "/opt/mixline-tools".into(), PathBuf::from)
}
