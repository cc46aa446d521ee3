//! `cargo xtask bench`: builds the benchmarks and what they run, and runs them.

use crate::privileges::give_to_user;
use crate::setup::{self, Purpose};
use crate::{against, privileges, run};
use anyhow::{Context, Result, bail};
use cli::{Name, Selection};
use mixline_testnet::programs::{self, root, target_directory};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[path = "../../bench/src/cli.rs"]
pub mod cli;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Run hop also in a build for this processor; without --quick that is so anyway.
    #[arg(long)]
    native: bool,
    /// Run hop, scale and endpoint in turns with the code of this commit, and print what each takes.
    #[arg(long, value_name = "COMMIT")]
    against: Option<String>,
    /// Set-up and build are done (for the second half, under sudo).
    #[arg(long, hide = true)]
    built: bool,
}

/// Runs the benchmarks.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let selection = &arguments.selection;
    if let Some(commit) = &arguments.against {
        return against::compare(commit, &selection.which, selection.options.quick);
    }
    let needs_root = Name::ALL
        .into_iter()
        .any(|name| name.needs_root() && selection.wants(name));
    let native = selection.wants(Name::Hop) && (arguments.native || !selection.options.quick);
    if !arguments.built {
        build(needs_root, native)?;
    }
    if needs_root && !privileges::is_root() {
        eprintln!("path, forward and flood make namespaces, which needs root: asking sudo");
        if let Some(code) = privileges::as_root(&["--built"])? {
            return Ok(code);
        }
    }
    let mut command = Command::new(target_directory().join("release/mixline-bench"));
    command.args(selection.arguments());
    if native {
        command
            .arg("--native")
            .arg(native_directory().join("release/mixline-bench"));
    }
    let status = command.status().context("running mixline-bench")?;
    let report = selection.report.as_deref();
    let page = report.map(|directory| directory.join("report.html"));
    let written = [selection.json.as_deref(), report, page.as_deref()];
    for path in written.into_iter().flatten().filter(|path| path.exists()) {
        give_to_user(path);
    }
    if let Some(page) = page.filter(|page| page.exists()) {
        println!("report: {}", page.display());
    }
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Set-up and builds, each only as far as it is needed.
fn build(networks: bool, native: bool) -> Result<()> {
    if networks {
        if !setup::ensure(Purpose::All)? {
            bail!("this machine lacks something: see above");
        }
        run::build(false)?;
    }
    let arguments = [
        "build",
        "--release",
        "--package",
        "mixline-bench",
        "--features",
        "peers",
    ];
    run::cargo(arguments)?;
    if native {
        // A directory of its own, or each build would throw the other away.
        run::finish(
            programs::cargo()
                .args(arguments)
                .env("CARGO_TARGET_DIR", native_directory())
                .env("RUSTFLAGS", "-C target-cpu=native"),
        )?;
    }
    Ok(())
}

fn native_directory() -> PathBuf {
    root().join(Path::new("target/native"))
}
