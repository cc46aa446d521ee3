//! What the control plane and the workers say to each other.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::{CellKind, OpenKey};
use mixline_protocol::path::MailboxToken;

pub use crate::buffer_pool::Pooled;
use crate::next_hops::Link;
use crate::quota::{NeighbourUsage, Permit};
use crate::room::Place;
use crate::slow_path::LiveKeys;

/// What the control plane tells a worker.
#[derive(Clone)]
pub enum Command {
    /// Receive under this session.
    Session {
        /// Its key, which has its index.
        open: Arc<OpenKey>,
        /// Whose it is.
        neighbour: u32,
        /// What that neighbour takes up.
        usage: NeighbourUsage,
        /// Where it is thought to be.
        source: SocketAddr,
    },
    /// Receive no longer under the session of this index.
    Forget(u32),
    /// Send to this neighbour over this link, or no longer.
    Link(u32, Option<Link>),
    /// These relays there are, and no others; and which neighbours they are.
    Relays(Arc<[(ShortId, Option<u32>)]>),
    /// This relay is this neighbour, or none.
    Relay(ShortId, Option<u32>),
    /// These mailboxes are delivered to this neighbour, or to nobody.
    Mailboxes(Arc<[MailboxToken]>, Option<u32>),
    /// Relays of the snapshot register from these addresses: what says that it is from there has room of its own.
    RelayAddresses(Arc<HashSet<IpAddr>>),
    /// These onion keys there are. All others are erased, and the keys of their paths with them.
    OnionKeys(LiveKeys),
    /// Open new paths, or open none: the relay leaves. Known paths go on.
    NewPaths(bool),
    /// Delay each cell by this from now on, on average. Cells are delayed at all only if they were
    /// from the start, when room was made for those that wait.
    MeanDelay(Duration),
    /// Send what there is, and end.
    Stop,
}

/// What a worker tells the control plane, beside datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Something of this kind has authenticated under the session of this index.
    Heard(u32, CellKind),
    /// The neighbour of this session sends from this address now.
    Moved(u32, SocketAddr),
    /// There are cells for this relay, and no link.
    Want(ShortId),
    /// Something has authenticated under this session that came to this worker, which is not its owner.
    Strayed(u32, usize),
}

/// A datagram that came to another worker than the one that owns its session.
#[derive(Debug)]
pub struct Handover {
    /// Its bytes.
    pub datagram: Pooled,
    /// Who sent it, by its address.
    pub source: SocketAddr,
    /// Since when the relay has it.
    pub since: Instant,
    /// The worker that it came to.
    pub worker: usize,
    /// The permit of those that say that they are of this session.
    pub permit: Option<Permit>,
}

/// A handshake message, or a path probe.
#[derive(Debug)]
pub struct Handshake {
    /// Its bytes.
    pub datagram: Pooled,
    /// Who sent it, by its address.
    pub source: SocketAddr,
    /// The place of an initiation in its queue.
    pub place: Option<Place>,
}

/// A control message, out of its seal.
#[derive(Debug)]
pub struct ControlMessage {
    /// The datagram with the message in its cell.
    pub datagram: Pooled,
    /// The session that it came under.
    pub index: u32,
    /// The neighbour's permit for it.
    pub permit: Permit,
}
