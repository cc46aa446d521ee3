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
    /// The path and its onion key's number; none if no key opens the header.
    pub path: Option<(KnownPath, u32)>,
}

/// The onion keys that headers are opened with, each with its number, in the order of trying.
///
/// Numbers are given to keys as they are made, and never again. They say nothing of time: an epoch
/// that comes again (a clock was set back) has another key, of another number.
pub type Keyring = Vec<(u32, Arc<OnionSecret>)>;

/// Which onion keys there are, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKeys {
    live: Arc<[u32]>,
    /// Numbers from here on had not been given out when this was said.
    next: u32,
}

impl LiveKeys {
    /// The keys of these numbers. `next`: the number that the next key will have.
    #[must_use]
    pub fn new(live: impl IntoIterator<Item = u32>, next: u32) -> Self {
        Self {
            live: live.into_iter().collect(),
            next,
        }
    }

    /// Whether there is the key of this number, as far as is known: a worker may get a header that
    /// was opened with a new key before it hears of that key.
    #[must_use]
    pub fn is_live(&self, number: u32) -> bool {
        number >= self.next || self.live.contains(&number)
    }
}

impl Default for LiveKeys {
    /// What is known before anything was said: all keys are live.
    fn default() -> Self {
        Self::new([], 0)
    }
}

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
        .find_map(|(number, key)| Some((open_header(key, header).ok()?, *number)))
}

/// The queue to the slow path of so many workers: it has room for all that they may send.
#[must_use]
pub(crate) fn queue(workers: usize) -> (Sender<Job>, Receiver<Job>) {
    channel::bounded(workers * SLOW_WINDOW)
}
