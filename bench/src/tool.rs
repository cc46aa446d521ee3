//! The small programs that benchmarks run inside namespaces: hidden subcommands of this executable.

use anyhow::Result;
use clap::Subcommand;

use crate::{attacks, path};

/// What runs inside a namespace.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Of `path`.
    #[command(flatten)]
    Path(path::Tool),
    /// Of the attacks of `flood`.
    #[command(flatten)]
    Attacks(attacks::Tool),
}

impl Tool {
    /// Runs it.
    ///
    /// # Errors
    /// If a socket does not do what it should.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Path(tool) => tool.run(),
            Self::Attacks(tool) => tool.run(),
        }
    }
}
