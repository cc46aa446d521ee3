//! Daemons that die by a fault of their own. Where the client did, the host stays closed, and the service
//! manager's next start takes it over; relay and directory are started again.
//!
//! The panics are real ones: who may have no more threads cannot run what needs one ("OS can't spawn worker
//! thread"). A client needs one to look at the host, if it was suspended for longer than its other thread
//! waits; a relay does when it stops, a directory when it starts. SIGSEGV stands for what no panic is.

use super::checks::{Checks, SHORT, said, until, until_within};
use super::life::{anew, main_process};
use super::network::{DIRECTORY as DIRECTORY_ADDRESS, registered};
use super::resolver::{DROP_IN, resolves_by_host};
use anyhow::{Context, Result, anyhow, bail, ensure};
use mixline_machines::container::Container;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const CLIENT: &str = "mixline-client";
const RELAY: &str = "mixline-relay";
const DIRECTORY: &str = "mixline-directory";
/// How long a process that has panicked may take to end.
const END: Duration = Duration::from_secs(5);
/// Longer than a thread waits for more to do, by default of tokio's, seconds.
const IDLE: u32 = 11;
/// The host is closed, and nobody is there.
const CLOSED: &str = "ip route get 10.1.2.3 2>&1 | grep -q 'No route to host' && \
     ip -6 route get fd12::1 2>&1 | grep -q 'No route to host' && ! getent hosts nosuch.anon";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("a panic ends the client, and the host stays closed", || {
        panics(container)
    });
    checks.check("so does a fault that is no panic", || faults(container));
    checks.check("a panic ends the relay, and another one is started", || {
        relay_panics(container)
    });
    checks.check(
        "a panic ends the directory, and another one is started",
        || directory_panics(container),
    );
}

/// Has the service manager start the client no more by itself, while the host is looked at.
fn stays_dead(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "mkdir -p {DROP_IN} && printf '[Service]\\nRestart=no\\n' > {DROP_IN}/dead.conf && systemctl daemon-reload"
        ),
    )
    .map(drop)
}

/// The host is closed now, and another client takes it over.
fn taken_over(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!("test $(systemctl is-active {CLIENT}) = failed"),
    )?;
    said(container, CLOSED)?;
    said(
        container,
        &format!(
            "rm {DROP_IN}/dead.conf && systemctl daemon-reload && systemctl reset-failed {CLIENT}"
        ),
    )?;
    container.expect(
        &format!("systemctl start {CLIENT}"),
        Duration::from_secs(90),
    )?;
    resolves_by_host(container)
}

fn panics(container: &mut Container) -> Result<()> {
    stays_dead(container)?;
    let before = main_process(container, CLIENT)?;
    let last_words = LastWords::of(container, CLIENT)?;
    let limit = Limit::set(container, CLIENT, before)?;
    let ended = suspended(container, before);
    limit.lift(container)?;
    last_words.are_of_a_panic(container, ended)?;
    taken_over(container)
}

/// The words of a unit from now on.
struct LastWords {
    log: String,
}

impl LastWords {
    fn of(container: &mut Container, unit: &str) -> Result<Self> {
        let began = said(container, "date +%s")?;
        let since = began.trim();
        Ok(Self {
            log: format!("journalctl --no-pager --unit={unit} --output=cat --since=@{since}"),
        })
    }

    /// Prints where it panicked; fails if it did not, or if it has not `ended`.
    fn are_of_a_panic(self, container: &mut Container, ended: Result<()>) -> Result<()> {
        // The journal may not have read them yet.
        let panic = format!("journalctl --sync; {} | grep -A 1 'panicked at'", self.log);
        let words = container.run(&panic, SHORT)?.output;
        println!("          {}", words.replace('\n', ": "));
        ended.with_context(|| words.clone())?;
        ensure!(words.contains("panicked at"), "it ended, and did not panic");
        Ok(())
    }
}

fn relay_panics(container: &mut Container) -> Result<()> {
    let before = main_process(container, RELAY)?;
    let last_words = LastWords::of(container, RELAY)?;
    let limit = Limit::set(container, RELAY, before)?;
    // Not by the service manager, which would not start it again.
    said(container, &format!("kill -TERM {before}"))?;
    let ended = until(container, &format!("! kill -0 {before} 2>/dev/null"));
    limit.lift(container)?;
    last_words.are_of_a_panic(container, ended)?;
    until(container, &anew(RELAY, before))?;
    registered(container)
}

fn directory_panics(container: &mut Container) -> Result<()> {
    let before = main_process(container, DIRECTORY)?;
    let last_words = LastWords::of(container, DIRECTORY)?;
    let drop_in = format!("/run/systemd/system/{DIRECTORY}.service.d");
    said(
        container,
        &format!(
            "mkdir -p {drop_in} && printf '[Service]\\nLimitNPROC=1\\n' > {drop_in}/alone.conf && systemctl daemon-reload"
        ),
    )?;
    let started = container.run(&format!("systemctl restart {DIRECTORY}"), SHORT)?;
    said(
        container,
        &format!("rm {drop_in}/alone.conf && systemctl daemon-reload"),
    )?;
    let ended = if started.code == 0 {
        Err(anyhow!("it runs, and has one thread"))
    } else {
        Ok(())
    };
    last_words.are_of_a_panic(container, ended)?;
    until(container, &anew(DIRECTORY, before))?;
    until(
        container,
        &format!("curl -sf http://{DIRECTORY_ADDRESS}/healthz"),
    )
}

/// Stops a process for a while, until it has ended by that.
fn suspended(container: &mut Container, process: u32) -> Result<()> {
    let gone = format!("! kill -0 {process} 2>/dev/null");
    for _ in 0..3 {
        // All on one core, and its first thread, which would give the other one work, is the last to go on.
        said(
            container,
            &format!(
                "taskset --all-tasks --cpu-list --pid 0 {process} && chrt --idle --pid 0 {process} && \
                 kill -STOP {process} && sleep {IDLE} && kill -CONT {process} && sleep 0.3; \
                 chrt --other --pid 0 {process}; true"
            ),
        )?;
        if until_within(container, &gone, END).is_ok() {
            return Ok(());
        }
    }
    bail!("the client goes on")
}

fn faults(container: &mut Container) -> Result<()> {
    stays_dead(container)?;
    let before = main_process(container, CLIENT)?;
    // The first is for a handler that looks whether a stack is full, and lets the fault happen again.
    said(
        container,
        &format!("kill -SEGV {before} && sleep 0.1 && kill -SEGV {before}"),
    )?;
    until(container, &format!("! kill -0 {before} 2>/dev/null"))?;
    taken_over(container)
}

/// What the names of groups begin with.
const GROUP: &str = "mixline-test-";

/// Removes the groups of tests that were killed. One that has processes stays (cgroups(7)).
fn remove_left(hierarchy: &Path) -> Result<()> {
    for entry in fs::read_dir(hierarchy)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(GROUP) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

/// A daemon may have no other thread, nor child.
struct Limit {
    unit: &'static str,
    /// Its group where the host has a hierarchy for this alone, which the container does not see; else
    /// the container's service manager has the limit.
    group: Option<PathBuf>,
}

impl Limit {
    fn set(container: &mut Container, unit: &'static str, process: u32) -> Result<Self> {
        let hierarchy = Path::new("/sys/fs/cgroup/pids");
        if !hierarchy.is_dir() {
            tasks(container, unit, "1")?;
            return Ok(Self { unit, group: None });
        }
        remove_left(hierarchy)?;
        let outer = container
            .outer(process)
            .with_context(|| format!("{unit} is not in the container"))?;
        let group = hierarchy.join(format!("{GROUP}{outer}"));
        fs::create_dir(&group)?;
        let limit = Self {
            unit,
            group: Some(group.clone()),
        };
        fs::write(group.join("cgroup.procs"), outer.to_string())?;
        fs::write(group.join("pids.max"), "1")?;
        Ok(limit)
    }

    /// The next one may have what it takes.
    fn lift(self, container: &mut Container) -> Result<()> {
        match &self.group {
            None => tasks(container, self.unit, "infinity"),
            Some(group) => Ok(fs::write(group.join("pids.max"), "max")?),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        // What is dead has yet to leave it.
        for _ in 0..100 {
            if fs::remove_dir(group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn tasks(container: &mut Container, unit: &str, most: &str) -> Result<()> {
    said(
        container,
        &format!("systemctl set-property --runtime {unit} TasksMax={most}"),
    )
    .map(drop)
}
