//! The socket in the state directory where a running relay is asked and told.
//!
//! ```text
//! request   one line: `status`, `reload`; without one, `status`
//! answer    to `status`   a report, as JSON
//!           to `reload`   {"changed": [KEY...], "restart": [KEY...]}
//!           to any        {"error": TEXT}
//! ```
//!
//! The state directory is open to its owner alone, and so is the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mixline_daemon::reload::Reloaded;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::collect::Source;
use super::report::Report;
use crate::reload::Reloader;
use crate::state_dir::StateDir;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take. Who says nothing asks for the status.
const REQUEST: Duration = Duration::from_millis(200);
/// The longest request, bytes.
const LONGEST_REQUEST: u64 = 64;
/// The most bytes that an answer has.
const LONGEST: u64 = 1 << 20;
/// Who may ask at a time.
const ASKERS: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// A report.
    Status,
    /// To read the configuration again.
    Reload,
}

impl Request {
    /// A request's line.
    fn parse(line: &str) -> Result<Self, String> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] | ["status"] => Ok(Self::Status),
            ["reload"] => Ok(Self::Reload),
            _ => Err(format!("`{}` is no request", line.trim())),
        }
    }
}

/// An answer that is an error.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    error: String,
}

/// Why a relay did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none, or it does not answer.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// What answers.
pub struct Desk {
    /// What there is to report.
    pub source: Arc<Source>,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
}

/// Opens the socket. One that an earlier relay left there is
/// replaced: the lock of the state directory says that it does not run any more.
///
/// # Errors
/// Those of `bind(2)`; above all, a path that is too long for a socket.
pub fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = StateDir::control_socket(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Answers anyone who asks.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let seats = Arc::new(Semaphore::new(ASKERS));
    // Whoever is being answered goes with this task.
    let mut answers = tokio::task::JoinSet::new();
    loop {
        while answers.try_join_next().is_some() {}
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                answers.spawn(async move {
                    // Who does not read does not keep others waiting.
                    let _ = desk.answer(stream).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Desk {
    async fn answer(&self, stream: tokio::net::UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(LONGEST_REQUEST));
        let said = tokio::time::timeout(REQUEST, reader.read_line(&mut line)).await;
        if let Ok(Err(error)) = said {
            return Err(error);
        }
        let answer = match Request::parse(&line) {
            Ok(Request::Status) => json(&self.source.report()),
            Ok(Request::Reload) => match self.reloader.reload() {
                Ok(done) => json(&done),
                Err(error) => refused(error.to_string()),
            },
            Err(error) => refused(error),
        };
        tokio::time::timeout(PATIENCE, async {
            writer.write_all(&answer).await?;
            writer.shutdown().await
        })
        .await?
    }
}

fn refused(error: String) -> Vec<u8> {
    json(&Refused { error })
}

fn json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Asks the relay that runs on a state directory how it is doing.
///
/// # Errors
/// If there is none, or it does not answer.
pub fn ask(state_dir: &Path) -> io::Result<Report> {
    request(state_dir, "status").map_err(|error| match error {
        AskError::Io(error) => error,
        AskError::Refused(text) => io::Error::other(text),
    })
}

/// Asks the relay that runs on a state directory to read its configuration again.
///
/// # Errors
/// [`AskError`].
pub fn reload(state_dir: &Path) -> Result<Reloaded, AskError> {
    request(state_dir, "reload")
}

fn request<T: DeserializeOwned>(state_dir: &Path, line: &str) -> Result<T, AskError> {
    let mut stream = UnixStream::connect(StateDir::control_socket(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut json = Vec::new();
    stream.take(LONGEST).read_to_end(&mut json)?;
    if let Ok(Refused { error }) = serde_json::from_slice(&json) {
        return Err(AskError::Refused(error));
    }
    Ok(serde_json::from_slice(&json).map_err(io::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Request::parse(""), Ok(Request::Status));
        assert_eq!(Request::parse("status\n"), Ok(Request::Status));
        assert_eq!(Request::parse("reload"), Ok(Request::Reload));
        for wrong in ["Status", "status now", "stop"] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
    }
}
