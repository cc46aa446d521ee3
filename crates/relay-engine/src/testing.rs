//! What tests look into: the bounds of a relay, and what is held within them.

use mixline_protocol::size::Datagram;

use crate::messages::Pooled;
use crate::pipeline::Common;

pub use crate::limits::{
    ANSWERS, HANDOVERS, HANDSHAKES, HELD_CELLS, HOLD_FOR, MESSAGES, OPENING_PATHS, PROBES,
    RELAYS_HANDSHAKES, SLOW_WINDOW,
};

/// How many datagrams are held for a path, a link or a delay, over all workers.
#[must_use]
pub fn held(common: &Common) -> usize {
    common.held.used()
}

/// How many new paths wait to be opened, over all workers.
#[must_use]
pub fn opening(common: &Common) -> usize {
    common.opening.used()
}

/// A copy of `datagram` in a buffer of the relay's pool; none if all buffers are in use.
#[must_use]
pub fn pooled(common: &Common, datagram: &Datagram) -> Option<Pooled> {
    common.pool.copy(datagram)
}
