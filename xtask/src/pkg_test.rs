//! `cargo xtask pkg-test`: the packages as an operator has them, in a container with systemd as its
//! first process and no network but its own.

use crate::beside::Beside;
use crate::setup::{self, Purpose};
use crate::{package, privileges, run};
use anyhow::{Context, Result, bail};
use capture::around;
use checks::{Checks, SHORT};
use life::Tried;
use mixline_machines::archive::Archive;
use mixline_machines::container::{Container, Setup};
use mixline_machines::tree::Tree;
use mixline_testnet::programs::target_directory;
use mixline_testnet::skip;
use network::By;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use way_out::Outside;

mod attempts;
mod before;
mod boots;
mod capture;
pub mod checks;
mod deaths;
mod dhcp;
mod init;
mod leaks;
mod life;
mod locked;
mod network;
mod networkd;
mod packages;
mod resolver;
mod way_out;

/// What `cargo xtask pkg-test` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// Packages of a former release, to be upgraded from; by default, those of this build with another
    /// revision are. What this release does otherwise is not tested then.
    #[arg(long, value_name = "DIR")]
    before: Option<PathBuf>,
    /// Packages are made (for the second half, under sudo).
    #[arg(long, hide = true)]
    built: bool,
    /// Start a container, say what it is known by, and wait (for the test that kills this program).
    #[arg(long, hide = true)]
    hold: bool,
}

/// Runs the test.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.hold {
        return hold();
    }
    if !arguments.built {
        if !setup::ensure(Purpose::Packages)? {
            bail!("this machine lacks something: see above");
        }
        run::build(false)?;
        make(arguments.before.as_deref())?;
        if let Some(code) = privileges::as_root(&["--built"])? {
            return Ok(code);
        }
    }
    Ok(if test(arguments.before.is_some())? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// As a part of all checks, after set-up and builds: makes the packages, and starts their test beside what
/// follows. Nothing where there is no root.
///
/// # Errors
/// If the packages cannot be made or have faults.
pub fn begin() -> Result<Option<Beside>> {
    run::build(false)?;
    make(None)?;
    let arguments = ["pkg-test", "--built"];
    let command = if privileges::is_root() {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(arguments);
        command
    } else if privileges::can_ask() || skip::is_required() {
        privileges::sudo(arguments)?
    } else {
        println!("skipped: containers need root");
        return Ok(None);
    };
    // A container ends when its starter is killed.
    Beside::start("packages", &command, || Ok(())).map(Some)
}

/// Makes the packages, and has lintian look at them: those that are installed first, in `old`, or
/// those of a former release; and those that they are upgraded to, in `new`.
fn make(before: Option<&Path>) -> Result<()> {
    let [old, new] = ["old", "new"].map(|name| shared().join(name));
    for directory in [&old, &new] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    let version = version(2);
    match before {
        Some(before) => before::copy(before, &old, &version)?,
        None => drop(package::make(&self::version(1), &old)?),
    }
    package::lint(&package::make(&version, &new)?)
}

/// A version of this release's packages.
fn version(revision: u8) -> String {
    format!("{}-{revision}", env!("CARGO_PKG_VERSION"))
}

/// What the container sees at `/host`.
fn shared() -> PathBuf {
    target_directory().join("machines/packages/host")
}

fn start(name: &str) -> Result<Container> {
    let cache = mixline_machines::cache_directory();
    let archive = Archive::open(&cache.join("apt"))?;
    setup::ensure_containers(&archive)?;
    let tree = Tree::get(&archive, archive.suite(), &cache)?;
    Ok(Container::start(
        &tree,
        &Setup {
            name: name.to_owned(),
            shared: shared(),
            directory: target_directory().join("machines/packages"),
        },
    )?)
}

/// As root: starts the container, and runs all checks in it, or those of an upgrade from a former
/// release. Gives whether all passed.
fn test(from_former: bool) -> Result<bool> {
    let mut checks = Checks::begin();
    if !from_former {
        checks.check(
            "a container ends when its starter is killed",
            killed_starter,
        );
    }
    let mut container = start("packages")?;
    checks.say("the container runs");
    packages::arrive(&mut checks, &mut container);
    if from_former {
        network::run(&mut checks, &mut container, By::Example);
        life::upgrades(&mut checks, &mut container, Tried::Never);
        packages::is_whole(&mut checks, &mut container);
    } else {
        packages::is_whole(&mut checks, &mut container);
        packages::is_quiet(&mut checks, &mut container);
        network::run(&mut checks, &mut container, By::Init);
        living(&mut checks, &mut container);
        around(
            &mut checks,
            &mut container,
            "newer packages",
            &[],
            |checks, container| {
                life::upgrades(checks, container, Tried::AllTheTime);
                life::goes_over_to_xdp(checks, container);
            },
        );
    }
    packages::remove(&mut checks, &mut container);
    checks.check("what ran beside them ends", || network::end(&mut container));
    packages::purge(&mut checks, &mut container);
    if checks.failed > 0 {
        eprintln!("what the units said:\n{}", journal(&mut container));
    }
    drop(container);
    privileges::give_to_user(&target_directory().join("machines"));
    checks.repeat_failures();
    println!("{} passed, {} failed", checks.passed, checks.failed);
    Ok(checks.failed == 0)
}

/// The checks of a host whose client is up, while everything that leaves it is captured.
fn living(checks: &mut Checks, container: &mut Container) {
    let mut outside = None;
    checks.check("a wire leads outside", || {
        outside = Some(Outside::make(container)?);
        Ok(())
    });
    let Some(mut outside) = outside else { return };
    let virtual_lan = [1];
    around(
        checks,
        container,
        "systemd-networkd",
        &[],
        |checks, container| {
            networkd::run(checks, container, &mut outside);
        },
    );
    around(checks, container, "the lock", &[], network::closed);
    around(checks, container, "systemd-resolved", &[], resolver::run);
    around(checks, container, "`lock: always`", &[], locked::run);
    boots::run(checks, container);
    around(checks, container, "DHCP", &virtual_lan, dhcp::run);
    around(
        checks,
        container,
        "what befalls units",
        &[],
        |checks, container| {
            life::run(checks, container);
            deaths::run(checks, container);
        },
    );
    checks.check("the wire ends", || way_out::end(container));
}

fn journal(container: &mut Container) -> String {
    container
        .run(
            "journalctl --no-pager --output=short-unix --lines=120 --grep='ixline' | tail -n 120",
            SHORT,
        )
        .map(|answer| answer.output)
        .unwrap_or_default()
}

/// Starts this program again with a container, and kills it.
fn killed_starter() -> Result<()> {
    // Also if a build has replaced the file since.
    let mut starter = Command::new("/proc/self/exe")
        .args(["pkg-test", "--hold"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("running this program")?;
    let output = starter.stdout.take().context("no output")?;
    let line = BufReader::new(output).lines().next();
    starter.kill()?;
    starter.wait()?;
    let line = line.context("the starter ended by itself")??;
    let (leader, group) = line
        .split_once(' ')
        .context("the starter said something else")?;
    let traces = [Path::new("/proc").join(leader), PathBuf::from(group)];
    let end = Instant::now() + Duration::from_secs(10);
    while traces.iter().any(|trace| trace.exists()) {
        if Instant::now() > end {
            bail!("10 s after it was killed, one of {traces:?} is there");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn hold() -> Result<ExitCode> {
    let container = start("held")?;
    let (leader, group) = container.traces();
    println!("{leader} {}", group.display());
    loop {
        std::thread::park();
    }
}
