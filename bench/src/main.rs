//! `mixline-bench`: runs benchmarks, prints tables, writes JSON.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use mixline_bench::benchmarks::{self, ALL};
use mixline_bench::{Options, machine};
use serde_json::{Map, Value};

/// The benchmarks of Mixline.
#[derive(Parser)]
struct Arguments {
    /// Which benchmarks to run; all, if none is named.
    #[arg(value_name = "BENCHMARK", value_parser = names())]
    which: Vec<String>,
    /// Fewer turns, and no case that takes minutes.
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file, with a description of the machine.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the relays of a network receive and send with.
    #[arg(long, default_value = "auto", value_parser = ["auto", "udp", "xdp", "xdp-filter"])]
    port: String,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|benchmark| benchmark.name))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
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
        port: arguments.port.clone(),
    };
    let mut figures = Map::new();
    figures.insert("machine".into(), serde_json::to_value(machine::describe())?);
    for benchmark in ALL {
        let named = arguments.which.iter().any(|name| name == benchmark.name);
        if !arguments.which.is_empty() && !named {
            continue;
        }
        let outcome = alone(benchmark, &options).context(benchmark.name)?;
        print!("{}", outcome.table);
        figures.insert(benchmark.name.into(), outcome.json);
    }
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&Value::Object(figures))?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// On a thread of its own, so that a core that it keeps to is not kept by the next.
fn alone(benchmark: &benchmarks::Benchmark, options: &Options) -> Result<mixline_bench::Outcome> {
    thread::scope(|scope| scope.spawn(|| (benchmark.run)(options)).join())
        .map_err(|_| anyhow!("has panicked"))?
}
