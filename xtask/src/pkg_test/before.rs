//! Packages of a former release, to upgrade from.

use crate::run;
use anyhow::{Context, Result, bail};
use mixline_testnet::Programs;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies the package of each program out of a directory, which has one of each; all are older than
/// `version`.
pub fn copy(from: &Path, to: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    let there: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    for program in Programs::NAMES {
        let package = only(program, &there).with_context(|| format!("in {}", from.display()))?;
        let old = field(package, "Version")?;
        let older = Command::new("dpkg")
            .args(["--compare-versions", &old, "lt", version])
            .status()
            .context("running dpkg")?;
        if !older.success() {
            bail!(
                "{} has version {old}, which is not before {version}",
                package.display()
            );
        }
        let name = package.file_name().context("no file name")?;
        fs::copy(package, to.join(name))
            .with_context(|| format!("copying {}", package.display()))?;
        println!("before: {program} {old}");
    }
    Ok(())
}

/// The package of a program among files.
fn only<'a>(program: &str, files: &'a [PathBuf]) -> Result<&'a Path> {
    let prefix = format!("{program}_");
    let mut packages = files.iter().filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".deb")
    });
    match (packages.next(), packages.next()) {
        (Some(package), None) => Ok(package),
        (None, _) => bail!("no package of {program}"),
        (Some(_), Some(_)) => bail!("more than one package of {program}"),
    }
}

/// A field of a package.
fn field(package: &Path, field: &str) -> Result<String> {
    let said = run::said(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(field),
    )?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_package_of_a_program_is_taken_and_no_guess_made() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let there = files(&[
            "d/mixline-relay_1-1_amd64.deb",
            "d/mixline-client_1-1_amd64.deb",
        ]);
        let found = only("mixline-relay", &there).unwrap();
        assert_eq!(found, Path::new("d/mixline-relay_1-1_amd64.deb"));
        assert!(only("mixline-directory", &there).is_err());
        let two = files(&["mixline-relay_1-1_amd64.deb", "mixline-relay_2-1_amd64.deb"]);
        assert!(only("mixline-relay", &two).is_err());
    }
}
