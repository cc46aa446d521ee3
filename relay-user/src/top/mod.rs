//! `mixline-relay top`: a running relay, live in the terminal.
//!
//! A thread asks the relay over its control socket; `rates` computes from two answers what happened
//! between them; `view` makes lines of that; `screen` has the terminal and the keys.

mod rates;
#[cfg(test)]
pub mod sample;
mod screen;
mod signals;
mod view;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::observe;

/// The shortest time between two readings: counters of the system's clock have 10 ms.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Standard input or output is not a terminal.
    #[error("`top` needs a terminal; `mixline-relay status` says the same once, to anywhere")]
    NoTerminal,
    /// No relay answers.
    #[error("no relay answers on state directory {}: {error}", state_dir.display())]
    NoRelay {
        /// Where it would be.
        state_dir: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The terminal fails.
    #[error("the terminal cannot be used: {0}")]
    Terminal(io::Error),
}

/// Shows the relay that runs on a state directory until a key ends it; it is asked every `interval`.
/// SIGHUP, SIGINT and SIGTERM end the process as always, after the terminal was put back.
///
/// # Errors
/// [`TopError`].
pub fn run(state_dir: &Path, interval: Duration) -> Result<(), TopError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    // Before the screen is taken, so that the line stays to be read.
    observe::ask(state_dir).map_err(|error| TopError::NoRelay {
        state_dir: state_dir.to_path_buf(),
        error,
    })?;
    screen::run(state_dir, interval.max(SHORTEST_INTERVAL)).map_err(TopError::Terminal)
}
