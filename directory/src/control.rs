//! The socket in the state directory where a running directory is told to read its configuration again.
//!
//! ```text
//! request   one line: `reload`
//! answer    {"changed": [KEY...], "restart": [KEY...]}, or {"error": TEXT}
//! ```
//!
//! The state directory is open to its owner alone, and so is the socket.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mixline_daemon::reload::Reloaded;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::reload::Reloader;

/// How long a request or an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request, bytes.
const LONGEST_REQUEST: u64 = 64;
/// The longest answer, bytes.
const LONGEST: u64 = 1 << 16;
/// How long to wait when accepting fails.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a directory did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none, or it does not answer.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { error: String },
    Done(Reloaded),
}

/// Where the socket is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Opens the socket. One that an earlier directory left there is replaced: the lock of the records says
/// that it does not run any more.
///
/// # Errors
/// Those of `bind(2)`; above all, a path that is too long for a socket.
pub fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = path(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers whoever asks, one after the other.
pub async fn serve(listener: UnixListener, reloader: Arc<Reloader>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Who does not read does not keep others waiting for long.
                let _ = tokio::time::timeout(PATIENCE, answer(stream, &reloader)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, reloader: &Arc<Reloader>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST_REQUEST))
        .read_line(&mut line)
        .await?;
    let answer = match line.trim() {
        "reload" => match reloader.reload().await {
            Ok(done) => Answer::Done(done),
            Err(error) => Answer::Refused {
                error: error.to_string(),
            },
        },
        other => Answer::Refused {
            error: format!("`{other}` is no request"),
        },
    };
    writer.write_all(&serde_json::to_vec(&answer)?).await?;
    writer.shutdown().await
}

/// Asks the directory that runs on a state directory to read its configuration again.
///
/// # Errors
/// [`AskError`].
pub fn reload(state_dir: &Path) -> Result<Reloaded, AskError> {
    let mut stream = UnixStream::connect(path(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "reload")?;
    let mut json = Vec::new();
    stream.take(LONGEST).read_to_end(&mut json)?;
    match serde_json::from_slice(&json).map_err(io::Error::from)? {
        Answer::Done(done) => Ok(done),
        Answer::Refused { error } => Err(AskError::Refused(error)),
    }
}
