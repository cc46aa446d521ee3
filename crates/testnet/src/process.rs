//! Programs that run in namespaces: how they start and how they end.

use crate::error::{Error, Result, StepContext as _, SystemContext as _};
use crate::netns;
use crate::proc::{self, Usage};
use crate::signals::interrupted;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at something that is waited for.
pub const POLL: Duration = Duration::from_millis(50);
/// How long a program may take to stop after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A running program. Dropping it kills the program and what it has started: dnsmasq has a child for each TCP
/// connection, which keeps the sockets that listen.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
}

impl Program {
    /// Starts it. The caller's thread must outlive it: see [`netns::command`].
    pub fn start(self) -> Result<Process> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .file("opening", &self.log)?;
        let error_log = log.try_clone().file("opening", &self.log)?;
        let child = netns::command(&self.namespace, &self.executable)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .process_group(0) // Ctrl-C is for the one who started the network
            .spawn()
            .program(format!("starting {}", self.executable.display()))?;
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
            Some(status) => Err(Error::Ended {
                program: self.program.executable.clone(),
                status,
                log: self.program.log.clone(),
                last: tail(&self.program.log, 15),
            }),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id();
        i32::try_from(pid)
            .map_err(io::Error::other)
            .and_then(|pid| Ok(kill(Pid::from_raw(pid), signal)?))
            .program(format!("sending {signal} to {pid}"))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Error::StillRuns(self.program.executable.clone()));
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
        self.wait(STOP_TIMEOUT).step("after SIGTERM")
    }

    /// Kills it at once.
    pub fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        let program = self.program.executable.display();
        killed.program(format!("killing {program}")).map(drop)
    }

    /// Its memory and CPU time so far.
    pub fn usage(&self) -> Result<Usage> {
        proc::usage(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // Its PID is the group's too, and nobody else's before it is waited for.
        let group = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(group) = group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whoever it started is waited for by another, as long as that takes.
        let deadline = Instant::now() + STOP_TIMEOUT;
        while group.is_ok_and(|group| killpg(group, None).is_ok()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
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

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Polls until `look` gives a value. Errors of `look` end the wait; `None` means not yet.
pub fn wait_for<T, E: From<Error>>(
    what: &str,
    at_most: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if interrupted() {
            let doing = format!("waiting for {what}");
            return Err(Error::Interrupted { doing }.into());
        }
        if Instant::now() >= deadline {
            let what = what.to_owned();
            return Err(Error::Deadline { what, at_most }.into());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// As [`Program::start`] starts one, in the namespace that the test is in.
    fn start(script: &str, log: &Path) -> Process {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdout(File::create(log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let program = Program {
            namespace: String::new(),
            executable: "sh".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log: log.to_owned(),
        };
        Process { program, child }
    }

    #[test]
    fn children_end_with_it() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let process = start("sleep 1000 & echo $!; wait", log.path());
        let child = wait_for::<_, Error>("the child", STOP_TIMEOUT, || {
            let said = fs::read_to_string(log.path()).unwrap();
            Ok(said.strip_suffix('\n').map(|pid| pid.parse().unwrap()))
        });
        let child = Pid::from_raw(child.unwrap());
        assert!(kill(child, None).is_ok());
        drop(process);
        assert!(kill(child, None).is_err());
    }

    #[test]
    fn the_tail_of_a_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(file.path(), 2), "two\nthree");
        assert_eq!(tail(Path::new("/nonexistent"), 2), "");
    }
}
