//! What the system says of this process and its threads: `/proc` (proc(5)).

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::report::ProcessReport;

/// Bytes of memory that this process has in use (`VmRSS`).
pub fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// All else; what cannot be read is 0.
pub fn report() -> ProcessReport {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::read(&stat).unwrap_or_default();
    let ticks = ticks_per_second();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot: f64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.trim().parse().ok())
        .unwrap_or_default();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft);
    ProcessReport {
        cpu_s: stat.cpu as f64 / ticks,
        virtual_bytes: stat.virtual_bytes,
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64),
        max_fds: limit.ok().filter(|limit| *limit != RLIM_INFINITY),
        threads: stat.threads,
        started: boot + stat.started as f64 / ticks,
    }
}

/// Seconds that a thread of this process has used of a core; none if there is no such thread.
pub fn cpu_of_thread(thread: i32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    Some(Stat::read(&stat)?.cpu as f64 / ticks_per_second())
}

fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |ticks| ticks as f64)
}

/// What is used of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    /// User and system time, in ticks.
    cpu: u64,
    threads: u64,
    /// In ticks after the machine's start.
    started: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name may hold anything, blanks and brackets included; field 3 follows the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    #[test]
    fn fields_are_where_the_manual_says() {
        let text = "7 (a (b) c) S 1 7 7 0 -1 4194560 11 12 13 14 150 25 16 17 20 0 9 0 4321 \
                    8192000 500 18446744073709551615\n";
        let stat = Stat {
            cpu: 175,
            threads: 9,
            started: 4321,
            virtual_bytes: 8_192_000,
        };
        assert_eq!(Stat::read(text), Some(stat));
        assert_eq!(Stat::read("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let before = report();
        let end = Instant::now() + Duration::from_millis(60);
        while Instant::now() < end {}
        let after = report();
        assert!(after.cpu_s > before.cpu_s, "{before:?} {after:?}");
        assert!(after.open_fds >= 3 && after.threads >= 1);
        assert!(after.virtual_bytes > memory() && memory() > 1 << 20);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((0.0..3600.0).contains(&(now - after.started)), "{after:?}");
        let thread = nix::unistd::gettid().as_raw();
        assert!(cpu_of_thread(thread).unwrap() > 0.0);
        assert_eq!(cpu_of_thread(i32::MAX), None);
    }
}
