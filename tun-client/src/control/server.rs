//! The running client's side of the control socket.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Answer, MAX_REQUEST, Request};
use crate::error::{ControlProblem, Error, Result};

/// Connections at once; one more waits in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 16;
/// How long a connection may be silent, or not take its answer.
const IDLE: Duration = Duration::from_secs(10);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Why a request fails: one line for a person.
    type Error: std::error::Error;

    /// Answers one request.
    fn handle(
        &self,
        request: Request,
    ) -> impl Future<Output = std::result::Result<Value, Self::Error>> + Send;
}

/// A bound control socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the socket. A file that a client which stopped uncleanly left is replaced.
    ///
    /// # Errors
    /// [`Error::Control`] if a running client answers there; [`Error::File`].
    pub fn bind(path: &Path) -> Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Error::Control {
                path: path.to_owned(),
                problem: ControlProblem::Taken,
            });
        }
        let bind = || {
            match std::fs::symlink_metadata(path) {
                Ok(metadata) if !is_socket(&metadata) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AlreadyExists,
                        "it is no socket",
                    ));
                }
                Ok(_) => std::fs::remove_file(path)?,
                Err(_) => {}
            }
            // Nobody else can connect at any moment.
            let before = umask(Mode::from_bits_truncate(0o177));
            let bound = UnixListener::bind(path);
            umask(before);
            let bound = bound?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(bound)
        };
        let listener = bind().map_err(Error::file("open the control socket", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers until dropped.
    pub async fn serve<H: Handler>(self, handler: Arc<H>) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            if !is_own(&stream) {
                continue;
            }
            let handler = Arc::clone(&handler);
            tasks.spawn(async move {
                let _permit = permit;
                if let Err(error) = connection(stream, handler.as_ref()).await {
                    tracing::debug!(%error, "control connection");
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have gone with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

/// Whether the other end is this process's user, or root.
fn is_own(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Answers the requests of one connection, one after the other.
async fn connection<H: Handler>(stream: UnixStream, handler: &H) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_REQUEST);
        let read = limited.read_until(b'\n', &mut line);
        match tokio::time::timeout(IDLE, read).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = if !whole {
            Answer::Error(format!(
                "a request is one line of at most {MAX_REQUEST} bytes"
            ))
        } else {
            match serde_json::from_slice(&line) {
                Ok(request) => match handler.handle(request).await {
                    Ok(value) => Answer::Ok(value),
                    Err(error) => Answer::Error(error.to_string()),
                },
                Err(error) => Answer::Error(format!("not a request: {error}")),
            }
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        tokio::time::timeout(IDLE, writer.write_all(&bytes)).await??;
        if !whole {
            return Ok(());
        }
    }
}
