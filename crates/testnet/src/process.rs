//! Programs that run inside namespaces, what the kernel says of them, and how they end.

use crate::netns;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at something that is waited for.
pub const POLL: Duration = Duration::from_millis(50);
/// How long a program may take to stop after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Clock ticks a second in `/proc/PID/stat`; fixed in Linux's ABI for user space (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What to run, where, and where its output goes.
#[derive(Clone, Debug)]
pub struct Program {
    /// The namespace's name.
    pub namespace: String,
    /// The executable.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Additional environment.
    pub environment: Vec<(String, String)>,
    /// Takes standard output and error; appended to.
    pub log: PathBuf,
}

/// A running program. Dropping it kills the program.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
}

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// User and system time, seconds.
    pub cpu_s: f64,
}

impl Program {
    /// Starts it. The caller's thread must outlive it: see [`netns::command`].
    pub fn start(self) -> Result<Process> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        let child = netns::command(&self.namespace, &self.executable)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0) // Ctrl-C is for the one who started the network
            .spawn()
            .with_context(|| format!("starting {}", self.executable.display()))?;
        Ok(Process {
            program: self,
            child,
        })
    }
}

impl Process {
    /// The program's PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it was started.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails, with the end of the log, when the program has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); the end of {}:\n{}",
                self.program.executable.display(),
                self.program.log.display(),
                tail(&self.program.log, 15)
            ),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {pid}"))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs", self.program.executable.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops it as an administrator would: SIGTERM, and SIGKILL when that is not heeded (which is an
    /// error).
    pub fn stop(mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(STOP_TIMEOUT).context("after SIGTERM")
    }

    /// Kills it at once.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its memory and CPU time so far.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Stops many at once, in parallel, with one deadline for all.
pub fn stop_all(mut processes: Vec<Process>) {
    for process in &mut processes {
        if process.ended().is_none() {
            let _ = process.signal(Signal::SIGTERM);
        }
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for process in &mut processes {
        let _ = process.wait(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Memory and CPU time of a process, from `/proc`.
pub fn usage(pid: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("no VmRSS in /proc/{pid}/status"))?;
    let fields = stat_fields(pid).with_context(|| format!("reading /proc/{pid}/stat"))?;
    let ticks: u64 = fields.get(11).copied().unwrap_or(0) + fields.get(12).copied().unwrap_or(0);
    Ok(Usage {
        rss_bytes: rss_kib * 1024,
        cpu_s: ticks as f64 / TICKS_PER_SECOND,
    })
}

/// When a process was started, in clock ticks since boot. PIDs are used again; together with this
/// they are not.
pub fn start_time(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(19).copied()
}

/// Kills a process of an earlier run, provided that it is the one recorded.
pub fn kill_recorded(pid: u32, started: u64) {
    if start_time(pid) == Some(started)
        && let Ok(pid) = i32::try_from(pid)
    {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The numeric fields of `/proc/PID/stat` from the third (state, read as 0) on; proc_pid_stat(5)
/// counts them from 1, so field n stands at n - 3.
fn stat_fields(pid: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?; // the command's name may contain spaces
    Some(
        rest.split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect(),
    )
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Polls until `look` gives a value. Errors of `look` end the wait; `None` means not yet.
pub fn wait_for<T>(
    what: &str,
    at_most: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if crate::interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", at_most.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_is_read() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        assert!(usage.cpu_s >= 0.0);
    }

    #[test]
    fn a_recorded_process_is_known_by_its_start() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let started = start_time(child.id()).unwrap();
        kill_recorded(child.id(), started + 1);
        assert!(
            child.try_wait().unwrap().is_none(),
            "killed another process"
        );
        kill_recorded(child.id(), started);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_tail_of_a_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(file.path(), 2), "two\nthree");
        assert_eq!(tail(Path::new("/nonexistent"), 2), "");
    }
}
