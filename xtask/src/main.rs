//! `cargo xtask`: everything that one does with a working copy, from an empty machine to the last
//! check before a change is handed in.

mod against;
mod bench;
mod beside;
mod ci;
mod demo;
mod dependencies;
mod image;
mod licences;
mod package;
mod packaging_tools;
mod pkg_test;
mod privileges;
mod report;
mod run;
mod setup;
mod slowest;
mod summary;
mod test;
mod tools;
mod vectors;
mod vm_test;
mod workspaces;
mod xdp_tools;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Set-up, demo, tests, benchmarks and CI of Mixline.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the demo, the tests and the benchmarks need and this machine lacks (Debian).
    Setup(setup::Arguments),
    /// Build the programs, optimised.
    Build,
    /// A whole network on this machine: fetch a page and 100 MB through it, then keep it for trying.
    Demo(demo::Arguments),
    /// All tests, those on networks of namespaces included. What needs root is run by sudo. The last
    /// line says how many passed, failed, and were skipped.
    Test {
        /// For the test programs: a part of the names of the tests to run.
        filter: Option<String>,
    },
    /// Everything that must hold before a change is handed in: format, dependencies, lints, tests,
    /// documentation.
    Ci(ci::Arguments),
    /// Check the project's own path cryptography against a file of test vectors.
    Vectors {
        /// The vectors (JSON).
        file: PathBuf,
    },
    /// The relay on network cards with their own drivers, in a virtual machine (QEMU).
    VmTest(vm_test::Arguments),
    /// Make the packages of relay, directory and client (.deb), and look for faults in them.
    Package(package::Arguments),
    /// Make a disk image of a relay: Debian and the relay's package, for bare metal with UEFI.
    ///
    /// Write it to a disk (dd), put mixline-relay.yaml on its EFI partition, where an example lies,
    /// and boot: docs/operations.md, "A relay from a disk image".
    Image(image::Arguments),
    /// The packages in a container with systemd: installed, upgraded, removed.
    PkgTest(pkg_test::Arguments),
    /// Measure, beside bare primitives and beside others' code.
    Bench(bench::Arguments),
    /// Run these tests (for the second half of `test`, under sudo).
    #[command(hide = true)]
    RunTests {
        /// Which (JSON).
        task: String,
    },
    /// Remove what a killed demo or test left: processes, namespaces, files in /etc/netns.
    CleanTestnet,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Build => run::build(false).map(|()| ExitCode::SUCCESS),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test { filter } => ci::test_all(filter.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Ci(arguments) => ci::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Vectors { file } => vectors::run(&file),
        Task::VmTest(arguments) => vm_test::run(&arguments),
        Task::Package(arguments) => package::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Image(arguments) => image::run(&arguments),
        Task::PkgTest(arguments) => pkg_test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::RunTests { task } => test::run_task(&task),
        Task::CleanTestnet => clean_testnet(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn clean_testnet() -> Result<ExitCode> {
    if let Some(code) = privileges::as_root(&[])? {
        return Ok(code);
    }
    mixline_testnet::network::clean_up()?;
    mixline_testnet::network::clean_up_apart(&test::files_apart())?;
    mixline_testnet::apart::clean_up();
    println!("nothing is left of the testnet");
    Ok(ExitCode::SUCCESS)
}
