//! `cargo xtask package`: packages of Debian's from the release builds, by `cargo deb`; what a package
//! holds is said in `package.metadata.deb` of the program's `Cargo.toml`.

use crate::packaging_tools::CARGO_DEB;
use crate::run::said;
use crate::setup::{self, Purpose};
use crate::{licences, privileges, run};
use anyhow::{Context, Result, bail};
use mixline_testnet::Programs;
use mixline_testnet::programs::{self, root, target_directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who is named as the maintainer in `package.metadata.deb`, and in the changelog.
const MAINTAINER: &str = "Mixline contributors <contributors@mixline.invalid>";

/// What `cargo xtask package` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// The version, with Debian's revision; by default, that of the programs and 1.
    #[arg(long, value_name = "VERSION")]
    deb_version: Option<String>,
}

/// Builds the programs and makes their packages.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !setup::ensure(Purpose::Packages)? {
        bail!("this machine lacks something: see above");
    }
    run::build(false)?;
    if programs::xdp_program().is_none() {
        println!("no XDP program was built (`cargo xtask setup`): this relay works on UDP sockets");
    }
    let version = arguments.deb_version.clone().unwrap_or_else(version);
    let packages = make(&version, &target_directory().join("packages"))?;
    lint(&packages)?;
    println!("install them by: apt install{}", names(&packages));
    Ok(())
}

/// The packages' version: that of the programs, first revision.
pub fn version() -> String {
    format!("{}-1", env!("CARGO_PKG_VERSION"))
}

/// Makes a package of each program, which is built, in a directory; those of other versions stay.
pub fn make(version: &str, to: &Path) -> Result<Vec<PathBuf>> {
    Programs::NAMES
        .into_iter()
        .map(|name| make_one(name, version, to))
        .collect()
}

/// Makes the package of one program.
pub fn make_one(name: &str, version: &str, to: &Path) -> Result<PathBuf> {
    let cargo_deb = CARGO_DEB
        .find()
        .context("cargo-deb is not installed: run `cargo xtask setup`")?;
    fs::create_dir_all(to)?;
    prepare(name, version, &date()?)?;
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let package = to.join(format!("{name}_{version}_{}.deb", architecture.trim()));
    run::finish(
        Command::new(&cargo_deb)
            .current_dir(root())
            .args(["--package", name, "--no-build", "--locked", "--quiet"])
            .args(["--strip", "--deb-version", version])
            .arg("--output")
            .arg(&package),
    )?;
    println!(
        "{}: {:.1} MB",
        package.display(),
        fs::metadata(&package)?.len() as f64 / 1e6
    );
    Ok(package)
}

/// Has lintian look at packages; fails if it finds an error.
pub fn lint(packages: &[PathBuf]) -> Result<()> {
    let mut command = Command::new("lintian");
    if privileges::is_root() {
        command.arg("--allow-root");
    }
    run::finish(
        command
            .args(["--fail-on", "error", "--tag-display-limit", "0"])
            .args(packages),
    )
}

/// Writes what the package of a program holds beside what is in the working copy.
fn prepare(name: &str, version: &str, date: &str) -> Result<()> {
    let release = target_directory().join("release");
    let place = release.join("package").join(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    run::finish(Command::new(release.join(name)).arg("manual").arg(&place))?;
    for page in fs::read_dir(place.join("man"))? {
        compress(&page?.path())?;
    }
    let changelog = format!(
        "{name} ({version}) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n \
         -- {MAINTAINER}  {date}\n"
    );
    compressed(&place.join("changelog.Debian"), &changelog)?;
    compressed(
        &place.join("third-party-licences"),
        &licences::of_libraries(name)?,
    )
}

/// Writes a file and compresses it, as Debian's policy asks of documents.
fn compressed(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    compress(path)
}

fn compress(path: &Path) -> Result<()> {
    run::finish(Command::new("gzip").args(["-9", "--no-name"]).arg(path))
}

/// When the source changed last, as a changelog has it: `SOURCE_DATE_EPOCH`, or the last commit's
/// time, or now.
fn date() -> Result<String> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| {
        let mut git = Command::new("git");
        git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
        said(&mut git).ok()
    });
    let at = match seconds {
        Some(seconds) => format!("@{}", seconds.trim()),
        None => "now".to_owned(),
    };
    let mut command = Command::new("date");
    command.args(["--utc", "--rfc-email", "--date", &at]);
    Ok(said(&mut command)?.trim().to_owned())
}

fn names(packages: &[PathBuf]) -> String {
    packages
        .iter()
        .map(|package| format!(" {}", package.display()))
        .collect()
}
