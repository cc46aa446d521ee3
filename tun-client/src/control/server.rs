//! The running client's side of the control socket.

use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::Group;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::admission::{Admission, Caller, MAX_OWNERS, Ticket};
use super::{Answer, GROUP, MAX_REQUEST, Request};
use crate::error::{ControlProblem, Error, Result};

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
    /// Whether the socket is the group's, so that its members can connect.
    shared: bool,
}

impl Server {
    /// Binds the socket, which is the group's where the host has [`GROUP`]. A file that a client
    /// which stopped uncleanly left is replaced.
    ///
    /// # Errors
    /// [`Error::Control`] if a running client answers there; [`Error::File`].
    pub fn bind(path: &Path) -> Result<Self> {
        let group = Group::from_name(GROUP).ok().flatten();
        Self::bind_for(path, group.map(|group| group.gid.as_raw()))
    }

    /// As [`Server::bind`], for the group of this number, if any.
    ///
    /// # Errors
    /// Those of [`Server::bind`].
    pub fn bind_for(path: &Path, group: Option<u32>) -> Result<Self> {
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
            let shared = group.is_some_and(|group| is_given(path, group));
            let mode = if shared { 0o660 } else { 0o600 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            Ok((bound, shared))
        };
        let (listener, shared) = bind().map_err(Error::file("open the control socket", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            shared,
        })
    }

    /// Answers until dropped.
    pub async fn serve<H: Handler>(self, handler: Arc<H>) {
        let owners = Arc::new(Semaphore::new(MAX_OWNERS));
        let admission = Admission::default();
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let mut stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let Some(caller) = self.caller(&stream) else {
                continue;
            };
            let place = match caller {
                Caller::Owner => match Arc::clone(&owners).try_acquire_owned() {
                    Ok(permit) => Place::Owner(permit),
                    Err(_) => {
                        let text = "root has as many connections at once as there may be";
                        refuse(&mut stream, format!("{text}, {MAX_OWNERS}: try again"));
                        continue;
                    }
                },
                Caller::Member(_) => match admission.connection(caller) {
                    Ok(ticket) => Place::Member(ticket),
                    Err(refusal) => {
                        refuse(&mut stream, refusal.to_string());
                        continue;
                    }
                },
            };
            let (handler, admission) = (Arc::clone(&handler), admission.clone());
            tasks.spawn(async move {
                let _place = place;
                let served = connection(stream, caller, &admission, handler.as_ref());
                if let Err(error) = served.await {
                    tracing::debug!(%error, "control connection");
                }
            });
        }
    }

    /// Who is at the other end, if it may ask for anything. To connect takes the permission to write
    /// to the socket (unix(7)), so whoever is not its owner has it from the group.
    fn caller(&self, stream: &UnixStream) -> Option<Caller> {
        let user = stream.peer_cred().ok()?.uid();
        if user == 0 || user == nix::unistd::geteuid().as_raw() {
            Some(Caller::Owner)
        } else {
            self.shared.then_some(Caller::Member(user))
        }
    }
}

/// What a connection holds while it lives.
#[expect(dead_code, reason = "held for what it does when it goes")]
enum Place {
    Owner(OwnedSemaphorePermit),
    Member(Ticket),
}

/// Whether the socket is a group's, or was given to it. What a process makes has the group that the
/// process runs with; without CAP_CHOWN it can be given to another one that the process is in (chown(2)).
fn is_given(path: &Path, group: u32) -> bool {
    let made = std::fs::symlink_metadata(path).map(|metadata| metadata.gid());
    if made.is_ok_and(|made| made == group) {
        return true;
    }
    let given = std::os::unix::fs::lchown(path, None, Some(group));
    if let Err(error) = &given {
        tracing::info!(
            "the control socket stays this user's: it cannot be given to {GROUP}: {error}"
        );
    }
    given.is_ok()
}

/// Says why a connection is not served, if that can be said at once.
fn refuse(stream: &mut UnixStream, why: String) {
    let Ok(mut line) = serde_json::to_vec(&Answer::Error(why)) else {
        return;
    };
    line.push(b'\n');
    if let Err(error) = stream.try_write(&line) {
        tracing::debug!(%error, "control connection");
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

/// Answers the requests of one connection, one after the other.
async fn connection<H: Handler>(
    stream: UnixStream,
    caller: Caller,
    admission: &Admission,
    handler: &H,
) -> io::Result<()> {
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
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) if caller != Caller::Owner && !request.is_for_members() => {
                    Answer::Error(format!(
                        "{} is for root and the user that the client runs as; members of the group \
                         {GROUP} may ask for status, resolve, ping, doctor, publish and unpublish",
                        request.name()
                    ))
                }
                Ok(request) => match admission.request(caller, &request) {
                    Ok(_ticket) => match handler.handle(request).await {
                        Ok(value) => Answer::Ok(value),
                        Err(error) => Answer::Error(error.to_string()),
                    },
                    Err(refusal) => Answer::Error(refusal.to_string()),
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
