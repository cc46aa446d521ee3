//! One neighbour: which session is in use, and what to do next.
use super::{Established, OpenKey, SealKey, Timestamp};
use crate::Result;
use crate::identity::{X25519Public, X25519Secret};
use crate::size::Datagram;
use rand_core::CryptoRng;
use std::sync::Arc;
use std::time::Instant;

/// What the owner of a [`Peer`] has to do.
pub enum Action {
    /// Choose a free index, call [`Peer::initiate`], send the datagram.
    Initiate,
    /// Receive under this key, by its `local_index`, with a fresh window.
    Install(Arc<OpenKey>),
    /// Send under this key from now on.
    Use(Arc<SealKey>),
    /// There is no key to send under any more.
    Silence,
    /// Forget this index (of a session or of a handshake in flight).
    Remove(u32),
    /// Seal and send one cover datagram under the key in use.
    KeepAlive,
    /// 90 s of initiations without an answer.
    Unreachable,
}

/// One neighbour's state. Owned by one thread; workers hold only the keys.
pub struct Peer(());

impl Peer {
    /// A neighbour without a session. `keep_up`: hold a session all the time (a client and its guards);
    /// otherwise only while [`Peer::want`] is called or data flows.
    #[must_use]
    pub fn new(_local: X25519Public, _remote: X25519Public, _keep_up: bool, _now: Instant) -> Self {
        todo!()
    }
    /// The neighbour's static key.
    #[must_use]
    pub fn remote(&self) -> X25519Public {
        todo!()
    }
    /// What to do; call until `None`, after each event and at least every `POLL_EVERY`.
    pub fn poll(&mut self, _now: Instant) -> Option<Action> {
        todo!()
    }
    /// Something is to be sent and there may be no key.
    pub fn want(&mut self, _now: Instant) {
        todo!()
    }
    /// Makes an initiation, as asked for by [`Action::Initiate`].
    ///
    /// # Errors
    /// `LowOrder` if the neighbour's key is bad.
    pub fn initiate(
        &mut self,
        _local: &X25519Secret,
        _index: u32,
        _at: Timestamp,
        _now: Instant,
        _rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Box<Datagram>> {
        todo!()
    }
    /// A response came whose receiver index is that of the handshake in flight.
    ///
    /// # Errors
    /// As [`super::Initiator::finish`]; nothing changes.
    pub fn response(&mut self, _datagram: &Datagram, _now: Instant) -> Result<()> {
        todo!()
    }
    /// A cookie came whose receiver index is that of the handshake in flight.
    ///
    /// # Errors
    /// As [`super::Initiator::open_cookie`]; nothing changes.
    pub fn cookie(&mut self, _datagram: &Datagram, _now: Instant) -> Result<()> {
        todo!()
    }
    /// The neighbour's initiation was answered by a [`super::Responder`].
    ///
    /// # Errors
    /// `Replay` if it is not newer than the last; nothing changes.
    pub fn accept(&mut self, _established: Established, _now: Instant) -> Result<()> {
        todo!()
    }
    /// A datagram under the session `local_index` has authenticated (tell at once for the first, coarsely later).
    pub fn heard(&mut self, _local_index: u32, _now: Instant) {
        todo!()
    }
    /// The neighbour said `Close` under this session, or the owner ends it.
    pub fn close(&mut self, _now: Instant) {
        todo!()
    }
    /// The key in use.
    #[must_use]
    pub fn seal_key(&self) -> Option<&Arc<SealKey>> {
        todo!()
    }
    /// Whether there is a key to send under.
    #[must_use]
    pub fn is_up(&self) -> bool {
        todo!()
    }
}
