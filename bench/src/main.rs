//! `mixline-bench`: runs benchmarks, prints tables, writes JSON and a report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, ValueEnum as _};
use mixline_bench::cli::{Name, Options, Selection};
use mixline_bench::machine::{self, Machine};
use mixline_bench::report::{self, Section, short};
use mixline_bench::tool::Tool;
use mixline_bench::{Goal, Outcome, benchmarks, child, hop};
use mixline_testnet::interrupted;
use serde_json::{Map, Value};

/// The benchmarks of Mixline.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// This program built for this processor: `hop` is run with it too.
    #[arg(long, value_name = "PROGRAM")]
    native: Option<PathBuf>,
    #[command(subcommand)]
    tool: Option<Tool>,
}

/// A benchmark that has been run.
struct Ran {
    name: &'static str,
    about: String,
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
    let options = &arguments.selection.options;
    let machine = machine::describe();
    let mut ran = Vec::new();
    for name in Name::ALL {
        if !arguments.selection.wants(name) {
            continue;
        }
        if interrupted() {
            bail!("interrupted");
        }
        let outcome = alone(name, options).context(name.as_str())?;
        print!("{}", outcome.table);
        ran.push(Ran {
            name: name.as_str(),
            about: about(name),
            outcome,
        });
        if let (Name::Hop, Some(program)) = (name, &arguments.native) {
            let outcome = native(program, options).context("hop, built for this processor")?;
            print!("{}", outcome.table);
            ran.push(Ran {
                name: "hop_native",
                about: "The same, built for this processor".into(),
                outcome,
            });
        }
        // After each, so that what was measured is there if a later one fails.
        save(&arguments.selection, &machine, &ran)?;
    }
    let missed = goals(ran.iter().flat_map(|ran| &ran.outcome.goals));
    if missed > 0 && !arguments.selection.no_goals {
        bail!("{missed} goals are missed; `--no-goals` succeeds all the same");
    }
    Ok(())
}

/// What it measures, as the help says.
fn about(name: Name) -> String {
    let value = name.to_possible_value();
    let help = value.as_ref().and_then(|value| value.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

/// On a thread of its own, so that a core that it keeps to is not kept by the next.
fn alone(name: Name, options: &Options) -> Result<Outcome> {
    thread::scope(|scope| scope.spawn(|| benchmarks::run(name, options)).join())
        .map_err(|_| anyhow!("has panicked"))?
}

/// `hop` in another build of this program.
fn native(program: &Path, options: &Options) -> Result<Outcome> {
    let file = std::env::temp_dir().join(format!("mixline-hop-{}.json", std::process::id()));
    let mut command = Command::new(program);
    command
        .args([Name::Hop.as_str(), "--no-goals", "--json"])
        .arg(&file);
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
    let figures = figures.remove(Name::Hop.as_str()).context("no figures")?;
    Outcome::of(&serde_json::from_value::<hop::Report>(figures)?)
}

fn save(selection: &Selection, machine: &Machine, ran: &[Ran]) -> Result<()> {
    let write = |file: &Path, text: String| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &selection.json {
        let mut figures = Map::new();
        figures.insert("machine".into(), serde_json::to_value(machine)?);
        for ran in ran {
            figures.insert(ran.name.into(), ran.outcome.json.clone());
        }
        let text = serde_json::to_string_pretty(&Value::Object(figures))?;
        write(file, text + "\n")?;
    }
    if let Some(directory) = &selection.report {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let sections: Vec<Section<'_>> = ran
            .iter()
            .map(|ran| Section {
                name: ran.name,
                about: &ran.about,
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

/// Prints the goals; gives how many are missed.
fn goals<'a>(goals: impl Iterator<Item = &'a Goal>) -> usize {
    let mut missed = 0;
    for (number, goal) in goals.enumerate() {
        if number == 0 {
            println!("goals");
        }
        let (reached, measured) = match (goal.reached(), goal.measured) {
            (Some(true), Some(measured)) => ("yes", short(measured)),
            (_, Some(measured)) => ("NO", short(measured)),
            _ => ("-", "not measured".into()),
        };
        missed += usize::from(goal.reached() == Some(false));
        let bound = report::said(goal.bound);
        println!("  {reached:<4} {measured:>12}  {bound:<8} {}", goal.what);
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_bench::path;

    #[test]
    fn missed_goals_are_counted_and_those_not_measured_are_not() {
        let all = [
            Goal::at_least("reached", Some(2.0), 1.0),
            Goal::at_least("missed", Some(1.0), 2.0),
            Goal::at_most("missed too", Some(2.0), 1.0),
            Goal::at_least("not measured", None, 1.0),
        ];
        assert_eq!(goals(all.iter()), 2);
        assert_eq!(goals([].iter()), 0);
    }

    #[test]
    fn arguments_and_tools_are_told_apart() {
        let arguments = Arguments::parse_from(["mixline-bench", "hop", "--quick"]);
        assert_eq!(arguments.selection.which, [Name::Hop]);
        let tool = Arguments::parse_from(["mixline-bench", "echo", "127.0.0.1:1"]).tool;
        assert!(matches!(tool, Some(Tool::Path(path::Tool::Echo { .. }))));
        assert!(Arguments::try_parse_from(["mixline-bench", "nothing"]).is_err());
        assert!(about(Name::Hop).starts_with("One datagram"));
    }
}
