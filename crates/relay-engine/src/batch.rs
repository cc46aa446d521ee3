//! A batch of datagrams on its way through the pipeline, in place.
//!
//! The bytes stay where the port has them, be it a receive buffer or a frame of a UMEM;
//! a slot borrows them. What becomes of a slot is written into it: the stages of the
//! pipeline move its [`State`] on, and the port sends those that end as [`State::Send`].

use std::net::SocketAddr;
use std::time::Instant;

use arrayvec::ArrayVec;
use mixline_protocol::path::Next;
use mixline_protocol::replay::Position;
use mixline_protocol::size::Datagram;

use crate::headers::Flow;

/// The most datagrams of a batch.
pub const BATCH: usize = 64;

/// How far a datagram has come.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// As it came off the wire.
    Arrived,
    /// As it came off the wire, to this other worker, which does not own its session.
    Strayed(usize),
    /// The link's layer is off; a cell of a path is inside.
    Cell,
    /// The path's layer is off. Where it goes.
    Peeled(Onward),
    /// As before, and the delay, if there is any, has passed.
    Due(Onward),
    /// Sealed for the neighbour at this address.
    Send(SocketAddr, Flow),
    /// Dropped, or taken elsewhere.
    Ended,
}

/// Where a cell goes whose path's layer is off.
#[derive(Debug, Clone, Copy)]
pub struct Onward {
    /// The next hop.
    pub next: Next,
    /// The flow that it belonged to before its layer was taken off.
    pub flow: Flow,
    /// Where its tag is in the replay filter: it is sent if it has not been sent before. None once that has
    /// been asked, and for a copy that a relay sends which misbehaves.
    pub replay: Option<Position>,
}

/// A datagram in a batch.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Its bytes.
    pub datagram: &'a mut Datagram,
    /// Who sent it; for one that does not come from a port, what was known then.
    pub source: SocketAddr,
    /// The index of the session that it has authenticated under; 0, which no session has, before.
    pub session: u32,
    /// How far it has come.
    pub state: State,
    /// Since when the relay has it, if that is earlier than its batch: it was held, or waited in the
    /// port behind others of one read.
    pub since: Option<Instant>,
}

impl Slot<'_> {
    /// Whether it is still as it came off the wire.
    #[must_use]
    #[inline]
    pub fn has_arrived(&self) -> bool {
        matches!(self.state, State::Arrived | State::Strayed(_))
    }

    /// Whether it has authenticated under a session.
    #[must_use]
    #[inline]
    pub fn is_authentic(&self) -> bool {
        self.session != 0
    }

    /// Where it is to be sent, if it is.
    #[must_use]
    #[inline]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.state {
            State::Send(to, _) => Some(to),
            _ => None,
        }
    }
}

/// Up to [`BATCH`] datagrams, and in which order those to be sent go.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The datagrams, as they came.
    pub slots: ArrayVec<Slot<'a>, BATCH>,
    /// Indices of those to be sent, in the order of sending.
    pub order: ArrayVec<u8, BATCH>,
    /// Slots differ in since when the relay has them. Otherwise the first one says it for all.
    pub apart: bool,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a datagram that has just arrived; one too many is not added.
    #[inline]
    pub fn push(&mut self, datagram: &'a mut Datagram, source: SocketAddr) {
        let slot = Slot {
            datagram,
            source,
            session: 0,
            state: State::Arrived,
            since: None,
        };
        let _ = self.slots.try_push(slot);
    }

    /// Says since when the port has had these datagrams, if that is earlier than now.
    pub fn waited_since(&mut self, since: Instant) {
        for slot in &mut self.slots {
            slot.since = Some(since);
        }
    }

    /// Says since when the relay has each of these datagrams, as far as that is known.
    pub fn arrived_at(&mut self, times: impl IntoIterator<Item = Option<Instant>>) {
        self.apart = true;
        for (slot, time) in self.slots.iter_mut().zip(times) {
            slot.since = time;
        }
    }

    /// The datagrams to be sent, and where to, in order.
    #[inline]
    pub fn to_send(&self) -> impl Iterator<Item = (&Datagram, SocketAddr)> {
        self.order.iter().filter_map(|at| {
            let slot = self.slots.get(usize::from(*at))?;
            Some((&*slot.datagram, slot.destination()?))
        })
    }
}
