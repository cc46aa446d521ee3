//! `cargo xtask test` and `cargo xtask ci`.

use crate::{licences, run, setup};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Everything that must hold, the quick checks first.
pub fn run() -> Result<()> {
    let began = Instant::now();
    step("set-up", || match setup::ensure(false)? {
        true => Ok(()),
        false => bail!("this machine lacks what the tests need"),
    })?;
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
            "--all-features",
            "--",
            "-Dwarnings",
        ])
    })?;
    step("tests", || test(None))?;
    step("documentation", || {
        run::finish(
            run::cargo_command()
                .args(["doc", "--workspace", "--no-deps", "--quiet"])
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })?;
    println!("== all of it: {} s", began.elapsed().as_secs());
    Ok(())
}

/// All tests. Those on networks of namespaces run the optimised programs, which are built first.
pub fn test(filter: Option<&str>) -> Result<()> {
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
