//! Cookies and load.
use crate::size::Datagram;
use std::net::SocketAddr;
use std::time::Instant;

/// What a responder under load gave us to prove our address with.
#[derive(Clone)]
pub struct Cookie(pub(crate) [u8; 16]);

/// What to do with an initiation whose mac1 is right.
pub enum Admission {
    /// Give it to [`super::Responder::respond`].
    Process,
    /// Send this back instead; no public-key work was done.
    SendCookie(Box<Datagram>),
}

/// Decides when a responder is under load.
#[derive(Debug, Clone)]
pub struct LoadMeter(());

impl LoadMeter {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
    /// Counts one initiation; whether the responder is under load.
    pub fn observe(&mut self, _now: Instant) -> bool {
        todo!()
    }
}

impl Default for LoadMeter {
    fn default() -> Self {
        Self::new()
    }
}

/// Bounds how often one source address costs public-key work. Bounded memory.
#[derive(Debug)]
pub struct SourceLimiter(());

impl SourceLimiter {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
    /// Whether `source` may have one more initiation processed.
    pub fn allow(&mut self, _source: SocketAddr, _now: Instant) -> bool {
        todo!()
    }
}

impl Default for SourceLimiter {
    fn default() -> Self {
        Self::new()
    }
}
