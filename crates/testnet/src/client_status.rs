//! What a client says of itself, as far as networks and tests ask: the JSON of
//! `mixline-client status`.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who a client is inside Mixline: the part of its status that does not change.
#[derive(Clone, Debug, Deserialize)]
pub struct Identity {
    /// The anonymous ID, 52 characters.
    pub id: String,
    /// Leased by the directory.
    pub ipv4: Ipv4Addr,
    /// Derived from the ID.
    pub ipv6: Ipv6Addr,
}

/// The relays that a client chose, by name.
#[derive(Clone, Debug, Default)]
pub struct ChosenPaths {
    /// The relays that it talks to directly.
    pub guards: Vec<String>,
    /// The live paths of its own sessions (not of those with the directory).
    pub paths: Vec<ChosenPath>,
}

/// One path, as the side sees it that built its head.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ChosenPath {
    /// The relays that this side chose, the guard first.
    pub head: Vec<String>,
    /// The first relay of the other side's tail.
    pub tail: String,
    /// `alive`, `unproven` or `suspect`.
    pub state: String,
    /// Cells sent over it.
    pub cells: u64,
}

#[derive(Deserialize)]
struct EndpointStatus {
    guards: Vec<Guard>,
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Guard {
    name: String,
    temporary: bool,
}

#[derive(Deserialize)]
struct Session {
    local: String,
    paths: Vec<ChosenPath>,
}

impl ChosenPaths {
    pub(crate) fn of(status: &Value) -> Result<Self> {
        let status = EndpointStatus::deserialize(status).map_err(|source| Error::Json {
            doing: "reading guards and sessions in the client's status".into(),
            source,
        })?;
        let guards = status.guards.into_iter().filter(|guard| !guard.temporary);
        let sessions = status
            .sessions
            .into_iter()
            .filter(|session| session.local == "own");
        let mut paths: Vec<_> = sessions.flat_map(|session| session.paths).collect();
        paths.retain(|path| path.state != "suspect");
        paths.sort_by_key(|path| std::cmp::Reverse(path.cells));
        Ok(Self {
            guards: guards.map(|guard| guard.name).collect(),
            paths,
        })
    }
}

/// The addresses in a client's status, once it is up.
pub(crate) fn virtual_addresses(status: &Value) -> Option<Vec<IpAddr>> {
    (status["state"] == "up").then_some(())?;
    let ipv4 = status["ipv4"].as_str()?.parse().ok()?;
    let ipv6 = status["ipv6"].as_str()?.parse().ok()?;
    Some(vec![ipv4, ipv6])
}
