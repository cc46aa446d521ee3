//! SIGHUP reads the configuration again, and never ends a daemon.
//!
//! It also comes when a terminal goes, and at any moment: while the daemon starts, and while it
//! stops. So it is held back from the first statement of `main` until there is somebody who listens;
//! one that came meanwhile is heard then. Once heard it does nothing else any more, also after the
//! last listener is gone.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// Holds SIGHUP back in this thread, and in those that it starts.
pub fn hold() {
    // The set is one that the kernel takes.
    let _ = set().thread_block();
}

/// Lets it do what it does to other programs: for commands that are no daemons.
pub fn release() {
    let _ = set().thread_unblock();
}

/// Listens from now on. To be called in a runtime, by the thread that [held](hold) it back.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn listen() -> io::Result<Signals> {
    let signals = signal(SignalKind::hangup())?;
    release();
    Ok(signals)
}

fn set() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    set
}
