//! The keys of a session: those in use, those that may come to be, and those before.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::Error;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::records::{Lease, TailOffer};
use mixline_protocol::session::{SessionKeys, SessionOpen};
use mixline_protocol::size::Payload;

/// Answers of ours whose initiator has not yet used the keys; the oldest goes first.
pub const MAX_PENDING: usize = 3;
/// How long the keys before the last are still received under.
pub const KEEP_PREVIOUS: Duration = Duration::from_secs(30);

/// What an initiator says of itself.
pub struct Introduction {
    /// Where it is reached.
    pub tails: Vec<TailOffer>,
    /// Its address.
    pub lease: Option<Lease>,
    /// Its session key.
    pub remote: X25519Public,
}

/// Keys whose initiator has not yet shown that it has them.
pub struct Pending {
    /// The keys.
    pub keys: SessionKeys,
    /// What holds once they are used.
    pub said: Introduction,
}

/// The keys of a session.
#[derive(Default)]
pub struct KeyRing {
    /// What is sent under.
    pub current: Option<SessionKeys>,
    /// What may come to be.
    pub pending: ArrayVec<Pending, MAX_PENDING>,
    /// What was, until when.
    previous: Option<(SessionOpen, Instant)>,
}

/// What a payload turned out to be.
pub enum Opened {
    /// Data under the keys in use, or (`old`) under those before.
    Data {
        /// Whether it is under the keys before.
        old: bool,
    },
    /// The first data under keys that were pending; they are in use now.
    Promoted(Box<Introduction>),
    /// It is a duplicate.
    Duplicate,
    /// It was changed on the way.
    Changed,
    /// It is not under any of the keys: unchanged.
    Unknown,
}

impl KeyRing {
    /// Opens a payload in place under the keys that fit. With `keep`, pending keys that come
    /// into use do not replace those that there are: both sides have begun at the same time,
    /// and agree to use ours.
    pub fn open(&mut self, payload: &mut Payload, keep: bool, now: Instant) -> Opened {
        if let Some(current) = &mut self.current {
            match current.open.open(payload) {
                Ok(_) => return Opened::Data { old: false },
                Err(error) => {
                    if let Some(refused) = refused(&error) {
                        return refused;
                    }
                }
            }
        }
        for at in 0..self.pending.len() {
            match self.pending[at].keys.open.open(payload) {
                Ok(_) if keep => {
                    let Pending { keys, .. } = self.pending.remove(at);
                    self.previous = Some((keys.open, now + KEEP_PREVIOUS));
                    return Opened::Data { old: true };
                }
                Ok(_) => return self.promote(at, now),
                Err(error) => {
                    if let Some(refused) = refused(&error) {
                        return refused;
                    }
                }
            }
        }
        self.previous.take_if(|(_, until)| now >= *until);
        if let Some((previous, _)) = &mut self.previous {
            match previous.open(payload) {
                Ok(_) => return Opened::Data { old: true },
                Err(error) => {
                    if let Some(refused) = refused(&error) {
                        return refused;
                    }
                }
            }
        }
        Opened::Unknown
    }

    fn promote(&mut self, at: usize, now: Instant) -> Opened {
        let Pending { keys, said } = self.pending.remove(at);
        // Older answers are of no use any more; newer ones may yet be.
        self.pending.drain(..at);
        self.install(keys, now);
        Opened::Promoted(Box::new(said))
    }

    /// Uses new keys from now on.
    pub fn install(&mut self, keys: SessionKeys, now: Instant) {
        if let Some(old) = self.current.replace(keys) {
            self.previous = Some((old.open, now + KEEP_PREVIOUS));
        }
    }

    /// Keys that the initiator has to use first.
    pub fn expect(&mut self, pending: Pending) {
        if self.pending.is_full() {
            self.pending.remove(0);
        }
        self.pending.push(pending);
    }
}

/// What an error says about a payload; `None` if it may belong to other keys.
fn refused(error: &Error) -> Option<Opened> {
    match error {
        Error::Malformed { .. } => None,
        Error::Replay => Some(Opened::Duplicate),
        _ => Some(Opened::Changed),
    }
}
