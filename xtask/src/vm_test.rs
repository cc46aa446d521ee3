//! `cargo xtask vm-test`: the relay on network cards, and a relay's disk image, in virtual machines.

mod image;

use crate::{privileges, run, setup};
use anyhow::{Context, Result, bail};
use mixline_machines::archive::Archive;
use mixline_machines::disk::Disk;
use mixline_machines::kernel::Kernel;
use mixline_machines::lock::Lock;
use mixline_machines::machine::{Card, Machine, Setup};
use mixline_machines::tree::Tree;
use mixline_testnet::Programs;
use mixline_testnet::programs::{self, target_directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What `cargo xtask vm-test` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// A part of the names of the tests on cards to run; `image`: boot the disk image. All by default.
    name: Option<String>,
    /// Set-up and build are done (for the second half, under sudo): the test program for cards.
    #[arg(long, hide = true, value_name = "FILE")]
    built: Option<PathBuf>,
}

impl Arguments {
    fn wants_image(&self) -> bool {
        self.name.as_deref().is_none_or(|name| name == image::NAME)
    }

    fn wants_cards(&self) -> bool {
        self.name.as_deref() != Some(image::NAME)
    }
}

/// How long all tests in a machine may take.
const ALL: Duration = Duration::from_secs(3000);

/// Runs all tests, for CI.
pub fn all() -> Result<()> {
    let all = Arguments {
        name: None,
        built: None,
    };
    if run(&all)? != ExitCode::SUCCESS {
        bail!("tests in the virtual machine failed");
    }
    Ok(())
}

/// Runs the tests.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let test = match &arguments.built {
        Some(test) => test.clone(),
        None => {
            let purpose = if arguments.wants_image() {
                setup::Purpose::Ci
            } else {
                setup::Purpose::All
            };
            if !setup::ensure(purpose)? {
                bail!("this machine lacks something: see above");
            }
            run::build(false)?;
            if arguments.wants_image() {
                image::prepare()?;
            }
            if arguments.wants_cards() {
                build()?
            } else {
                PathBuf::new()
            }
        }
    };
    let more = format!("--built={}", test.display());
    if let Some(code) = privileges::as_root(&[&more])? {
        return Ok(code);
    }
    let began = Instant::now();
    let say = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let cache = mixline_machines::cache_directory();
    say(&format!(
        "what machines are made of is kept in {}",
        cache.display()
    ));
    let _lock = Lock::take(&cache, || say("another run has them: waiting for its end"))?;
    let archive = Archive::open(&cache.join("apt"))?;
    setup::ensure_machines(&archive)?;
    say("a tree of Debian");
    let tree = Tree::get(&archive, archive.suite(), &cache)?;
    say("a kernel");
    let kernel = Kernel::get(&archive, &cache)?;
    say(&format!("a disk with kernel {}", kernel.release));
    let disk = Disk::get(&archive, &tree, &kernel, &cache)?;
    let mut passed = true;
    if arguments.wants_cards() {
        let filter = arguments.name.as_deref().unwrap_or_default();
        passed &= cards(&disk, &test, filter, &say)?;
    }
    if arguments.wants_image() {
        passed &= image::test(&archive, &disk, &cache)?;
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the tests on cards whose names contain `filter`; whether all passed.
fn cards(disk: &Disk, test: &Path, filter: &str, say: &dyn Fn(&str)) -> Result<bool> {
    mixline_testnet::end_on_signals()?;
    say("the machine starts");
    let directory = target_directory().join("machines/cards");
    let _own = GiveBack(&directory);
    let shared = share(&directory, test)?;
    let cards = [
        ("igb", Card::igb as fn(u32, u8) -> Card),
        ("virtio_net", Card::virtio),
        ("e1000e", Card::e1000e),
    ];
    let mut setup = Setup {
        name: "cards".into(),
        processors: 2,
        memory: 2048,
        cards: Vec::new(),
        joints: Vec::new(),
        shared,
        directory: directory.clone(),
    };
    let mut named = Vec::new();
    for (cable, (driver, card)) in (1..).zip(cards) {
        let (near, far) = (card(cable, 1), card(cable, 2));
        named.push(format!("{driver}={},{}", near.mac, far.mac));
        setup.cards.extend([near, far]);
    }
    let mut machine = Machine::start(disk, &setup)?;
    say("its shell is there");
    if filter.contains('\'') {
        bail!("no test has such a name");
    }
    let answer = machine.run_shown(
        &format!(
            // Each start of a program from the host's directory would read it anew.
            "cp -r /host /root/programs && MIXLINE_CARDS='{}' CARGO_TARGET_DIR=/root/programs \
             {}=/run/testnet /root/programs/cards '{filter}'",
            named.join(" "),
            programs::DIRECTORY
        ),
        ALL,
        |line| say(&format!("  {line}")),
    )?;
    say("done");
    if answer != 0 {
        eprintln!("the end of the machine's console:\n{}", machine.console());
    }
    Ok(answer == 0)
}

/// Gives a directory to the user who asked, whatever comes of it.
struct GiveBack<'a>(&'a Path);

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        privileges::give_to_user(self.0);
    }
}

/// Lays what the machine needs into a directory that it sees.
fn share(directory: &Path, test: &Path) -> Result<PathBuf> {
    let shared = directory.join("host");
    let release = shared.join("release");
    fs::create_dir_all(&release)?;
    let programs = Programs::release()?;
    for program in [&programs.directory, &programs.relay, &programs.client] {
        let name = program.file_name().context("a program without a name")?;
        fs::copy(program, release.join(name))?;
    }
    fs::copy(test, shared.join("cards"))?;
    Ok(shared)
}

/// Builds the test program that runs in the machine.
fn build() -> Result<PathBuf> {
    let output = programs::cargo()
        .args([
            "test",
            "--no-run",
            "--locked",
            "--package",
            "mixline-testnet",
        ])
        .args([
            "--test",
            "cards",
            "--message-format=json-render-diagnostics",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo test")?
        .wait_with_output()?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "cards")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo did not say where the test program is")
}
