//! `cargo xtask vectors`: the project's path cryptography against vectors made by another
//! implementation.

use anyhow::{Context, Result};
use mixline_protocol::path::vectors;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Prints how many vectors hold, or the first difference and exits 1.
pub fn run(file: &Path) -> Result<ExitCode> {
    let json = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    match vectors::check(&json) {
        Ok(count) => {
            println!("{count} vectors ok");
            Ok(ExitCode::SUCCESS)
        }
        Err(difference) => {
            println!("{difference}");
            Ok(ExitCode::FAILURE)
        }
    }
}
