//! A client that dies by a fault of its own: the host stays closed, and the service manager's next start
//! takes it over.
//!
//! The panic is a real one. A client that was suspended for longer than its other thread waits, and that may not
//! have one more, cannot look at the host: what runs its tasks panics then ("OS can't spawn worker
//! thread"). SIGSEGV stands for what no panic is.

use super::checks::{Checks, SHORT, said, until};
use super::life::main_process;
use super::resolver::{DROP_IN, resolves_by_host};
use anyhow::{Context, Result, bail, ensure};
use mixline_machines::container::Container;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const CLIENT: &str = "mixline-client";
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
        10,
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
    resolves_by_host(container, 30)
}

fn panics(container: &mut Container) -> Result<()> {
    stays_dead(container)?;
    let before = main_process(container, CLIENT)?;
    let began = said(container, "date +%s")?;
    let log = format!(
        "journalctl --no-pager --unit={CLIENT} --output=cat --since=@{}",
        began.trim()
    );
    let limit = Limit::set(container, before)?;
    let ended = suspended(container, before);
    limit.lift(container)?;
    let words = container
        .run(&format!("{log} | grep -A 1 'panicked at'"), SHORT)?
        .output;
    println!("          {}", words.replace('\n', ": "));
    ended.with_context(|| words.clone())?;
    ensure!(words.contains("panicked at"), "it ended, and did not panic");
    taken_over(container)
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
        if until(container, &gone, 3).is_ok() {
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
    until(container, &format!("! kill -0 {before} 2>/dev/null"), 5)?;
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

/// The client may have no other thread, nor child.
struct Limit {
    /// Its group where the host has a hierarchy for this alone, which the container does not see; else
    /// the container's service manager has the limit.
    group: Option<PathBuf>,
}

impl Limit {
    fn set(container: &mut Container, process: u32) -> Result<Self> {
        let hierarchy = Path::new("/sys/fs/cgroup/pids");
        if !hierarchy.is_dir() {
            tasks(container, "1")?;
            return Ok(Self { group: None });
        }
        remove_left(hierarchy)?;
        let outer = container
            .outer(process)
            .context("the client is not in the container")?;
        let group = hierarchy.join(format!("{GROUP}{outer}"));
        fs::create_dir(&group)?;
        let limit = Self {
            group: Some(group.clone()),
        };
        fs::write(group.join("cgroup.procs"), outer.to_string())?;
        fs::write(group.join("pids.max"), "1")?;
        Ok(limit)
    }

    /// The next one may have what it takes.
    fn lift(self, container: &mut Container) -> Result<()> {
        match &self.group {
            None => tasks(container, "infinity"),
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

fn tasks(container: &mut Container, most: &str) -> Result<()> {
    said(
        container,
        &format!("systemctl set-property --runtime {CLIENT} TasksMax={most}"),
    )
    .map(drop)
}
