//! Every dependency's licence must be one that `deny.toml` allows.
//!
//! `cargo deny` checks this and more, but takes minutes to build; this holds without it.

use anyhow::{Context, Result, bail};
use mixline_testnet::programs;
use serde::Deserialize;
use std::fs;

/// The project's workspaces, each with a lock file of its own.
const WORKSPACES: [&str; 4] = [
    "Cargo.toml",
    "bench/ebpf/Cargo.toml",
    "relay-ebpf/Cargo.toml",
    "fuzz/Cargo.toml",
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
    /// None for the project's own.
    source: Option<String>,
}

/// Checks all dependencies; gives their number.
pub fn check() -> Result<usize> {
    let text =
        fs::read_to_string(programs::root().join("deny.toml")).context("reading deny.toml")?;
    let allowed = allowed(&text).context("no `allow = [...]` under [licenses] in deny.toml")?;
    let root = programs::root();
    let mut count = 0;
    let mut wrong = Vec::new();
    for manifest in WORKSPACES
        .iter()
        .map(|path| root.join(path))
        .filter(|path| path.exists())
    {
        let output = programs::cargo()
            .args([
                "metadata",
                "--format-version",
                "1",
                "--all-features",
                "--locked",
                "--manifest-path",
            ])
            .arg(&manifest)
            .output()
            .context("running cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        for package in metadata
            .packages
            .iter()
            .filter(|package| package.source.is_some())
        {
            count += 1;
            let licence = package.license.as_deref().unwrap_or("none stated");
            if !holds(licence, &allowed) {
                wrong.push(format!("{} {} ({licence})", package.name, package.version));
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "licences that deny.toml does not allow: {}",
            wrong.join(", ")
        );
    }
    Ok(count)
}

/// The strings of the `allow` list in the `[licenses]` section.
fn allowed(deny_toml: &str) -> Option<Vec<String>> {
    let (_, section) = deny_toml.split_once("[licenses]")?;
    let (_, list) = section.split_once("allow = [")?;
    let (list, _) = list.split_once(']')?;
    Some(
        list.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect(),
    )
}

/// Whether an SPDX expression can be met with the allowed licences only. `AND` binds closer than
/// `OR`; old packages write `/` for `OR`.
fn holds(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = both(rest, allowed);
    while let [first, others @ ..] = *rest
        && *first == "OR"
    {
        *rest = others;
        met |= both(rest, allowed);
    }
    met
}

fn both(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = one(rest, allowed);
    while let [first, others @ ..] = *rest
        && *first == "AND"
    {
        *rest = others;
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    match *rest {
        ["(", others @ ..] => {
            *rest = others;
            let met = either(rest, allowed);
            let [")", others @ ..] = *rest else {
                return false;
            };
            *rest = others;
            met
        }
        // An exception only ever adds permissions to the licence that it follows.
        [licence, "WITH", _, others @ ..] | [licence, others @ ..] => {
            *rest = others;
            allowed.iter().any(|name| name == licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(holds(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "",
            "(MIT",
            "MIT MIT",
            "MIT AND (GPL-2.0 OR X)",
        ] {
            assert!(!holds(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn the_list_of_deny_toml() {
        let toml =
            "[bans]\nallow = [\"no\"]\n[licenses]\nallow = [\n  \"MIT\", # ours\n  \"ISC\",\n]\n";
        assert_eq!(allowed(toml).unwrap(), ["MIT", "ISC"]);
        assert!(allowed("[bans]").is_none());
    }
}
