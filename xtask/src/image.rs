//! `cargo xtask image`: a disk image of a relay, from the package that `cargo xtask package` makes.

use crate::setup::{self, Purpose};
use crate::{package, privileges, run};
use anyhow::{Result, bail};
use mixline_machines::archive::Archive;
use mixline_machines::image;
use mixline_machines::lock::Lock;
use mixline_testnet::programs::{self, root, target_directory};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// The program in the image.
pub const PROGRAM: &str = "mixline-relay";

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// The file to make; by default in target/images, with the version in its name.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The package is made (for the second half, under sudo).
    #[arg(long, hide = true, value_name = "FILE")]
    package: Option<PathBuf>,
}

/// Makes the image.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let version = package::version();
    let package = match &arguments.package {
        Some(package) => package.clone(),
        None => {
            if !setup::ensure(Purpose::Packages)? {
                bail!("this machine lacks something: see above");
            }
            run::build(false)?;
            if programs::xdp_program().is_none() {
                bail!(
                    "no XDP program was built (`cargo xtask setup`): an image is for cards of bare metal"
                );
            }
            package::make_one(PROGRAM, &version, &target_directory().join("packages"))?
        }
    };
    let more = format!("--package={}", package.display());
    if let Some(code) = privileges::as_root(&[&more])? {
        return Ok(code);
    }
    let began = Instant::now();
    let say = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let cache = mixline_machines::cache_directory();
    let _lock = Lock::take(&cache, || {
        say("another run has the trees: waiting for its end")
    })?;
    let archive = Archive::open(&cache.join("apt"))?;
    let directory = target_directory().join("images");
    let to = arguments
        .output
        .clone()
        .unwrap_or_else(|| directory.join(format!("{PROGRAM}_{version}_amd64.img")));
    say("Debian, the package, a disk: some minutes at the first time");
    make(&archive, &package, &cache, &to)?;
    let own = if arguments.output.is_some() {
        &to
    } else {
        &directory
    };
    privileges::give_to_user(own);
    let metadata = fs::metadata(&to)?;
    say(&format!(
        "{}: {} MB, of which {} are taken",
        to.display(),
        metadata.len() / 1_000_000,
        metadata.blocks() * 512 / 1_000_000
    ));
    println!("how to go on: docs/operations.md, \"A relay from a disk image\"");
    Ok(ExitCode::SUCCESS)
}

/// As root: installs what it takes, and makes the image of a package.
pub fn make(archive: &Archive, package: &Path, cache: &Path, to: &Path) -> Result<()> {
    setup::ensure_images(archive)?;
    let files = root().join("packaging/image");
    Ok(image::make(archive, package, &files, cache, to)?)
}
