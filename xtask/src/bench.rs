//! `cargo xtask bench`: builds the benchmarks and what they run, and runs them.

use crate::privileges::give_to_user;
use crate::setup::{self, Purpose};
use crate::{privileges, run};
use anyhow::{Context, Result, bail};
use mixline_testnet::Port;
use mixline_testnet::programs::{self, root, target_directory};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The benchmarks, and whether each needs namespaces, which only root may make.
const BENCHMARKS: [(&str, bool); 5] = [
    ("hop", false),
    ("scale", false),
    ("path", true),
    ("forward", true),
    ("flood", true),
];

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which to run; all, if none is named. hop: one datagram on one core, beside its bare
    /// primitives, Nym's sphinx-packet and Tor's relay crypto. scale: the same with many paths and
    /// sessions. path: three and three relays end to end. forward: datagrams a second through a
    /// relay on a wire. flood: what is left of that while garbage comes.
    #[arg(value_name = "BENCHMARK", value_parser = names())]
    which: Vec<String>,
    /// Fewer turns, shorter rounds: all of it in 3 minutes on 2 cores, once it is built.
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file, with a description of the machine.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots into this directory: report.html.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// What the relays of `path` receive and send with.
    #[arg(long, value_enum, default_value_t = Port::Auto)]
    port: Port,
    /// Run hop also in a build for this processor; without --quick that is so anyway.
    #[arg(long)]
    native: bool,
    /// Set-up and build are done (for the second half, under sudo).
    #[arg(long, hide = true)]
    built: bool,
}

fn names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(BENCHMARKS.map(|(name, _)| name))
}

/// Runs the benchmarks.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |name: &str| {
        arguments.which.is_empty() || arguments.which.iter().any(|wanted| wanted == name)
    };
    let needs_root = BENCHMARKS
        .iter()
        .any(|(name, needs_root)| *needs_root && wanted(name));
    let native = wanted("hop") && (arguments.native || !arguments.quick);
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
    command
        .args(&arguments.which)
        .args(["--port", arguments.port.name()]);
    if arguments.quick {
        command.arg("--quick");
    }
    if native {
        command
            .arg("--native")
            .arg(native_directory().join("release/mixline-bench"));
    }
    if let Some(file) = &arguments.json {
        command.arg("--json").arg(file);
    }
    if let Some(directory) = &arguments.report {
        command.arg("--report").arg(directory);
    }
    let status = command.status().context("running mixline-bench")?;
    let report = arguments.report.as_deref();
    let page = report.map(|directory| directory.join("report.html"));
    let written = [arguments.json.as_deref(), report, page.as_deref()];
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
