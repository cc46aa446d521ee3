//! The command line's side of the control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Answer, MAX_ANSWER, Request};
use crate::error::{ControlProblem, Error, Result};

/// How long an answer is waited for: longer than any question to the directory takes.
const TIMEOUT: Duration = Duration::from_secs(90);

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
        (&stream).write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new((&stream).take(MAX_ANSWER)).read_until(b'\n', &mut answer)?;
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
