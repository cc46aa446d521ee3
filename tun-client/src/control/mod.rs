//! The control socket: how commands reach the running client.
//!
//! A UNIX socket that answers its own user and root, mode 0600. Where the host has the group
//! [`GROUP`], the socket is the group's too (0660), and its members may ask for what
//! [`Request::is_for_members`] says. One line of JSON is a request, one line the answer:
//!
//! ```text
//! {"command":"status"}
//! {"command":"down"}
//! {"command":"publish","name":"freespeech"}      {"command":"unpublish","name":"freespeech"}
//! {"command":"clients"}                          {"command":"allow-everybody"}
//! {"command":"allow","key":"KEY","name":"alice"} {"command":"deny","name":"alice"}
//! {"command":"key","service":"NAME"}             {"command":"forget","service":"NAME"}
//! {"command":"reload"}
//! {"command":"resolve","what":"freespeech.anon"}
//! {"command":"ping","id":"ID"}                   {"command":"probe","mappings":[10,20]}
//!
//! {"ok":...}      {"error":"one line"}
//! ```

mod admission;
mod client;
pub(crate) mod server;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use admission::{Caller, MAX_MEMBERS, MAX_OF_A_USER, MAX_OWNERS};
pub use client::{Sockets, ask};

/// The group whose members may use the control socket.
pub const GROUP: &str = "mixline";
/// Where the service manager makes a directory for the socket, that all users can enter
/// (`RuntimeDirectory=` of the unit, systemd.exec(5)).
pub const RUNTIME_DIRECTORY: &str = "/run/mixline";
/// The socket in it.
pub const RUNTIME_SOCKET: &str = "/run/mixline/client.sock";
/// The socket in a state directory, where there is no such directory.
pub const STATE_SOCKET: &str = "control.sock";

/// The longest request, bytes.
pub const MAX_REQUEST: u64 = 4096;
/// The longest answer that is read, bytes: the status of a thousand sessions.
pub const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Mappings of a NAT that one measurement looks at, at most.
pub const MAX_MAPPINGS: usize = 8;
/// The longest silence that a mapping is tried for, seconds.
pub const LONGEST_MAPPING: u64 = 120;

/// What can be asked of the running client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The state of everything.
    Status,
    /// Stop.
    Down,
    /// Claim a name and serve it.
    Publish {
        /// With or without `.anon`.
        name: String,
    },
    /// Stop serving a name.
    Unpublish {
        /// With or without `.anon`.
        name: String,
    },
    /// Who may open sessions, and of which services this host is a client.
    Clients,
    /// Let a client in, and nobody who is not listed.
    Allow {
        /// Its public key for this service.
        key: String,
        /// What it is called here.
        name: String,
    },
    /// Take a client off the list.
    Deny {
        /// What it is called here.
        name: String,
    },
    /// Have no list of clients.
    AllowEverybody,
    /// Be a service's client, and show the key for it.
    Key {
        /// A name or an ID.
        service: String,
    },
    /// Be a service's client no longer.
    Forget {
        /// A name or an ID.
        service: String,
    },
    /// Read the configuration again.
    Reload,
    /// Look something up.
    Resolve {
        /// A name, an ID, or a virtual address.
        what: String,
    },
    /// Ask a peer once over each path.
    Ping {
        /// Its ID.
        id: String,
    },
    /// Measure the way to the guards.
    Probe {
        /// For how long mappings of a NAT are left alone, seconds: at most [`MAX_MAPPINGS`] of at most
        /// [`LONGEST_MAPPING`].
        mappings: Vec<u64>,
        /// Whether all of them are tried where nobody translates, for a firewall; otherwise only the
        /// shortest.
        #[serde(default)]
        all_without_nat: bool,
    },
}

impl Request {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Down => "down",
            Self::Reload => "reload",
            Self::Publish { .. } => "publish",
            Self::Unpublish { .. } => "unpublish",
            Self::Clients => "clients",
            Self::Allow { .. } | Self::AllowEverybody => "allow",
            Self::Deny { .. } => "deny",
            Self::Key { .. } | Self::Forget { .. } => "key",
            Self::Resolve { .. } => "resolve",
            Self::Ping { .. } => "ping",
            Self::Probe { .. } => "doctor",
        }
    }

    /// Whether members of [`GROUP`] may ask for it. All else is for root and the client's own user.
    #[must_use]
    pub fn is_for_members(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::Publish { .. }
                | Self::Unpublish { .. }
                | Self::Clients
                | Self::Allow { .. }
                | Self::Deny { .. }
                | Self::Key { .. }
                | Self::Forget { .. }
                | Self::Resolve { .. }
                | Self::Ping { .. }
                | Self::Probe { .. }
        )
    }
}

/// Whether the service manager made [`RUNTIME_DIRECTORY`] for this process.
#[must_use]
pub fn has_runtime_directory() -> bool {
    let named = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    std::env::split_paths(&named).any(|path| path == Path::new(RUNTIME_DIRECTORY))
}

/// An answer: a value, or one line that says why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done.
    Ok(Value),
    /// It was not.
    Error(String),
}
