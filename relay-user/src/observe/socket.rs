//! The socket in the state directory where a running relay is asked and told.
//!
//! ```text
//! request   one line: `status`, `reload`, `drain SECONDS`; without one, `status`
//! answer    to `status`   a report, as JSON
//!           to `reload`   {"changed": [KEY...], "restart": [KEY...]}
//!           to `drain`    how far it has come, as JSON, one line a second; the last has an `end`
//!           to any        {"error": TEXT}
//! ```
//!
//! The state directory is open to its owner alone, and so is the socket.

use std::io::{self, BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_daemon::reload::Reloaded;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use super::collect::Source;
use super::report::Report;
use crate::drain::{Departure, Progress};
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
/// How long a relay that has left may take to stop.
const STOP: Duration = Duration::from_secs(20);
/// Who may ask at a time.
const ASKERS: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// A report.
    Status,
    /// To read the configuration again.
    Reload,
    /// To leave within this time, and stop.
    Drain(Duration),
}

impl Request {
    /// A request's line.
    fn parse(line: &str) -> Result<Self, String> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] | ["status"] => Ok(Self::Status),
            ["reload"] => Ok(Self::Reload),
            ["drain", seconds] => seconds
                .parse()
                .map(|seconds: u32| Self::Drain(Duration::from_secs(seconds.into())))
                .map_err(|_| format!("`{seconds}` are no seconds")),
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
    /// Lets the relay leave.
    pub departure: Arc<Departure>,
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
            Ok(Request::Reload) => match self.reloader.reload().await {
                Ok(done) => json(&done),
                Err(error) => refused(error.to_string()),
            },
            Ok(Request::Drain(within)) => {
                return show_progress(self.departure.begin(within), &mut writer).await;
            }
            Err(error) => refused(error),
        };
        tokio::time::timeout(PATIENCE, async {
            writer.write_all(&answer).await?;
            writer.shutdown().await
        })
        .await?
    }
}

/// Shows how a relay leaves, to the end.
async fn show_progress(
    mut progress: watch::Receiver<Progress>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        let mut line = json(&now);
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, writer.write_all(&line)).await??;
        if now.end.is_some() {
            break;
        }
    }
    writer.shutdown().await
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

/// Asks the relay that runs on a state directory to leave within a time, and to stop then. Each
/// second `show` gets how far it has come. Returns when the relay has ended.
///
/// # Errors
/// [`AskError`]; also if the relay ended before it had left, or not in order.
pub fn drain(
    state_dir: &Path,
    within: Duration,
    mut show: impl FnMut(&Progress),
) -> Result<(), AskError> {
    let stream = connect(state_dir, &format!("drain {}", within.as_secs()))?;
    let mut left = false;
    for line in io::BufReader::new(stream).lines() {
        let progress: Progress = understand(line?.as_bytes())?;
        show(&progress);
        left |= progress.end.is_some();
    }
    if !left {
        let text = "the relay ended before it had left: see its log";
        return Err(AskError::Refused(text.into()));
    }
    let end = Instant::now() + STOP;
    while StateDir::is_held(state_dir) {
        if Instant::now() >= end {
            let text = format!("the relay has not stopped after {} s", STOP.as_secs());
            return Err(AskError::Refused(text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if StateDir::is_clean(state_dir) {
        Ok(())
    } else {
        let text = "the relay did not stop in order: see its log";
        Err(AskError::Refused(text.into()))
    }
}

fn connect(state_dir: &Path, line: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(StateDir::control_socket(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    Ok(stream)
}

fn request<T: DeserializeOwned>(state_dir: &Path, line: &str) -> Result<T, AskError> {
    let mut json = Vec::new();
    let stream = connect(state_dir, line)?;
    stream.take(LONGEST).read_to_end(&mut json)?;
    understand(&json)
}

fn understand<T: DeserializeOwned>(json: &[u8]) -> Result<T, AskError> {
    if let Ok(Refused { error }) = serde_json::from_slice(json) {
        return Err(AskError::Refused(error));
    }
    Ok(serde_json::from_slice(json).map_err(io::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Request::parse(""), Ok(Request::Status));
        assert_eq!(Request::parse("status\n"), Ok(Request::Status));
        assert_eq!(Request::parse("reload"), Ok(Request::Reload));
        let within = Duration::from_secs(30);
        assert_eq!(Request::parse("drain 30\n"), Ok(Request::Drain(within)));
        for wrong in ["Status", "status now", "stop", "drain", "drain -1"] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
    }
}
