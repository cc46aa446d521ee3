//! What the kernel says of processes, in `/proc`.

use crate::error::{Error, Result, SystemContext as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// Clock ticks a second in `/proc/PID/stat`; fixed in Linux's ABI for user space (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// User and system time, seconds.
    pub cpu_s: f64,
}

/// Memory and CPU time of a process, from `/proc`.
pub fn usage(pid: u32) -> Result<Usage> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).file("reading", &file)?;
    let rss_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .ok_or(Error::NotFound {
            what: "VmRSS",
            text: file,
        })?;
    let fields = stat_fields(pid).ok_or_else(|| Error::NotFound {
        what: "processor time",
        text: format!("/proc/{pid}/stat"),
    })?;
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
/// counts them from 1, so field n is at n - 3.
fn stat_fields(pid: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?; // the command's name may contain spaces
    Some(
        rest.split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect(),
    )
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
}
