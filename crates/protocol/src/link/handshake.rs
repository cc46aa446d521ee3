//! The handshake.
use super::{Admission, Cookie, OpenKey, SealKey};
use crate::Result;
use crate::identity::{X25519Public, X25519Secret};
use crate::size::Datagram;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Instant;

/// Wall clock time of an initiation; grows with each one of a static key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Unix time.
    pub seconds: u64,
    /// Below 10^9.
    pub nanos: u32,
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(_time: std::time::SystemTime) -> Self {
        todo!()
    }
}

/// A finished handshake.
pub struct Established {
    /// The neighbour's static key.
    pub remote: X25519Public,
    /// What the neighbour calls this session.
    pub remote_index: u32,
    /// What we call it.
    pub local_index: u32,
    /// Seals what we send.
    pub seal: SealKey,
    /// Opens what we receive.
    pub open: OpenKey,
    /// Whether we initiated.
    pub initiated: bool,
    /// The initiation's time.
    pub timestamp: Timestamp,
}

/// A handshake that we began.
pub struct Initiator(());

impl Initiator {
    /// Begins a handshake; `index` is what we will call the session.
    ///
    /// # Errors
    /// `LowOrder` if the remote key is bad.
    pub fn start(
        _local: &X25519Secret,
        _remote: &X25519Public,
        _index: u32,
        _at: Timestamp,
        _cookie: Option<&Cookie>,
        _rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Box<Datagram>)> {
        todo!()
    }
    /// Our index.
    #[must_use]
    pub fn index(&self) -> u32 {
        todo!()
    }
    /// Reads the response; an error leaves the handshake as it was.
    ///
    /// # Errors
    /// `Malformed`, `Authentication`, `Limit`.
    pub fn finish(&mut self, _response: &Datagram) -> Result<Established> {
        todo!()
    }
    /// Reads a cookie.
    ///
    /// # Errors
    /// `Malformed`, `Authentication`.
    pub fn open_cookie(&self, _datagram: &Datagram) -> Result<Cookie> {
        todo!()
    }
}

/// Answers initiations to one static key.
pub struct Responder(());

/// An initiation that authenticates.
pub struct Incoming(());

impl Incoming {
    /// Who it is from.
    #[must_use]
    pub fn remote(&self) -> X25519Public {
        todo!()
    }
    /// When it was made.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        todo!()
    }
    /// Answers it.
    ///
    /// # Errors
    /// `LowOrder`, `Malformed`.
    pub fn respond(
        self,
        _index: u32,
        _rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Established, Box<Datagram>)> {
        todo!()
    }
}

impl Responder {
    /// For the static key `local`.
    pub fn new(_local: &X25519Secret, _now: Instant, _rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        todo!()
    }
    /// Changes the cookie secret when it is due; call it about once a second.
    pub fn tick(&mut self, _now: Instant, _rng: &mut (impl CryptoRng + ?Sized)) {
        todo!()
    }
    /// Checks mac1 and, under load, mac2. No public-key work.
    ///
    /// # Errors
    /// `Authentication` if mac1 is wrong, `Malformed` if the padding is.
    pub fn check_macs(
        &self,
        _datagram: &Datagram,
        _source: SocketAddr,
        _under_load: bool,
    ) -> Result<Admission> {
        todo!()
    }
    /// Opens an initiation that was admitted, and remembers its timestamp.
    ///
    /// # Errors
    /// `Replay`, `Authentication`, `LowOrder`, `Malformed`.
    pub fn read(&mut self, _datagram: &Datagram) -> Result<Incoming> {
        todo!()
    }
    /// `read`, then `Incoming::respond`.
    ///
    /// # Errors
    /// As those.
    pub fn respond(
        &mut self,
        datagram: &Datagram,
        index: u32,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Established, Box<Datagram>)> {
        self.read(datagram)?.respond(index, rng)
    }
}
