//! Datagrams outside of batches: held for a path or a link, delayed, or handed over.

use std::net::SocketAddr;
use std::time::Instant;

use crate::batch::State;
use crate::buffer_pool::Pooled;
use crate::quota::Permit;

/// A datagram that has left its batch and comes back.
#[derive(Debug)]
pub(super) struct Boxed {
    /// Its bytes.
    pub(super) datagram: Pooled,
    /// Where it came from.
    pub(super) source: SocketAddr,
    /// The session it came under.
    pub(super) session: u32,
    /// How far it has come.
    pub(super) state: State,
    /// Since when the relay has it, if that is known.
    pub(super) since: Option<Instant>,
    /// The neighbour's permit to have it held.
    #[expect(dead_code, reason = "it is given back when this is dropped")]
    pub(super) permit: Option<Permit>,
}

impl Boxed {
    /// The cell as one whose delay is over.
    pub(super) fn due(mut self) -> Self {
        if let State::Peeled(onward) = self.state {
            self.state = State::Due(onward);
        }
        self
    }
}
