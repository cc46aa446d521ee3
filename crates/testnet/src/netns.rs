//! Network namespaces: made, entered, removed, and what runs in them. The one place that does so.
//!
//! A [`Namespace`] is a handle, with or without a name. What `ip` makes has a name, stays until it
//! is removed, and can be reached by name from any process; what [`Namespace::new`] makes has none
//! and ends with the handle and the last thread or process in it.

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where `ip` keeps the names of namespaces.
pub(crate) const NAMES: &str = "/run/netns";

/// Why a namespace, or a command in one, did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace cannot be made.
    #[error("making a network namespace, which needs root")]
    Make(#[source] io::Error),
    /// A namespace is not there or cannot be entered.
    #[error("entering the network namespace {name}")]
    Enter {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A command cannot be started.
    #[error("running `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A command has failed.
    #[error("`{command}`: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to its standard error, or its exit status.
        said: String,
    },
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// A handle of a network namespace, which keeps it alive.
#[derive(Debug)]
pub struct Namespace {
    /// For messages.
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace without a name and with nothing in it but a loopback interface that is
    /// down. The calling thread stays where it is.
    ///
    /// # Errors
    /// Without root's rights.
    pub fn new() -> Result<Self> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = match made.join() {
            Ok(file) => file.map_err(Error::Make)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Self {
            name: "without a name".into(),
            file,
        })
    }

    /// The handle of a namespace that has a name.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn named(name: &str) -> Result<Self> {
        match File::open(Path::new(NAMES).join(name)) {
            Ok(file) => Ok(Self {
                name: name.into(),
                file,
            }),
            Err(source) => Err(Error::Enter {
                name: name.into(),
                source,
            }),
        }
    }

    /// Moves the calling thread into it, for good. Threads and processes that it starts from then
    /// on are in it too.
    ///
    /// # Errors
    /// Without root's rights.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno: Errno| Error::Enter {
            name: self.name.clone(),
            source: errno.into(),
        })
    }

    /// Runs `work` on a thread in it and gives what that returns. A panic goes through.
    ///
    /// # Errors
    /// Without root's rights.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Makes a namespace with a name, with nothing in it but a loopback interface that is down.
///
/// # Errors
/// With what `ip` says, such as that the name is taken.
pub fn add(name: &str) -> Result<()> {
    ip(&format!("netns add {name}\n"))
}

/// Removes a namespace that has a name. It goes once nothing runs in it any more.
///
/// # Errors
/// With what `ip` says, such as that there is none of this name.
pub fn delete(name: &str) -> Result<()> {
    ip(&format!("netns del {name}\n"))
}

/// Whether a namespace of this name exists.
#[must_use]
pub fn exists(name: &str) -> bool {
    Path::new(NAMES).join(name).exists()
}

/// The processes that run in a namespace that has a name; none if there is no such namespace.
#[must_use]
pub fn processes(name: &str) -> Vec<i32> {
    let Ok(output) = tool("ip").args(["netns", "pids", name]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A command that runs inside a namespace that has a name, with the namespace's own
/// `/etc/resolv.conf`.
///
/// `ip netns exec` and `setpriv` replace themselves by the program, so the child's PID is the
/// program's. The program is killed when the thread that spawned it ends, however it ends: spawn
/// from the main thread, or from one that lives as long as the program should.
pub fn command(name: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = tool("ip");
    command
        .args([
            "netns",
            "exec",
            name,
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
        ])
        .arg(program);
    command
}

/// A system program in the caller's namespace, found also where only root's search path leads.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", system_path());
    command
}

/// The search path with the directories of system programs, which not every root has in it.
#[must_use]
pub fn system_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Runs lines of `ip`, without that word, in the namespace of the calling thread.
///
/// # Errors
/// With what `ip` says of the first line that fails.
pub fn ip(lines: &str) -> Result<()> {
    batch(&mut tool("ip"), lines)
}

/// Runs lines of `ip`, without that word, in a namespace that has a name.
///
/// # Errors
/// With what `ip` says of the first line that fails.
pub fn ip_in(name: &str, lines: &str) -> Result<()> {
    batch(tool("ip").args(["-n", name]), lines)
}

/// What `ip` prints with these arguments, separated by spaces, in the namespace of the calling
/// thread.
///
/// # Errors
/// With what `ip` says.
pub fn ip_output(arguments: &str) -> Result<String> {
    said(tool("ip").args(arguments.split_whitespace()))
}

/// Runs a command to its end; gives what it prints.
///
/// # Errors
/// If it cannot be started, and with its standard error if it fails.
pub fn said(command: &mut Command) -> Result<String> {
    let line = line(command);
    match command.output() {
        Ok(output) => finished(&line, &output),
        Err(source) => Err(Error::Start {
            command: line,
            source,
        }),
    }
}

fn batch(command: &mut Command, lines: &str) -> Result<()> {
    command.args(["-batch", "-"]);
    let line = line(command);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes())?;
        }
        child.wait_with_output()
    });
    match output {
        Ok(output) => finished(&line, &output).map(drop),
        Err(source) => Err(Error::Start {
            command: line,
            source,
        }),
    }
}

fn finished(line: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Failed {
        command: line.into(),
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said
        },
    })
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_says_is_passed_on() {
        let error = ip_output("link show dev no-such-device").unwrap_err();
        assert!(error.to_string().contains("no-such-device"), "{error}");
        let error = ip("link show dev lo\nnonsense\n").unwrap_err();
        assert!(error.to_string().contains("nonsense"), "{error}");
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error() {
        assert!(!exists("mixline-no-such-namespace"));
        let error = Namespace::named("mixline-no-such-namespace").unwrap_err();
        assert!(error.to_string().contains("mixline-no-such-namespace"));
        assert!(processes("mixline-no-such-namespace").is_empty());
    }
}
