//! `mixline-bench`: runs benchmarks, prints a table, writes JSON.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use mixline_bench::{Options, hop, machine, scale};
use serde_json::{Map, Value};

/// The benchmarks of Mixline.
#[derive(Parser)]
struct Arguments {
    /// Which benchmarks to run; all, if none is named.
    #[arg(value_enum)]
    which: Vec<Which>,
    /// Fewer turns, and no case that takes minutes.
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file, with a description of the machine.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// One datagram of a known path on one core, from sealed to sealed.
    Hop,
    /// The same with many known paths, and their memory.
    Scale,
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
    };
    let wanted = |which| arguments.which.is_empty() || arguments.which.contains(&which);
    let mut figures = Map::new();
    figures.insert("machine".into(), serde_json::to_value(machine::describe())?);
    machine::stay_on_one_core();
    if wanted(Which::Hop) {
        let report = hop::run(&options).context("hop")?;
        print!("{report}");
        figures.insert("hop".into(), serde_json::to_value(report)?);
    }
    if wanted(Which::Scale) {
        let report = scale::run(&options).context("scale")?;
        print!("{report}");
        figures.insert("scale".into(), serde_json::to_value(report)?);
    }
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&Value::Object(figures))?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
