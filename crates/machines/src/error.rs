//! What can fail when a machine is made or used.

use std::io;
use std::path::PathBuf;

/// Why there is no machine, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the host is not there.
    #[error("{program} is not installed, which virtual machines need")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// A program of the host failed.
    #[error("{command}: {why}")]
    Command {
        /// What was run.
        command: String,
        /// Its exit status and the end of what it said.
        why: String,
    },
    /// A file or directory.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The host has no archive of Debian among its sources.
    #[error(
        "no archive of Debian among this system's apt sources (`apt-get indextargets` names none \
         with origin Debian): these tests need one"
    )]
    NoArchive,
    /// A package that the archive does not have.
    #[error("{suite} has no package {package}")]
    NoPackage {
        /// Its name.
        package: String,
        /// Where it was looked for.
        suite: String,
    },
    /// A kernel that is too old for what is to be tested.
    #[error("the newest kernel in {suite} is {version}, and zero-copy on igb needs 6.14")]
    OldKernel {
        /// Where it was looked for.
        suite: String,
        /// What there is.
        version: String,
    },
    /// The machine or its shell has ended.
    #[error("machine {machine} ended{}", detail(console))]
    Ended {
        /// Its name.
        machine: String,
        /// The end of its console.
        console: String,
    },
    /// The machine did not answer in time.
    #[error(
        "machine {machine}: no answer to {what} within {seconds} s{}",
        detail(console)
    )]
    Timeout {
        /// Its name.
        machine: String,
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The end of its console.
        console: String,
    },
    /// A command in a machine failed.
    #[error("in machine {machine}, {command}: exit {code}\n{output}")]
    Inside {
        /// Its name.
        machine: String,
        /// What was run.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it said.
        output: String,
    },
}

fn detail(console: &str) -> String {
    if console.is_empty() {
        String::new()
    } else {
        format!("; the end of its console:\n{console}")
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Turns what the system says about a file into an error.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
