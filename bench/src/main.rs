//! `mixline-bench`: runs benchmarks, prints tables, writes JSON and a report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use mixline_bench::benchmarks::{ALL, Benchmark};
use mixline_bench::machine::{self, Machine};
use mixline_bench::report::{self, Section, short};
use mixline_bench::{Goal, Options, Outcome, Port, child, hop, path};
use mixline_testnet::interrupted;
use serde_json::{Map, Value};

/// The benchmarks of Mixline.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    /// Which benchmarks to run; all, if none is named.
    #[arg(value_name = "BENCHMARK", value_parser = names())]
    which: Vec<String>,
    /// Fewer turns, shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file, with a description of the machine.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots into this directory: report.html.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// What the relays of a network receive and send with.
    #[arg(long, value_enum, default_value_t = Port::Auto)]
    port: Port,
    /// This program built for this processor: `hop` is run with it too.
    #[arg(long, value_name = "PROGRAM")]
    native: Option<PathBuf>,
    #[command(subcommand)]
    tool: Option<path::Tool>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|benchmark| benchmark.name))
}

/// A benchmark that has been run.
struct Ran {
    name: &'static str,
    about: &'static str,
    outcome: Outcome,
}

fn main() -> ExitCode {
    if let Some(code) = child::run_if_child() {
        return code;
    }
    let arguments = Arguments::parse();
    let outcome = match &arguments.tool {
        Some(tool) => tool.run(),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mixline-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = Options {
        quick: arguments.quick,
        port: arguments.port,
    };
    let wanted = |benchmark: &&Benchmark| {
        arguments.which.is_empty() || arguments.which.iter().any(|name| name == benchmark.name)
    };
    let machine = machine::describe();
    let mut ran = Vec::new();
    for benchmark in ALL.iter().filter(wanted) {
        if interrupted() {
            bail!("interrupted");
        }
        let outcome = alone(benchmark, &options).context(benchmark.name)?;
        print!("{}", outcome.table);
        ran.push(Ran {
            name: benchmark.name,
            about: benchmark.about,
            outcome,
        });
        if let (hop::NAME, Some(program)) = (benchmark.name, &arguments.native) {
            let outcome = native(program, &options).context("hop, built for this processor")?;
            print!("{}", outcome.table);
            ran.push(Ran {
                name: "hop_native",
                about: "the same, built for this processor",
                outcome,
            });
        }
        // After each, so that what was measured is there if a later one fails.
        save(arguments, &machine, &ran)?;
    }
    goals(ran.iter().flat_map(|ran| &ran.outcome.goals));
    Ok(())
}

/// On a thread of its own, so that a core that it keeps to is not kept by the next.
fn alone(benchmark: &Benchmark, options: &Options) -> Result<Outcome> {
    thread::scope(|scope| scope.spawn(|| (benchmark.run)(options)).join())
        .map_err(|_| anyhow!("has panicked"))?
}

/// `hop` in another build of this program.
fn native(program: &Path, options: &Options) -> Result<Outcome> {
    let file = std::env::temp_dir().join(format!("mixline-hop-{}.json", std::process::id()));
    let mut command = Command::new(program);
    command.args([hop::NAME, "--json"]).arg(&file);
    if options.quick {
        command.arg("--quick");
    }
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    if !status.success() {
        bail!("{}: {status}", program.display());
    }
    let text = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    let mut figures: Map<String, Value> = serde_json::from_str(&text?)?;
    let figures = figures.remove(hop::NAME).context("no figures")?;
    Outcome::of(&serde_json::from_value::<hop::Report>(figures)?)
}

fn save(arguments: &Arguments, machine: &Machine, ran: &[Ran]) -> Result<()> {
    let write = |file: &Path, text: String| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &arguments.json {
        let mut figures = Map::new();
        figures.insert("machine".into(), serde_json::to_value(machine)?);
        for ran in ran {
            figures.insert(ran.name.into(), ran.outcome.json.clone());
        }
        let text = serde_json::to_string_pretty(&Value::Object(figures))?;
        write(file, text + "\n")?;
    }
    if let Some(directory) = &arguments.report {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let sections: Vec<Section<'_>> = ran
            .iter()
            .map(|ran| Section {
                name: ran.name,
                about: ran.about,
                outcome: &ran.outcome,
            })
            .collect();
        write(
            &directory.join("report.html"),
            report::html(machine, &sections),
        )?;
    }
    Ok(())
}

fn goals<'a>(goals: impl Iterator<Item = &'a Goal>) {
    for (number, goal) in goals.enumerate() {
        if number == 0 {
            println!("goals");
        }
        let (reached, measured) = match (goal.reached(), goal.measured) {
            (Some(true), Some(measured)) => ("yes", short(measured)),
            (_, Some(measured)) => ("NO", short(measured)),
            _ => ("-", "not measured".into()),
        };
        let bound = report::said(goal.bound);
        println!("  {reached:<4} {measured:>12}  {bound:<8} {}", goal.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_tools_are_told_apart() {
        let arguments = Arguments::parse_from(["mixline-bench", "hop", "--quick"]);
        assert_eq!(arguments.which, ["hop"]);
        let tool = Arguments::parse_from(["mixline-bench", "echo", "127.0.0.1:1"]).tool;
        assert!(matches!(tool, Some(path::Tool::Echo { .. })));
        assert!(Arguments::try_parse_from(["mixline-bench", "nothing"]).is_err());
    }
}
