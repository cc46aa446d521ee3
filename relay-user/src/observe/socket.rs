//! The socket in the state directory where `status` asks: it sends one report, as JSON, to
//! anyone who connects.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::collect::Source;
use super::report::Report;
use crate::state_dir::StateDir;

/// How long `status` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that it reads.
const LONGEST: u64 = 1 << 20;

/// Opens the socket where `status` asks. One that an earlier relay left there is
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
pub async fn serve(listener: UnixListener, source: Arc<Source>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let json = serde_json::to_vec(&source.report()).unwrap_or_default();
        // Who does not read does not keep others waiting.
        let answer = async {
            stream.write_all(&json).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(PATIENCE, answer).await;
    }
}

/// Asks the relay that runs on a state directory.
///
/// # Errors
/// If there is none, or it does not answer.
pub fn ask(state_dir: &Path) -> io::Result<Report> {
    let stream = UnixStream::connect(StateDir::control_socket(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut json = Vec::new();
    stream.take(LONGEST).read_to_end(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::from)
}
