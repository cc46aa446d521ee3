//! The inside of a machine or a container: its shell, with errors that say whose it is and what its
//! console showed last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shell::{Answer, Shell};
use crate::{Error, Result};

/// How many lines of a console are shown.
const SHOWN: usize = 30;

/// The shell in a machine or a container.
#[derive(Debug)]
pub(crate) struct Inside {
    /// What the machine is called.
    pub name: String,
    /// The file that keeps what its console has shown.
    pub console: PathBuf,
    /// The host's end of the shell.
    pub shell: Shell,
}

impl Inside {
    /// Runs a command.
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<Answer> {
        self.shell
            .run(command, timeout)
            .map_err(|error| self.failed(command, &error, timeout))
    }

    /// Runs a command, with each line given to `show` when it comes; gives its exit code.
    pub fn run_shown(
        &mut self,
        command: &str,
        timeout: Duration,
        show: impl FnMut(&str),
    ) -> Result<i32> {
        self.shell
            .run_shown(command, timeout, show)
            .map_err(|error| self.failed(command, &error, timeout))
    }

    /// Runs a command that has to succeed; gives its output.
    pub fn expect(&mut self, command: &str, timeout: Duration) -> Result<String> {
        let answer = self.run(command, timeout)?;
        if answer.code == 0 {
            return Ok(answer.output);
        }
        Err(Error::Inside {
            machine: self.name.clone(),
            command: command.into(),
            code: answer.code,
            output: answer.output,
        })
    }

    /// The end of what the console has shown.
    pub fn console(&self) -> String {
        end_of(&self.console)
    }

    /// The error of a shell that did not do something in time, or at all.
    pub fn failed(&self, what: &str, error: &io::Error, timeout: Duration) -> Error {
        match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout {
                machine: self.name.clone(),
                what: what.into(),
                seconds: timeout.as_secs(),
                console: self.console(),
            },
            _ => self.ended(),
        }
    }

    /// The error of a machine that has ended.
    pub fn ended(&self) -> Error {
        Error::Ended {
            machine: self.name.clone(),
            console: self.console(),
        }
    }
}

/// The end of what a console has shown, by the file that keeps it.
pub(crate) fn end_of(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
