//! What can go wrong in the client, one line each, saying what to do where there is
//! something to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mixline_protocol::address::VirtualNetwork;

/// The result of the client's own functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the client does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be read or says something that it may not.
    #[error("configuration {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Key, line and what is wrong.
        reason: String,
    },
    /// A file or directory of the state cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, such as "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the state does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
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
    #[error("interface {interface}: cannot {action}: {source}")]
    Interface {
        /// The interface's name.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The virtual network is routed elsewhere already.
    #[error(
        "{network} is already routed by this host ({route}): Mixline would cut that off; remove \
         the route, or use a directory whose `network` parameter is another range"
    )]
    NetworkTaken {
        /// The virtual network.
        network: VirtualNetwork,
        /// The host's own route.
        route: String,
    },
    /// The DNS responder cannot listen.
    #[error(
        "DNS responder: cannot listen on {address}: {source}; see who does with `ss -lnutp 'sport \
         = :53'`, or set `dns: {{mode: off}}` to go on without .anon names"
    )]
    DnsListen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The host's resolver cannot be pointed at the responder.
    #[error("{reason}; set `dns: {{mode: off}}` to leave the host's resolver alone")]
    HostDns {
        /// What went wrong.
        reason: String,
    },
    /// The directory's address cannot be used.
    #[error("{reason}")]
    Directory {
        /// What is wrong with it.
        reason: String,
    },
    /// The client stopped without being told to.
    #[error("stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// No client is running that could be asked.
    #[error("no client is running (control socket {}): start it with `mixline-client up`",
        path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
    },
    /// The running client does not answer as it should.
    #[error("control socket {}: {reason}", path.display())]
    Control {
        /// The control socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The running client says no.
    #[error("{0}")]
    Refused(String),
    /// The endpoint does not start, or stopped.
    #[error(transparent)]
    Endpoint(#[from] mixline_endpoint::Error),
}

impl Error {
    /// For `map_err`: a file operation that failed.
    pub fn file<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
