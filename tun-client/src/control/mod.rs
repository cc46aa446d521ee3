//! The control socket: how commands reach the running client.
//!
//! A UNIX socket, mode 0600, that answers its own user and root. One line of JSON is a
//! request, one line the answer:
//!
//! ```text
//! {"command":"status"}
//! {"command":"down"}
//! {"command":"publish","name":"freespeech"}      {"command":"unpublish","name":"freespeech"}
//! {"command":"reload"}
//! {"command":"resolve","what":"freespeech.anon"}
//!
//! {"ok":...}      {"error":"one line"}
//! ```

mod client;
pub(crate) mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::ask;

/// The longest request, bytes.
pub const MAX_REQUEST: u64 = 4096;
/// The longest answer that is read, bytes: the status of a thousand sessions.
pub const MAX_ANSWER: u64 = 16 * 1024 * 1024;

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
    /// Read the configuration again.
    Reload,
    /// Look something up.
    Resolve {
        /// A name, an ID, or a virtual address.
        what: String,
    },
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
