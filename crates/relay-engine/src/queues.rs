//! The bounded queues between the threads of a relay.

use std::sync::Arc;

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::queue::ArrayQueue;

use crate::limits::{
    ANSWERS, HANDOVERS, HANDSHAKES, MESSAGES, PROBES, RELAYS_HANDSHAKES, SLOW_WINDOW,
};
use crate::messages::{Command, ControlMessage, Handover, Handshake, Signal};
use crate::quota::Crowd;
use crate::room::Room;
use crate::slow_path::Opened;
use crate::wake::{Wake, WorkerWaker};

/// Commands that wait for a worker; the control plane waits for room.
const COMMANDS: usize = 4096;
/// Signals that wait for the control plane.
const SIGNALS: usize = 4096;

/// What the workers have for the control plane.
pub struct ControlQueues {
    /// Answers to handshakes: responses and cookies.
    pub answers: ArrayQueue<Handshake>,
    /// Initiations.
    pub handshakes: ArrayQueue<Handshake>,
    /// Room for initiations.
    pub(crate) room: Arc<Room>,
    /// The same from where relays are.
    pub(crate) room_of_relays: Arc<Room>,
    /// Path probes.
    pub probes: ArrayQueue<Handshake>,
    /// Control messages.
    pub messages: ArrayQueue<ControlMessage>,
    /// Everything else.
    pub signals: ArrayQueue<Signal>,
    /// Wakes the control plane; to be called when something was added.
    pub waker: Arc<dyn Wake>,
}

impl ControlQueues {
    /// Empty queues of a control plane that `waker` wakes.
    #[must_use]
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            answers: ArrayQueue::new(ANSWERS),
            handshakes: ArrayQueue::new(HANDSHAKES + RELAYS_HANDSHAKES),
            room: Room::new(HANDSHAKES),
            room_of_relays: Room::new(RELAYS_HANDSHAKES),
            probes: ArrayQueue::new(PROBES),
            messages: ArrayQueue::new(MESSAGES),
            signals: ArrayQueue::new(SIGNALS),
            waker,
        })
    }

    /// Adds a signal; false if there is no room, and then it may come later.
    pub fn signal(&self, signal: Signal) -> bool {
        let fits = self.signals.push(signal).is_ok();
        self.waker.wake();
        fits
    }
}

/// What others reach a worker by.
#[derive(Clone)]
pub struct WorkerHandle {
    /// Commands of the control plane.
    pub commands: Sender<Command>,
    /// Headers that the slow path has opened.
    pub opened: Sender<Opened>,
    /// Datagrams of its sessions that came to another worker.
    pub handovers: Arc<ArrayQueue<Handover>>,
    /// Who may add to them, by receiver index.
    pub(crate) strays: Arc<Crowd>,
    /// Wakes the worker; to be called after something was added to any of these.
    pub waker: Arc<WorkerWaker>,
}

/// A worker's own ends of its queues.
pub struct WorkerQueues {
    /// Commands of the control plane.
    pub commands: Receiver<Command>,
    /// Headers that the slow path has opened.
    pub opened: Receiver<Opened>,
    /// Datagrams of its sessions that came to another worker.
    pub handovers: Arc<ArrayQueue<Handover>>,
    /// Wakes the worker; to be called after something was added to any of these.
    pub waker: Arc<WorkerWaker>,
}

/// The queues of one worker: the others' ends, and its own.
#[must_use]
pub(crate) fn worker_queues() -> (WorkerHandle, WorkerQueues) {
    let (send_commands, commands) = channel::bounded(COMMANDS);
    // A worker has no more than this on the slow path, so answers always fit.
    let (send_opened, opened) = channel::bounded(SLOW_WINDOW);
    let handovers = Arc::new(ArrayQueue::new(HANDOVERS));
    let waker = Arc::new(WorkerWaker::default());
    let handle = WorkerHandle {
        commands: send_commands,
        opened: send_opened,
        handovers: Arc::clone(&handovers),
        strays: Arc::new(Crowd::new(HANDOVERS)),
        waker: Arc::clone(&waker),
    };
    (
        handle,
        WorkerQueues {
            commands,
            opened,
            handovers,
            waker,
        },
    )
}

impl WorkerQueues {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.opened.is_empty() && self.handovers.is_empty()
    }
}
