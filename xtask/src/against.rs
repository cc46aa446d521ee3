//! `cargo xtask bench hop --against COMMIT`: this code and that of a commit, in turns in one run, so that what
//! else the machine does meets both.

use crate::bench::cli::Name;
use crate::run;
use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::programs::{self, root, target_directory};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Turns of each.
const TURNS: usize = 5;
/// The same with `--quick`.
const QUICK_TURNS: usize = 2;
/// What may be compared: the others need programs beside them, which are not built for another commit.
const COMPARED: [Name; 3] = [Name::Hop, Name::Scale, Name::Endpoint];

/// Figures by what they are called.
type Figures = BTreeMap<String, f64>;

/// Builds both, runs them in turns, and prints what each took.
///
/// # Errors
/// If a benchmark cannot be compared, there is no such commit, or something cannot be built or run.
pub fn compare(commit: &str, which: &[Name], quick: bool) -> Result<ExitCode> {
    let which = if which.is_empty() { &COMPARED } else { which };
    if let Some(other) = which.iter().find(|name| !COMPARED.contains(name)) {
        bail!(
            "--against compares hop, scale and endpoint, and not {}",
            other.as_str()
        );
    }
    let commit = full_name(commit)?;
    has_all(&commit, which)?;
    let before = build_of(&commit)?;
    run::cargo(["build", "--release", "--package", "mixline-bench"])?;
    let after = target_directory().join("release/mixline-bench");
    let mut turns = Vec::new();
    for turn in 1..=if quick { QUICK_TURNS } else { TURNS } {
        eprintln!("turn {turn}: before, and after");
        turns.push([measure(&before, which)?, measure(&after, which)?]);
    }
    print!("{}", table(&commit, &turns));
    Ok(ExitCode::SUCCESS)
}

/// A commit's 40 digits.
fn full_name(commit: &str) -> Result<String> {
    let found = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{commit}^{{commit}}"))
        .current_dir(root())
        .output()
        .context("running git")?;
    ensure!(found.status.success(), "there is no commit `{commit}`");
    Ok(String::from_utf8(found.stdout)?.trim().to_owned())
}

/// Fails, before anything is built, if a commit has not all of these benchmarks.
fn has_all(commit: &str, which: &[Name]) -> Result<()> {
    let names = Command::new("git")
        .args(["show", &format!("{commit}:bench/src/cli.rs")])
        .current_dir(root())
        .output()
        .context("running git")?;
    let names = String::from_utf8_lossy(&names.stdout);
    match missing(&names, which) {
        Some(name) => bail!("{commit} has no benchmark `{}`", name.as_str()),
        None => Ok(()),
    }
}

/// The first of these that is none of the names in a source text.
fn missing(names: &str, which: &[Name]) -> Option<Name> {
    let is_there = |name: &Name| names.contains(&format!("\"{}\"", name.as_str()));
    which.iter().copied().find(|name| !is_there(name))
}

/// The benchmarks as a commit has them. Its files, and what was built of them, stay below the target directory.
fn build_of(commit: &str) -> Result<PathBuf> {
    let directory = target_directory().join("against").join(commit);
    let program = directory.join("target/release/mixline-bench");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&directory)?;
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .context("running git")?;
    let files = archive.stdout.take().context("git has no output")?;
    let unpacked = Command::new("tar")
        .arg("--extract")
        .arg("--directory")
        .arg(&directory)
        .stdin(files)
        .status()
        .context("running tar")?;
    ensure!(
        archive.wait()?.success() && unpacked.success(),
        "the files of {commit} cannot be unpacked"
    );
    run::finish(
        programs::cargo()
            .args(["build", "--release", "--package", "mixline-bench"])
            .current_dir(&directory)
            .env("CARGO_TARGET_DIR", directory.join("target")),
    )?;
    Ok(program)
}

/// One quick run of some benchmarks.
fn measure(program: &Path, which: &[Name]) -> Result<Figures> {
    let file = target_directory().join("against/figures.json");
    let status = Command::new(program)
        .args(which.iter().map(|name| name.as_str()))
        .args(["--quick", "--no-goals", "--json"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(status.success(), "{}: {status}", program.display());
    let json: Value = serde_json::from_reader(File::open(&file)?)?;
    let mut figures = Figures::new();
    for name in which {
        collect(name.as_str(), &json[name.as_str()], &mut figures);
    }
    Ok(figures)
}

/// The figures with a unit in their names, of objects and lists of cases.
fn collect(name: &str, value: &Value, figures: &mut Figures) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| *key != "spread") {
                collect(&format!("{name}.{key}"), value, figures);
            }
        }
        Value::Array(cases) => {
            for case in cases {
                collect(&format!("{name}({})", case["n"]), case, figures);
            }
        }
        Value::Number(number) => {
            let is_figure = ["ns", "_per_s", "bytes"]
                .iter()
                .any(|unit| name.ends_with(unit));
            if let Some(number) = number.as_f64().filter(|_| is_figure) {
                figures.insert(name.to_owned(), number);
            }
        }
        _ => {}
    }
}

/// Medians of both, and of how many times the one the other is, with the least and the most.
fn table(commit: &str, turns: &[[Figures; 2]]) -> String {
    let mut text = format!(
        "{:<28} {:>14} {:>14}   after / before, {} turns\n",
        "",
        &commit[..12],
        "this code",
        turns.len()
    );
    let names = turns.first().map(|[_, after]| after.keys());
    for name in names.into_iter().flatten() {
        let pairs: Vec<(f64, f64)> = turns
            .iter()
            .filter_map(|[before, after]| Some((*before.get(name)?, *after.get(name)?)))
            .collect();
        if pairs.len() < turns.len() {
            continue;
        }
        let (before, _, _) = spread(pairs.iter().map(|pair| pair.0));
        let (after, _, _) = spread(pairs.iter().map(|pair| pair.1));
        let (ratio, low, high) = spread(pairs.iter().map(|pair| pair.1 / pair.0));
        text += &format!(
            "{name:<28} {before:>14.0} {after:>14.0}   {ratio:.2} ({low:.2} to {high:.2})\n"
        );
    }
    text
}

/// Median, least and most.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    (
        f64::midpoint(at(last / 2), at(last.div_ceil(2))),
        at(0),
        at(last),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(hop: f64, million: f64) -> Figures {
        let mut figures = Figures::new();
        let json =
            json!({"ns": hop, "over_floor": 1.2, "new_paths_per_s": 9000, "spread": {"ns": 7}});
        collect("hop", &json, &mut figures);
        let json = json!({"paths": [{"n": 1_000_000, "ns": million, "bytes": 5}]});
        collect("scale", &json, &mut figures);
        figures
    }

    #[test]
    fn figures_with_units_are_compared_turn_by_turn() {
        let turns = [
            [figures(1000.0, 2000.0), figures(500.0, 1000.0)],
            [figures(1200.0, 2000.0), figures(480.0, 1600.0)],
        ];
        let table = table(&"a".repeat(40), &turns);
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines.len(), 5, "{table}");
        assert!(
            lines.contains(&"hop.ns 1100 490 0.45 (0.40 to 0.50)".to_owned()),
            "{table}"
        );
        assert!(
            lines.contains(&"scale.paths(1000000).ns 2000 1300 0.65 (0.50 to 0.80)".to_owned()),
            "{table}"
        );
        assert!(!table.contains("over_floor"));
    }

    #[test]
    fn a_benchmark_that_a_commit_lacks_is_named() {
        let names = r#"Self::Hop => "hop", Self::Scale => "scale","#;
        assert_eq!(missing(names, &[Name::Hop, Name::Scale]), None);
        let lacks = missing(names, &[Name::Hop, Name::Endpoint]);
        assert_eq!(lacks, Some(Name::Endpoint));
        let now = include_str!("../../bench/src/cli.rs");
        assert_eq!(missing(now, &COMPARED), None);
    }

    #[test]
    fn only_commits_and_what_needs_no_programs_are_compared() {
        assert!(full_name("no such commit").is_err());
        let error = compare("HEAD", &[Name::Hop, Name::Flood], true).unwrap_err();
        assert!(error.to_string().contains("not flood"), "{error}");
    }
}
