//! What is known of a relay at its addresses, and how it is told.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// What is known of a relay as it describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has answered at each address that this directory can send to, and at one at least.
    Proven {
        /// Since when that is so.
        since: Instant,
    },
    /// This directory has a way to none of its addresses, so it cannot say anything of them. It does not list the
    /// relay; others may.
    CannotTell(SocketAddr),
    /// It is not proven, or not any more.
    Unproven(Why),
}

impl State {
    /// Whether it may be listed.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self, Self::Proven { .. })
    }
}

/// Why a relay is not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An address was not tried yet.
    Waiting(SocketAddr),
    /// It was, in vain.
    Failed(SocketAddr, Trouble),
    /// Nobody has asked, or what was asked of has been dropped.
    Unasked,
    /// As many relays are tried as there is room for, of its network or of all.
    NoRoom,
}

/// What came of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No answer to so many initiations.
    Silent {
        /// How many were sent.
        sent: u32,
    },
    /// An answer, but from there.
    Elsewhere(SocketAddr),
    /// Cookies, and more effort asked for than a directory makes; or cookies and nothing else.
    Busy,
    /// The link key is none.
    BadKey,
    /// This host has no way to such an address.
    NoWay,
}

impl fmt::Display for State {
    /// What an operator of the relay is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { .. } => f.write_str("the directory has reached you at all addresses"),
            Self::CannotTell(address) => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "the directory has no way to {address}, so it cannot find out whether you are there; \
                     advertise an address that is not {family} as well, or another directory lists you"
                )
            }
            Self::Unproven(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(address) => write!(
                f,
                "the directory has not reached you at {address} yet; this takes some seconds"
            ),
            Self::Failed(address, trouble) => {
                write!(f, "the directory cannot reach you at {address}: {trouble}")
            }
            Self::Unasked => {
                f.write_str("the directory has not tried to reach you yet; register again")
            }
            Self::NoRoom => f.write_str(
                "the directory is busy reaching other relays, many of them near you; again later",
            ),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { sent } => write!(
                f,
                "no answer to {sent} handshakes over UDP; is the port open, and forwarded, and is this relay \
                 the one that is there? The directory tries again by itself"
            ),
            Self::Elsewhere(source) => write!(
                f,
                "the answer came from {source}; a relay must send from the address and port that it \
                 advertises"
            ),
            Self::Busy => f.write_str(
                "it is too busy for a handshake: it asks for more effort than a directory makes. The \
                 directory tries again by itself",
            ),
            Self::BadKey => f.write_str("its link key is not one"),
            Self::NoWay => f.write_str("this host has no way there"),
        }
    }
}
