//! How long the parts of an exchange may take.

use std::time::Duration;

/// How long the parts of an exchange may take. [`Patience::default`] suits a server somewhere in the
/// Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Connecting, looking up the name included.
    pub connect: Duration,
    /// Until an answer begins on a connection that was kept; then a request that may be repeated is asked
    /// on a fresh one.
    pub kept: Duration,
    /// Until an answer begins on a fresh connection, connecting included.
    pub begin: Duration,
    /// Until more of a body comes.
    pub goes_on: Duration,
    /// A whole exchange.
    pub exchange: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            kept: Duration::from_secs(3),
            begin: Duration::from_secs(15),
            goes_on: Duration::from_secs(10),
            exchange: Duration::from_secs(60),
        }
    }
}
