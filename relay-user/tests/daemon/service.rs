//! What the service manager hears.

use std::time::Duration;

use mixline_daemon::testing::ServiceManager;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::setting::Setting;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_service_manager_hears_of_the_start_what_it_does_and_of_the_stop() {
    let mut setting = Setting::new("");
    let manager = ServiceManager::listen(&setting.folder().join("notify")).unwrap();
    let relay = &mut setting.relay;
    relay.start_with(|command| manager.supervise(command, None));
    let ready = manager.wait_for("READY=1", PATIENCE).unwrap().unwrap();
    assert!(ready[1].starts_with("STATUS="), "{ready:?}");
    // With the line that a person reads.
    let status = manager.wait_for("STATUS=in the directory", PATIENCE);
    let status = status.unwrap().unwrap().concat();
    assert!(status.contains("port udp, 0 relays, 0 clients"), "{status}");
    relay.stop();
    assert!(manager.wait_for("STOPPING=1", PATIENCE).unwrap().is_some());
}

/// The thread of this name in a process.
fn thread(process: Pid, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let named = tasks.flatten().find(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.trim() == name
    });
    let number = named.expect(name).file_name();
    Pid::from_raw(number.to_str().unwrap().parse().unwrap())
}

/// A thread that stands still; it goes on when this is dropped, also by a test that fails: its
/// process could not end otherwise.
struct Stopped(Pid);

impl Stopped {
    fn thread(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        let stopped = Self(thread);
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn the_watchdog_hears_nothing_while_one_worker_hangs() {
    let mut setting = Setting::new("workers: 2\n");
    let manager = ServiceManager::listen(&setting.folder().join("notify")).unwrap();
    let relay = &mut setting.relay;
    let watchdog = Some(Duration::from_millis(300));
    relay.start_with(|command| manager.supervise(command, watchdog));
    for _ in 0..20 {
        assert!(manager.wait_for("WATCHDOG=1", PATIENCE).unwrap().is_some());
    }
    // Stops that thread alone, as a lock that is never released would.
    let stopped = Stopped::thread(thread(relay.process(), "worker-1"));
    let mut silent = false;
    for _ in 0..100 {
        silent |= manager
            .wait_for("WATCHDOG=1", Duration::from_secs(1))
            .unwrap()
            .is_none();
        if silent {
            break;
        }
    }
    assert!(silent);
    // The control plane goes on, and answers.
    relay.report();
    drop(stopped);
    assert!(manager.wait_for("WATCHDOG=1", PATIENCE).unwrap().is_some());
    // A process that stands still as a whole says nothing either; here it goes on afterwards.
    nix::sys::signal::kill(relay.process(), Signal::SIGSTOP).unwrap();
    while manager.next(Duration::from_secs(1)).unwrap().is_some() {}
    nix::sys::signal::kill(relay.process(), Signal::SIGCONT).unwrap();
    assert!(manager.wait_for("WATCHDOG=1", PATIENCE).unwrap().is_some());
    relay.stop();
}
