//! Relays and servers that the client itself talks to, at addresses inside the virtual networks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::finding::Finding;
use super::observed::{Route, TABLE, Target};
use super::prefix::Prefix;
use crate::config::DNS_PORT;

/// How many of them are let through; each takes four sentences of the filter.
pub const MAX_OUTSIDE: usize = 64;

/// Where a relay, the directory or a name server is, and how it is spoken to. Nothing else gets
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outside {
    /// Its address and port.
    pub at: SocketAddr,
    /// How it is spoken to.
    pub transport: Transport,
}

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

impl Transport {
    /// Its number in the header of IP (RFC 768, RFC 9293).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

impl Outside {
    /// One that is spoken to by datagrams.
    #[must_use]
    pub fn udp(at: SocketAddr) -> Self {
        Self {
            at,
            transport: Transport::Udp,
        }
    }

    /// Whether it answers questions about names.
    #[must_use]
    pub fn is_name_server(&self) -> bool {
        self.at.port() == DNS_PORT
    }

    /// One that is spoken to by streams.
    #[must_use]
    pub fn tcp(at: SocketAddr) -> Self {
        Self {
            at,
            transport: Transport::Tcp,
        }
    }
}

/// Those that the virtual networks would hide, as far as nobody else has their address, and no more
/// than [`MAX_OUTSIDE`].
pub fn hidden(
    all: &BTreeSet<Outside>,
    networks: &[Prefix],
    taken: impl Fn(&Outside) -> bool,
    findings: &mut Vec<Finding>,
) -> BTreeSet<Outside> {
    let inside = |outside: &&Outside| networks.iter().any(|n| n.contains(outside.at.ip()));
    let mut hidden = all.iter().filter(inside).filter(|outside| !taken(outside));
    let some = hidden.by_ref().take(MAX_OUTSIDE).copied().collect();
    if hidden.next().is_some() {
        findings.push(Finding::TooManyOutside);
    }
    some
}

/// Routes that leave their addresses to other tables.
pub fn routes(hidden: &BTreeSet<Outside>, metric: u32) -> impl Iterator<Item = Route> + '_ {
    hidden.iter().map(move |outside| Route {
        table: TABLE,
        to: Prefix::host(outside.at.ip()),
        target: Target::Throw,
        metric,
    })
}
