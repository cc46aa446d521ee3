//! The licences of the libraries that are linked into a program, for its package.

use crate::run::said;
use anyhow::{Context, Result};
use mixline_testnet::programs;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Beginnings of the names of files that hold a licence or what it asks to be passed on.
const NAMES: &[&str] = &[
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for what is in this working copy.
    source: Option<String>,
    manifest_path: PathBuf,
}

/// The libraries of others in a program, one a line, and then each text that came with them, once,
/// with the libraries that it is about.
pub fn of_libraries(program: &str) -> Result<String> {
    let metadata = said(programs::cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("reading what cargo metadata says")?;
    let tree = said(
        programs::cargo()
            .args(["tree", "--locked", "--package", program])
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]),
    )?;
    let linked: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
    let mut text = format!(
        "Libraries that are linked into {program}, with their licences. The texts follow.\n\n"
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &metadata.packages {
        let (name, version) = (&package.name, &package.version);
        if package.source.is_none() || !linked.contains(&(name.as_str(), version.as_str())) {
            continue;
        }
        let licence = package.license.as_deref().unwrap_or("see its text");
        writeln!(text, "{name} {version}: {licence}")?;
        let directory = package.manifest_path.parent();
        for of_library in directory.map(texts_in).unwrap_or_default() {
            let libraries = texts.entry(of_library).or_default();
            libraries.push(format!("{name} {version}"));
        }
    }
    for (of_library, libraries) in texts {
        writeln!(text, "\n\n== {}\n\n{}", libraries.join(", "), of_library)?;
    }
    Ok(text)
}

/// A line of `cargo tree`: `name v1.2.3 (...)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

/// The texts in the directory of a library.
fn texts_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            NAMES.iter().any(|begin| name.starts_with(begin))
        })
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .map(|text| text.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_named_with_its_text_and_what_is_ours_is_not() {
        // Under sudo, where all of these tests run for the sake of one, there may be none.
        if programs::cargo().arg("--version").output().is_err() {
            println!("skipped: needs cargo");
            return;
        }
        let text = of_libraries("mixline-directory").unwrap();
        let (list, texts) = text.split_once("\n\n== ").unwrap();
        assert!(list.lines().any(|line| line.starts_with("ring ")), "{list}");
        assert!(!list.contains("mixline-protocol"));
        // A library of tests only.
        assert!(!list.contains("proptest"));
        assert!(texts.contains("Permission is hereby granted"));
    }
}
