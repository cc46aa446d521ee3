//! The command line's side of the control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Answer, MAX_ANSWER, RUNTIME_SOCKET, Request};
use crate::error::{ControlProblem, Error, Result};

/// How long an answer is waited for: longer than any question to the directory, and any measurement,
/// takes.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Where a running client may be found, in the order in which it is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets(pub Vec<PathBuf>);

impl Sockets {
    /// Where the host's client is found with its unit.
    #[must_use]
    pub fn of_the_host() -> Self {
        Self(vec![RUNTIME_SOCKET.into()])
    }

    /// Asks the running client one thing, at the first place where it answers.
    ///
    /// # Errors
    /// Those of [`ask`]; [`Error::OutOfReach`] if nobody listens where this user may look.
    pub fn ask(&self, request: &Request) -> Result<Value> {
        self.first(|path| ask(path, request))
    }

    /// Tries one place after the other, until one of them answers.
    fn first<T>(&self, mut asked: impl FnMut(&Path) -> Result<T>) -> Result<T> {
        let mut hidden = None;
        let mut missing = PathBuf::new();
        for path in &self.0 {
            match asked(path) {
                Err(Error::NotRunning { path }) => missing = path,
                Err(Error::Control {
                    path,
                    problem: ControlProblem::PermissionDenied,
                }) => hidden = Some(path),
                other => return other,
            }
        }
        Err(match hidden {
            None => Error::NotRunning { path: missing },
            Some(hidden) if missing.as_os_str().is_empty() || self.0.last() == Some(&hidden) => {
                Error::Control {
                    path: hidden,
                    problem: ControlProblem::PermissionDenied,
                }
            }
            Some(hidden) => Error::OutOfReach {
                path: missing,
                hidden,
            },
        })
    }
}

/// Asks the running client one thing.
///
/// # Errors
/// [`Error::NotRunning`] if nobody listens there, [`Error::RequestFailed`] with the client's own
/// words, [`Error::Control`] for everything else.
pub fn ask(path: &Path, request: &Request) -> Result<Value> {
    let failed = |problem| Error::Control {
        path: path.to_owned(),
        problem,
    };
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NotRunning {
            path: path.to_owned(),
        },
        ErrorKind::PermissionDenied => failed(ControlProblem::PermissionDenied),
        _ => failed(ControlProblem::Connection(error)),
    })?;
    let exchange = || {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // Who is not served is told so, and the connection ended, before it asks.
        let sent = (&stream).write_all(&line);
        let mut answer = Vec::new();
        BufReader::new((&stream).take(MAX_ANSWER)).read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            sent?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange().map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => failed(ControlProblem::NoAnswer),
        _ => failed(ControlProblem::Connection(error)),
    })?;
    if answer.is_empty() {
        return Err(failed(ControlProblem::Closed));
    }
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(text)) => Err(Error::RequestFailed(text)),
        Err(error) => Err(failed(ControlProblem::NotAnAnswer(error))),
    }
}
