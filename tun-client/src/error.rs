//! What can go wrong in the client, one line each, saying what to do where there is
//! something to do.
//!
//! Each line already has what the system said, so no variant names it as its source.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::GROUP;
use crate::host::kernel::KernelError;

/// The result of the client's own functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the client does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory of the state cannot be used.
    #[error("cannot {action} {}: {error}", path.display())]
    File {
        /// What was tried, such as "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of the state does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: ContentProblem,
    },
    /// Another process uses the identity.
    #[error(
        "the identity in {} is in use by {}; stop it, or give this client a state_dir of its own",
        directory.display(), holder(*pid)
    )]
    InUse {
        /// The state directory.
        directory: PathBuf,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// The kernel does not let this process make an interface.
    #[error(
        "no permission to create the interface {interface}: it needs CAP_NET_ADMIN and \
         /dev/net/tun; run as root, or grant it with `setcap cap_net_admin,cap_net_bind_service+ep`"
    )]
    TunPermission {
        /// The interface's name.
        interface: String,
    },
    /// There is no TUN driver.
    #[error("no TUN device: /dev/net/tun is missing; load it with `modprobe tun`")]
    TunMissing,
    /// An interface of that name is there already.
    #[error(
        "the interface {interface} exists already: choose another name (key `interface`), or \
         remove it with `ip link delete {interface}`"
    )]
    InterfaceTaken {
        /// The interface's name.
        interface: String,
    },
    /// The interface cannot be made or set up.
    #[error("interface {interface}: cannot {action}: {error}")]
    Interface {
        /// The interface's name.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The host cannot be closed to packets with virtual addresses.
    #[error("the host cannot be kept from leaking: {problem}")]
    Host {
        /// What stands in the way.
        problem: String,
    },
    /// The host cannot be closed or opened now.
    #[error("the host is closed {how}")]
    Locked {
        /// Why, and what to do.
        how: &'static str,
    },
    /// The DNS responder cannot listen.
    #[error(
        "DNS responder: cannot listen on {address}: {error}; see who does with `ss -lnutp 'sport \
         = :53'`, or set `dns: {{mode: off}}` to go on without .anon names"
    )]
    DnsListen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The host's resolver cannot be pointed at the responder.
    #[error("{reason}; set `dns: {{mode: off}}` to leave the host's resolver alone")]
    HostDns {
        /// What went wrong.
        reason: String,
    },
    /// The directory's address cannot be used.
    #[error("{0}")]
    Directory(mixline_directory_client::Error),
    /// The endpoint does not start.
    #[error("{0}")]
    Endpoint(mixline_endpoint::Error),
    /// The signals that ask for a stop cannot be heard.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The endpoint failed while the client was running.
    #[error("stopped: {0}")]
    EndpointFailed(Arc<mixline_endpoint::Error>),
    /// The endpoint stopped without being told to.
    #[error("stopped: the endpoint stopped")]
    EndpointStopped,
    /// The endpoint was told to stop and has not.
    #[error("stopped: the endpoint did not stop in time")]
    EndpointHangs,
    /// The task that fetches snapshots ended.
    #[error("stopped: snapshots are no longer fetched")]
    SnapshotsEnded,
    /// The client in the background cannot be started.
    #[error("cannot start the client in the background: {0}")]
    Background(io::Error),
    /// The client in the background failed. In its own words.
    #[error("{0}")]
    BackgroundFailed(String),
    /// The client in the background was not ready in time, and was stopped.
    #[error("not ready after {seconds} s: {}", step.as_deref().unwrap_or("it said nothing"))]
    BackgroundLate {
        /// How long it was waited for.
        seconds: u64,
        /// The step that it was at.
        step: Option<String>,
    },
    /// The state directory is another user's.
    #[error(
        "{} is for root and the user that the client runs as: try `sudo`",
        directory.display()
    )]
    NotOwner {
        /// The state directory.
        directory: PathBuf,
    },
    /// No client is running that could be asked.
    #[error("no client is running (control socket {}): start it with `mixline-client up`",
        path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
    },
    /// No client is running that this user could ask.
    #[error(
        "no client answers at {}: start it with `systemctl start mixline-client` (one that was \
         started otherwise answers root at {})",
        path.display(), hidden.display()
    )]
    OutOfReach {
        /// The control socket that this user may look for.
        path: PathBuf,
        /// The one that it may not look for.
        hidden: PathBuf,
    },
    /// The control socket cannot be used.
    #[error("control socket {}: {problem}", path.display())]
    Control {
        /// The control socket.
        path: PathBuf,
        /// What went wrong.
        problem: ControlProblem,
    },
    /// The running client did not do what was asked. In its own words.
    #[error("{0}")]
    RequestFailed(String),
}

/// What a file of the state holds that it should not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentProblem {
    /// More names than a client publishes.
    #[error("more than {most} names")]
    TooManyNames {
        /// How many there may be.
        most: usize,
    },
    /// A line is no name.
    #[error("{line:?} is no name; remove the line")]
    NotAName {
        /// The line.
        line: String,
    },
    /// A line is no client.
    #[error("{line:?} is no client (its name, a space, its key); remove the line")]
    NotAClient {
        /// The line.
        line: String,
    },
    /// More clients than a service has.
    #[error("more than {most} clients")]
    TooManyClients {
        /// How many there may be.
        most: usize,
    },
    /// A line is no ID.
    #[error("{line:?} is no ID of a service; remove the line")]
    NotAnId {
        /// The line.
        line: String,
    },
    /// No key can be made of it.
    #[error("{0}")]
    Key(mixline_protocol::Error),
    /// The key is not secret.
    #[error(
        "others can read this secret key (mode {mode:04o}); if nobody has, run `chmod 600` on it"
    )]
    KeyReadable {
        /// The file's permissions.
        mode: u32,
    },
    /// The key is damaged.
    #[error(
        "{length} bytes where a key has {expected}: restore it from a backup, or remove it to get \
         a new identity"
    )]
    KeyLength {
        /// The file's length, bytes.
        length: usize,
        /// A key's length, bytes.
        expected: usize,
    },
}

/// Why the control socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlProblem {
    /// Another client listens there.
    #[error("another client answers there; give this one a control_socket of its own")]
    Taken,
    /// It belongs to another user, and not to a group of this one's.
    #[error(
        "permission denied: ask as root, as the user that the client runs as, or as a member of \
         the group {GROUP} (`sudo usermod -aG {GROUP} USER`, which counts from the next login)"
    )]
    PermissionDenied,
    /// The connection failed.
    #[error("{0}")]
    Connection(io::Error),
    /// The client took too long.
    #[error("no answer")]
    NoAnswer,
    /// The connection ended.
    #[error("the client stopped before it answered")]
    Closed,
    /// What came is no answer.
    #[error("not an answer: {0}")]
    NotAnAnswer(serde_json::Error),
}

impl Error {
    /// For `map_err`: a file operation that failed.
    pub fn file<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::File {
            action,
            path: path.to_owned(),
            error,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        Self::Host {
            problem: error.to_string(),
        }
    }
}
