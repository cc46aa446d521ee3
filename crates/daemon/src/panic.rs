//! What a panic does to a daemon.

use std::panic;
use std::process;

use nix::sys::prctl;

/// From now on a panic ends the process, once it is said. The runtime would catch that of a task, and a
/// thread would end alone: the daemon would go on without whom that was, such as who sees to the host or opens
/// headers. What a dead daemon leaves is closed, and the service manager starts another.
///
/// The kernel writes no core of it (prctl(2), `PR_SET_DUMPABLE`): keys are in its memory, and one that no
/// service manager started has nobody's `LimitCORE=0`.
pub fn end_the_process() {
    let say_it = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        // First: to say it may panic as well.
        let is_kept = prctl::set_dumpable(false);
        say_it(panic);
        if let Err(error) = is_kept {
            tracing::warn!("a core of this process may be written: {error}");
        }
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::Signal;

    use super::*;

    /// Says to this program that it is the child.
    const CHILD: &str = "MIXLINE_TEST_PANICS";
    /// What the child writes if it outlives the panic.
    const GOES_ON: &str = "the others go on";

    #[test]
    fn a_panic_of_any_thread_ends_the_process_without_a_core() {
        if std::env::var_os(CHILD).is_some() {
            one_panics();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let test = "panic::tests::a_panic_of_any_thread_ends_the_process_without_a_core";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [child.stdout, child.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(
            child.status.signal(),
            Some(Signal::SIGABRT as i32),
            "{:?}: {said}",
            child.status
        );
        assert!(said.contains("one of many"), "it was not said: {said}");
        assert!(!said.contains(GOES_ON), "{said}");
        assert!(!child.status.core_dumped(), "its memory is in a file");
        let left = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(left, 0, "its memory is in a file");
    }

    /// Has one thread panic, which the thread that waits for it would learn of otherwise.
    fn one_panics() {
        let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, most, most).unwrap();
        end_the_process();
        let panicked = thread::spawn(|| panic!("one of many")).join().is_err();
        println!("{GOES_ON}: {panicked}");
    }
}
