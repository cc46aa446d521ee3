//! A relay that misbehaves on demand, for the end-to-end tests. Its links are in order; what it does
//! to the cells inside is not.
//!
//! It reads what to do from the file `behaviour` in its state directory, again and again: `honest`
//! (also without the file), `replay`, `flip`, `blank` or `drop`. What it does, and to how many cells it
//! has done so, stands in the file `deeds` beside it: `replay 1234`.

use anyhow::{Context, Result};
use clap::Parser;
use mixline_protocol::path::Next;
use mixline_protocol::size::{Cell, PATH_HEADER};
use mixline_relay::Config;
use mixline_relay_engine::pipeline::{Behaviour, Deed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// A relay that misbehaves on demand.
#[derive(Parser)]
struct Arguments {
    /// A relay's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What it is told to do, by position in [`ORDERS`], and to how many cells it has done so.
#[derive(Default)]
struct Orders {
    order: AtomicU8,
    deeds: AtomicU64,
}

/// What it can be told to do.
const ORDERS: [&str; 5] = ["honest", "replay", "flip", "blank", "drop"];

/// How often it looks for orders.
const LOOK: Duration = Duration::from_millis(50);

/// One worker's.
struct Rogue(Arc<Orders>);

impl Behaviour for Rogue {
    fn treat(&mut self, cell: &mut Cell, _next: &Next) -> Deed {
        let order = ORDERS[usize::from(self.0.order.load(Ordering::Relaxed))];
        if order == "honest" {
            return Deed::Forward;
        }
        let count = self.0.deeds.fetch_add(1, Ordering::Relaxed);
        match order {
            "replay" => Deed::ForwardTwice,
            "flip" => {
                // Another bit of the payload each time, so that none is beyond its reach.
                let payload = &mut cell[PATH_HEADER..];
                let bit = usize::try_from(count).unwrap_or(0).wrapping_mul(7919);
                payload[(bit / 8) % payload.len()] ^= 1 << (bit % 8);
                Deed::Forward
            }
            "blank" => {
                // As much as can be cut: the length is always the same.
                let half = cell.len() / 2;
                cell[half..].fill(0);
                Deed::Forward
            }
            _ => Deed::Drop,
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rogue_relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = Config::load(&Arguments::parse().config)?;
    let orders = Arc::new(Orders::default());
    let obey = Arc::clone(&orders);
    let state = config.state_dir.clone();
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || {
            loop {
                follow_orders(&obey, &state);
                std::thread::sleep(LOOK);
            }
        })
        .context("starting a thread")?;
    Ok(mixline_relay::run(config, |_| Rogue(Arc::clone(&orders)))?)
}

/// Reads what to do, and writes what is done.
fn follow_orders(orders: &Orders, state: &Path) {
    let wanted = fs::read_to_string(state.join("behaviour")).unwrap_or_default();
    let wanted = ORDERS
        .iter()
        .position(|order| *order == wanted.trim())
        .unwrap_or(0);
    let before = orders
        .order
        .swap(u8::try_from(wanted).unwrap_or(0), Ordering::Relaxed);
    // Once it is honest again, the file goes on to say what it did.
    if usize::from(before) != wanted && wanted != 0 {
        orders.deeds.store(0, Ordering::Relaxed);
    }
    let deeds = format!(
        "{} {}\n",
        ORDERS[wanted],
        orders.deeds.load(Ordering::Relaxed)
    );
    let file = state.join("deeds");
    // Renamed, so that nobody reads half a line.
    let _ = fs::write(file.with_extension("new"), deeds)
        .and_then(|()| fs::rename(file.with_extension("new"), file));
}
