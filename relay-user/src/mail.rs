//! What the threads of a relay say to each other: bounded queues, and a bell for a
//! worker that sleeps.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::queue::ArrayQueue;
use mixline_protocol::identity::ShortId;
use mixline_protocol::link::{CellKind, OpenKey};
use mixline_protocol::path::MailboxToken;
use tokio::sync::Notify;

use crate::links::Link;
use crate::pool::Pooled;
use crate::share::{Place, Shares};
use crate::slow_path::{Opened, SLOW_WINDOW};

/// Commands that wait for a worker; the control plane waits for room.
const COMMANDS: usize = 4096;
/// Datagrams on their way to the worker that owns their session, per worker.
pub const HANDOVERS: usize = 1024;
/// Handshake messages that wait for the control plane. At some 300 µs each, this is
/// 80 ms of its work.
pub const HANDSHAKES: usize = 256;
/// Control messages that wait for the control plane.
pub const MESSAGES: usize = 256;
/// Signals that wait for the control plane.
const SIGNALS: usize = 4096;

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
        shares: Shares,
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
    /// The onion keys of epochs before this one are erased.
    ForgetEpochsBefore(u32),
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
    /// Datagrams under this session come to this worker, which is not its owner.
    Strayed(u32, usize),
}

/// A handshake message.
#[derive(Debug)]
pub struct Handshake {
    /// Its bytes.
    pub datagram: Pooled,
    /// Who sent it, by its address.
    pub source: SocketAddr,
}

/// A control message, out of its seal.
#[derive(Debug)]
pub struct Message {
    /// The datagram with the message in its cell.
    pub datagram: Pooled,
    /// The session that it came under.
    pub index: u32,
    /// What it takes of its neighbour's share.
    pub place: Place,
}

/// What the workers have for the control plane.
#[derive(Debug)]
pub struct ControlInbox {
    /// Handshake messages.
    pub handshakes: ArrayQueue<Handshake>,
    /// Control messages.
    pub messages: ArrayQueue<Message>,
    /// Everything else.
    pub signals: ArrayQueue<Signal>,
    /// Rung when something was added.
    pub bell: Notify,
}

impl ControlInbox {
    /// Empty queues.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            handshakes: ArrayQueue::new(HANDSHAKES),
            messages: ArrayQueue::new(MESSAGES),
            signals: ArrayQueue::new(SIGNALS),
            bell: Notify::new(),
        })
    }

    /// Adds a signal; false if there is no room, and then it may come later.
    pub fn signal(&self, signal: Signal) -> bool {
        let fits = self.signals.push(signal).is_ok();
        self.bell.notify_one();
        fits
    }
}

/// Wakes a worker, if it sleeps.
#[derive(Debug, Default)]
pub struct Bell {
    waker: OnceLock<mio::Waker>,
    asleep: AtomicBool,
}

impl Bell {
    /// Gives the bell its sound. Without, nobody sleeps: in tests.
    pub fn set(&self, waker: mio::Waker) {
        let _ = self.waker.set(waker);
    }

    /// To be called after something was added to a queue of the worker.
    pub fn ring(&self) {
        // Either the worker, which says that it sleeps before it looks a last time, sees
        // what was added, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && let Some(waker) = self.waker.get()
            && let Err(error) = waker.wake()
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }

    /// Says that the worker is about to sleep. It looks at its queues after this.
    pub fn falls_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake.
    pub fn wakes_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// Where others reach a worker.
#[derive(Clone)]
pub struct WorkerAddress {
    /// Commands of the control plane.
    pub commands: Sender<Command>,
    /// Headers that the slow path has opened.
    pub opened: Sender<Opened>,
    /// Datagrams of its sessions that came to another worker.
    pub handovers: Arc<ArrayQueue<(Pooled, SocketAddr)>>,
    /// Rung after any of these.
    pub bell: Arc<Bell>,
}

/// A worker's own end of its queues.
pub struct WorkerInbox {
    /// Commands of the control plane.
    pub commands: Receiver<Command>,
    /// Headers that the slow path has opened.
    pub opened: Receiver<Opened>,
    /// Datagrams of its sessions that came to another worker.
    pub handovers: Arc<ArrayQueue<(Pooled, SocketAddr)>>,
    /// Its bell.
    pub bell: Arc<Bell>,
}

/// The queues of one worker.
#[must_use]
pub fn worker_queues() -> (WorkerAddress, WorkerInbox) {
    let (send_commands, commands) = channel::bounded(COMMANDS);
    // A worker has no more than this on the slow path, so answers always fit.
    let (send_opened, opened) = channel::bounded(SLOW_WINDOW);
    let handovers = Arc::new(ArrayQueue::new(HANDOVERS));
    let bell = Arc::new(Bell::default());
    let address = WorkerAddress {
        commands: send_commands,
        opened: send_opened,
        handovers: Arc::clone(&handovers),
        bell: Arc::clone(&bell),
    };
    (
        address,
        WorkerInbox {
            commands,
            opened,
            handovers,
            bell,
        },
    )
}

impl WorkerInbox {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.opened.is_empty() && self.handovers.is_empty()
    }
}
