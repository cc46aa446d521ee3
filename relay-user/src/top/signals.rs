//! Signals that end the program: they find the terminal put back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal, raise};

/// Has SIGHUP, SIGINT and SIGTERM put the terminal back before they do what they do to every program.
/// Who draws holds `screen`. To be called before other threads are started, which inherit that they do
/// not take these signals.
///
/// A thread of its own does it, since the one that reads keys never comes back from a terminal that is
/// gone.
///
/// # Errors
/// Of the system.
pub fn put_back_first(screen: &Arc<Mutex<()>>) -> io::Result<()> {
    let set: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
        .into_iter()
        .collect();
    set.thread_block()?;
    let screen = Arc::clone(screen);
    let wait = move || {
        if let Ok(signal) = set.wait() {
            // To the end of the process: nothing is drawn any more.
            let _screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
            // There may be no terminal any more.
            let _ = ratatui::try_restore();
            let _ = set.thread_unblock();
            let _ = raise(signal);
            // It may be one that this process was told to ignore.
            std::process::exit(128 + signal as i32);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
