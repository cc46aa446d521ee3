//! A relay that misbehaves on demand, for the end-to-end tests. Its links are in order; what it does
//! to the cells inside is not.
//!
//! It reads what to do from the file `behaviour` in its state directory, again and again: `honest`
//! (also without the file), `replay`, `flip`, `blank`, `drop` or `note`. What it does, to how many cells it
//! has done so, and how many of them it delivered to an endpoint itself, is in the file `done` beside
//! it: `replay 1234 56`. What it has noted is in the file `noted`, once it is honest again: of each cell that
//! it has opened, the first 16 bytes of the payload as it is then.

use anyhow::{Context, Result};
use clap::Parser;
use mixline_protocol::path::Next;
use mixline_protocol::size::{Cell, PATH_HEADER};
use mixline_relay::Config;
use mixline_relay_engine::pipeline::{Action, Behaviour};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A relay that misbehaves on demand.
#[derive(Parser)]
struct Arguments {
    /// A relay's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What it is told to do, and to how many cells it has done so.
#[derive(Default)]
struct Control {
    /// A position in [`MODES`].
    mode: AtomicU8,
    /// All cells that it did something to.
    done: AtomicU64,
    /// Those of them whose next hop is an endpoint.
    delivered: AtomicU64,
    /// Beginnings of payloads, at most [`MOST_NOTED`].
    noted: Mutex<Vec<[u8; 16]>>,
}

/// What it can be told to do.
const MODES: [&str; 6] = ["honest", "replay", "flip", "blank", "drop", "note"];
/// Cells of which something is noted.
const MOST_NOTED: usize = 1 << 19;

/// How often it looks at what it is told.
const LOOK: Duration = Duration::from_millis(50);

/// One worker's.
struct Rogue(Arc<Control>);

impl Behaviour for Rogue {
    fn decide(&mut self, cell: &mut Cell, next: &Next) -> Action {
        let mode = MODES[usize::from(self.0.mode.load(Ordering::Relaxed))];
        if mode == "honest" {
            return Action::Forward;
        }
        let count = self.0.done.fetch_add(1, Ordering::Relaxed);
        if matches!(next, Next::Deliver(_)) {
            self.0.delivered.fetch_add(1, Ordering::Relaxed);
        }
        match mode {
            "replay" => Action::ForwardTwice,
            "flip" => {
                // Another bit of the payload each time, so that none is beyond its reach.
                let payload = &mut cell[PATH_HEADER..];
                let bit = usize::try_from(count).unwrap_or(0).wrapping_mul(7919);
                payload[(bit / 8) % payload.len()] ^= 1 << (bit % 8);
                Action::Forward
            }
            "blank" => {
                // As much as can be cut: the length is always the same.
                let half = cell.len() / 2;
                cell[half..].fill(0);
                Action::Forward
            }
            "note" => {
                let mut noted = self.0.noted.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(first) = cell[PATH_HEADER..].first_chunk()
                    && noted.len() < MOST_NOTED
                {
                    noted.push(*first);
                }
                Action::Forward
            }
            _ => Action::Drop,
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mixline-rogue-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = Config::load(&Arguments::parse().config)?;
    let control = Arc::new(Control::default());
    let followed = Arc::clone(&control);
    let state = config.state_dir.clone();
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            loop {
                follow(&followed, &state);
                std::thread::sleep(LOOK);
            }
        })
        .context("starting a thread")?;
    Ok(mixline_relay::run(config, None, |_| {
        Rogue(Arc::clone(&control))
    })?)
}

/// Reads what to do, and writes what is done.
fn follow(control: &Control, state: &Path) {
    let wanted = fs::read_to_string(state.join("behaviour")).unwrap_or_default();
    let wanted = MODES
        .iter()
        .position(|mode| *mode == wanted.trim())
        .unwrap_or(0);
    let before = control
        .mode
        .swap(u8::try_from(wanted).unwrap_or(0), Ordering::Relaxed);
    // Once it is honest again, the file goes on to say what it did.
    if usize::from(before) != wanted && wanted != 0 {
        control.done.store(0, Ordering::Relaxed);
        control.delivered.store(0, Ordering::Relaxed);
    }
    if wanted == 0 && before != 0 {
        let mut noted = control.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = fs::write(state.join("noted"), std::mem::take(&mut *noted).concat());
    }
    let line = format!(
        "{} {} {}\n",
        MODES[wanted],
        control.done.load(Ordering::Relaxed),
        control.delivered.load(Ordering::Relaxed)
    );
    let file = state.join("done");
    // Renamed, so that nobody reads half a line.
    let _ = fs::write(file.with_extension("new"), line)
        .and_then(|()| fs::rename(file.with_extension("new"), file));
}
