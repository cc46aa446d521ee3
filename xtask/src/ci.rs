//! `cargo xtask test` and `cargo xtask ci`.

use crate::setup::{self, Purpose};
use crate::{licences, run, xdp_tools};
use anyhow::{Result, bail};
use mixline_testnet::programs;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Everything that must hold, the quick checks first.
pub fn run() -> Result<()> {
    let began = Instant::now();
    step("set-up", set_up)?;
    step("format", || run::cargo(["fmt", "--all", "--", "--check"]))?;
    step("licences", || {
        println!(
            "{} dependencies, all with licences that deny.toml allows",
            licences::check()?
        );
        Ok(())
    })?;
    step("cargo deny", cargo_deny)?;
    step("lints", || {
        run::cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            // All but the benchmarks' `peers`: 200 crates of others, which take minutes.
            "--features=mixline-protocol/vectors",
            "--",
            "-Dwarnings",
        ])
    })?;
    step("tests", || all_tests(None))?;
    step("tests of the XDP program", xdp_program_tests)?;
    step("documentation", || {
        run::finish(
            programs::cargo()
                .args(["doc", "--workspace", "--no-deps", "--quiet"])
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })?;
    println!("== all of it: {} s", began.elapsed().as_secs());
    Ok(())
}

/// All tests. Those on networks of namespaces run the optimised programs, which are built first.
pub fn test(filter: Option<&str>) -> Result<()> {
    set_up()?;
    all_tests(filter)?;
    if filter.is_none() {
        xdp_program_tests()?;
    }
    Ok(())
}

fn set_up() -> Result<()> {
    if !setup::ensure(Purpose::All)? {
        bail!("this machine lacks what the tests need");
    }
    Ok(())
}

/// The XDP program is a workspace of its own. Its tests run it in the kernel, as it was built for
/// the relay.
fn xdp_program_tests() -> Result<()> {
    let mut command = programs::cargo();
    command.args(["test", "--manifest-path", "relay-ebpf/Cargo.toml"]);
    match xdp_tools::built_program() {
        Some(program) => {
            command.env("MIXLINE_XDP_OBJECT", program);
        }
        None => println!("no XDP program was built: its tests in the kernel cannot run"),
    }
    run::finish(&mut command)
}

fn all_tests(filter: Option<&str>) -> Result<()> {
    run::build(true)?;
    let mut arguments = vec!["test", "--workspace"];
    arguments.extend(filter);
    run::cargo(arguments)
}

/// Runs `cargo deny` where it is installed; its advisories need the network, so they are left to
/// whoever has one.
fn cargo_deny() -> Result<()> {
    let there = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        println!("skipped: not installed (cargo install cargo-deny)");
        return Ok(());
    }
    run::cargo(["deny", "check", "bans", "licenses", "sources"])
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    let outcome = work();
    println!("== {name}: {} s", began.elapsed().as_secs());
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => bail!("{name}: {error:#}"),
    }
}
