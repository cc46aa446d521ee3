//! What the client tells while it starts: one line a step.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use mixline_daemon::terminal::say;

/// The line that says that everything works.
pub const READY: &str = "ready";
/// Before the line that says why it does not.
pub const FAILED: &str = "failed: ";

/// Where progress goes.
#[derive(Debug)]
pub enum Progress {
    /// To a person: lines on standard error.
    Person,
    /// To the process that waits for a detached client: lines on standard output, until
    /// the first that says how it ended. Nobody reads what comes later.
    Parent(Mutex<bool>),
    /// Nowhere.
    Silent,
}

impl Progress {
    /// For a detached client.
    #[must_use]
    pub fn to_parent() -> Self {
        Self::Parent(Mutex::new(true))
    }

    /// Tells one step.
    pub fn step(&self, text: &str) {
        match self {
            Self::Person => say(&format!("mixline-client: {text}")),
            Self::Parent(_) => self.to_waiting(text, false),
            Self::Silent => {}
        }
    }

    /// Tells that everything works.
    pub fn ready(&self) {
        match self {
            Self::Person => say(READY),
            Self::Parent(_) => self.to_waiting(READY, true),
            Self::Silent => {}
        }
    }

    /// Tells the waiting process why it failed; a person sees the program's own last line.
    pub fn failed(&self, error: &str) {
        if matches!(self, Self::Parent(_)) {
            self.to_waiting(&format!("{FAILED}{error}"), true);
        }
    }

    fn to_waiting(&self, line: &str, last: bool) {
        let Self::Parent(waiting) = self else { return };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting {
            // The process that waited may have been stopped: then nobody is to be told.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
            *waiting = !last;
        }
    }
}
