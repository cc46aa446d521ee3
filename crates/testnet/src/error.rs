//! Why a network, or something on it, did not work: what failed, and with which input.

use crate::netns;
use crate::topology::Node;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

/// Why a network, or something on it, did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of several has failed.
    #[error("{doing}")]
    Step {
        /// What was to be done.
        doing: String,
        /// Why it was not.
        source: Box<Error>,
    },
    /// A namespace, or a command in one.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// A file or directory.
    #[error("{doing} {}", path.display())]
    File {
        /// What was to be done with it.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A program that cannot be run, waited for, or sent a signal.
    #[error("{doing}")]
    Program {
        /// What was to be done with it, with its name.
        doing: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A program has failed.
    #[error("{what}: {said}")]
    Failed {
        /// The program, or what it was to get.
        what: String,
        /// What it wrote to its standard error, or its exit status.
        said: String,
    },
    /// JSON that cannot be read or written.
    #[error("{doing}")]
    Json {
        /// What was to be done, with what.
        doing: String,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// A record or an ID of Mixline's that is not valid.
    #[error("{what}")]
    Protocol {
        /// Whose.
        what: &'static str,
        /// Why not.
        source: mixline_protocol::Error,
    },
    /// Something that a text should have in it.
    #[error("no {what} in {text}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Where.
        text: String,
    },
    /// A capture that cannot be read.
    #[error("a capture: {0}")]
    Capture(&'static str),
    /// A program of the network that is not built.
    #[error("{} is missing: run `cargo xtask build`", .0.display())]
    NotBuilt(PathBuf),
    /// The programs of the network cannot be built.
    #[error("the programs do not compile")]
    DoesNotCompile,
    /// A system program that this machine lacks.
    #[error("{0} is not installed: run `cargo xtask setup`")]
    NotInstalled(String),
    /// A network without a kind of port for its relays.
    #[error("no kind of port is given")]
    NoPort,
    /// Something that comes later in the network's start.
    #[error("there is no {0} yet")]
    NotYet(&'static str),
    /// A node without a program.
    #[error("{0} does not run")]
    NotRunning(Node),
    /// A node whose program is there already.
    #[error("{0} already runs")]
    AlreadyRunning(Node),
    /// A program that should run and does not.
    #[error("{} ended ({status}); the end of {}:\n{last}", program.display(), log.display())]
    Ended {
        /// The executable.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its output.
        log: PathBuf,
        /// The last lines of that.
        last: String,
    },
    /// A node's program that did not end well.
    #[error("{node} ended with {status} after SIGTERM")]
    EndedBadly {
        /// The node.
        node: Node,
        /// How it ended.
        status: ExitStatus,
    },
    /// A program that should have ended.
    #[error("{} still runs", .0.display())]
    StillRuns(PathBuf),
    /// Someone wants this to end.
    #[error("interrupted while {doing}")]
    Interrupted {
        /// What went on.
        doing: String,
    },
    /// A deadline has passed.
    #[error("{what}: not within {} s", at_most.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        at_most: Duration,
    },
    /// The kernel gives no random numbers.
    #[error("no random numbers")]
    NoRandomNumbers,
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A program has failed in its work on `what`.
    pub(crate) fn failed(what: impl Into<String>, output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Self::Failed {
            what: what.into(),
            said: if said.is_empty() {
                output.status.to_string()
            } else {
                said
            },
        }
    }

    /// This error and its causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}

/// Says with which file, or of which program, the system found fault.
pub(crate) trait SystemContext<T> {
    /// `doing`, such as "reading", and the file.
    fn file(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
    /// `doing`, such as "running curl".
    fn program(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> SystemContext<T> for io::Result<T> {
    fn file(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::File {
            doing,
            path: path.as_ref().to_owned(),
            source,
        })
    }

    fn program(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Program {
            doing: doing.into(),
            source,
        })
    }
}

/// Says in which step something has failed.
pub(crate) trait StepContext<T> {
    /// `doing`, such as "setting up the router".
    fn step(self, doing: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> StepContext<T> for Result<T, E> {
    fn step(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::Step {
            doing: doing.into(),
            source: Box::new(error.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_and_why() {
        let lost: io::Result<()> = Err(io::ErrorKind::NotFound.into());
        let error = lost
            .file("reading", "/a/file")
            .step("setting up relay3")
            .unwrap_err();
        assert_eq!(
            error.chain(),
            "setting up relay3: reading /a/file: entity not found"
        );
        let ip = netns::ip("nonsense\n")
            .step("making the namespaces")
            .unwrap_err();
        assert!(
            ip.chain()
                .starts_with("making the namespaces: `ip -batch -`: ")
        );
        let deadline = Error::Deadline {
            what: "8 relays in the snapshot".into(),
            at_most: Duration::from_secs(90),
        };
        assert_eq!(
            deadline.chain(),
            "8 relays in the snapshot: not within 90 s"
        );
    }
}
