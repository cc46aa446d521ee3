//! `cargo xtask test` and `cargo xtask ci`.

use crate::setup::{self, Purpose};
use crate::{dependencies, pkg_test, run, test, vm_test, workspaces};
use anyhow::{Result, bail};
use mixline_testnet::programs;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::time::{Duration, Instant};

/// What `cargo xtask ci` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// Instead of all of it, only lint and test the benchmarks that measure others' code beside
    /// ours: its 200 crates take minutes to compile, and change with nothing in this project.
    #[arg(long)]
    peers: bool,
    /// Also what takes long: the relay on network cards in a virtual machine.
    #[arg(long, conflicts_with = "peers")]
    all: bool,
}

/// Everything that must hold, the quick checks first.
pub fn run(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    if arguments.peers {
        return peers();
    }
    step("set-up", || set_up(Purpose::Ci))?;
    step("format", || in_all(workspaces::Workspace::check_format))?;
    step(
        "licences, sources and names of dependencies",
        dependencies::deny,
    )?;
    step("borders between crates", dependencies::borders)?;
    // The longest test runs beside what is compiled and packed, and before what measures.
    let begun = step("programs", || test::begin(None))?;
    step("lints", || in_all(workspaces::Workspace::lint))?;
    step("documentation", || {
        run::finish(
            programs::cargo()
                .args(["doc", "--workspace", "--no-deps", "--quiet"])
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })?;
    let tests = step("tests, compiled", test::build_all)?;
    let mut summary = step("examples", || test::documentation(None))?;
    // Of the ten minutes of packages and tests, most are waiting.
    let packages = step("packages", pkg_test::begin);
    summary += step("tests", || begun.run(&tests, None))?;
    let packaged = packages.and_then(|packages| {
        if let Some(packages) = packages {
            summary += packages.end()?;
        }
        Ok(())
    });
    if arguments.all {
        step("network cards in a virtual machine", vm_test::all)?;
    }
    println!("== all of it: {} s", began.elapsed().as_secs());
    test::conclude(&summary).and(packaged)
}

/// All tests, or those whose names contain `filter`. Those on networks of namespaces run the
/// optimised programs, which are built first.
pub fn test_all(filter: Option<&str>) -> Result<()> {
    set_up(Purpose::All)?;
    let begun = test::begin(filter)?;
    let tests = test::build_all()?;
    let mut summary = test::documentation(filter)?;
    summary += begun.run(&tests, filter)?;
    test::conclude(&summary)
}

/// The benchmarks with their feature `peers`.
fn peers() -> Result<()> {
    let of_bench = ["--package", "mixline-bench", "--features", "peers"];
    step("set-up", || set_up(Purpose::All))?;
    step("lints of the benchmarks with peers", || {
        run::finish(
            programs::cargo()
                .args(["clippy", "--all-targets"])
                .args(of_bench)
                .args(["--", "-Dwarnings"]),
        )
    })?;
    step("tests of the benchmarks with peers", || {
        run::finish(programs::cargo().arg("test").args(of_bench))
    })
}

fn set_up(purpose: Purpose) -> Result<()> {
    if !setup::ensure(purpose)? {
        bail!("this machine lacks what the tests need");
    }
    Ok(())
}

fn in_all(check: impl Fn(&workspaces::Workspace) -> Result<()>) -> Result<()> {
    for workspace in workspaces::ALL {
        println!("{}", workspace.manifest);
        check(workspace)?;
    }
    Ok(())
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    let (began, before) = (Instant::now(), processor_time());
    let outcome = work();
    println!(
        "== {name}: {} s, {} s of processors",
        began.elapsed().as_secs(),
        processor_time().saturating_sub(before).as_secs()
    );
    outcome.map_err(|error| error.context(name.to_owned()))
}

/// How long processors have worked for programs that were started here and have ended.
fn processor_time() -> Duration {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        let time = usage.user_time() + usage.system_time();
        Duration::from_micros(time.num_microseconds().try_into().unwrap_or(0))
    })
}
