//! How headers of new paths are opened: two X25519 operations each, some 100 µs, away from
//! the workers, by threads that take a [`Job`] and give back an [`Opened`].
//!
//! A worker has at most 16 headers here at a time. Which of those that wait go next is the
//! worker's decision: one of each neighbour in a round. So nobody's headers wait behind more
//! than a few of anybody else.

use std::sync::{Arc, PoisonError, RwLock};

use crossbeam::channel::{self, Receiver, Sender};
use mixline_protocol::path::{KnownPath, OnionSecret, open_header};
use mixline_protocol::size::Header;

use crate::limits::SLOW_WINDOW;

/// A header to be opened.
pub struct Job {
    /// The worker that wants it.
    pub worker: usize,
    /// The header.
    pub header: Box<Header>,
}

/// A header that was opened, or not.
pub struct Opened {
    /// The header.
    pub header: Box<Header>,
    /// The path and its onion key's epoch; none if no key opens the header.
    pub path: Option<(KnownPath, u32)>,
}

/// The onion keys that headers are opened with, by epoch, in the order of trying.
pub type Keyring = Vec<(u32, Arc<OnionSecret>)>;

/// The keyring in use: changed by the control plane, read by the slow path.
#[derive(Default)]
pub struct Keys(RwLock<Arc<Keyring>>);

impl Keys {
    /// Takes new keys into use.
    pub fn set(&self, keyring: Keyring) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }

    /// The keys in use.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens a header with the first key that fits.
#[must_use]
pub fn open(keys: &Keyring, header: &Header) -> Option<(KnownPath, u32)> {
    keys.iter()
        .find_map(|(epoch, key)| Some((open_header(key, header).ok()?, *epoch)))
}

/// The queue to the slow path of so many workers: it has room for all that they may send.
#[must_use]
pub(crate) fn queue(workers: usize) -> (Sender<Job>, Receiver<Job>) {
    channel::bounded(workers * SLOW_WINDOW)
}
