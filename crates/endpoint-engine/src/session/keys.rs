//! The keys of a session: those in use, those that may come to be, and those before.

use std::time::{Duration, Instant};

use mixline_protocol::Error;
use mixline_protocol::frames::{Frame, frames};
use mixline_protocol::identity::X25519Public;
use mixline_protocol::records::{Lease, TailOffer};
use mixline_protocol::session::{SessionKeys, SessionOpen};
use mixline_protocol::size::{COUNTER, FRAMES, Payload};

use crate::limits::PEER_ANSWERS_BURST;

/// Answers of ours whose initiator has not yet used the keys; the oldest goes first. As many as one
/// peer gets at once, two for each of its initiations: the initiator uses those that come first, and over a long way it has asked for the
/// last before.
pub const MAX_PENDING: usize = 2 * PEER_ANSWERS_BURST as usize;
/// How long they wait for that.
pub const KEEP_PENDING: Duration = Duration::from_secs(30);
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
    /// When they were made.
    pub since: Instant,
}

/// The keys of a session.
#[derive(Default)]
pub struct KeyRing {
    /// What is sent under.
    pub current: Option<SessionKeys>,
    /// What may come to be: at most [`MAX_PENDING`].
    pending: Vec<Pending>,
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
                Ok(counter) if is_copy(&current.open, payload, counter) => {
                    return Opened::Duplicate;
                }
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
                Ok(counter) if is_copy(previous, payload, counter) => return Opened::Duplicate,
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
        let Pending { keys, said, .. } = self.pending.remove(at);
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
        if self.pending.len() >= MAX_PENDING {
            self.pending.remove(0);
        }
        self.pending.push(pending);
    }

    /// Forgets what nobody has used, and what is received under no more.
    pub fn expire(&mut self, now: Instant) {
        self.previous.take_if(|(_, until)| now >= *until);
        self.pending
            .retain(|it| now.saturating_duration_since(it.since) < KEEP_PENDING);
    }
}

/// Whether a cell that has come is a copy of one that has.
fn is_copy(open: &SessionOpen, payload: &Payload, counter: u64) -> bool {
    let first = payload[COUNTER..]
        .first_chunk::<FRAMES>()
        .and_then(|bytes| frames(bytes).next());
    match first {
        Some(Ok(Frame::Copy(copy))) => copy.others(counter).any(|other| open.has_seen(other)),
        _ => false,
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

#[cfg(test)]
mod tests {
    use mixline_protocol::frames::Copy;
    use mixline_protocol::identity::{IdentityKey, ShortId, X25519Secret};
    use mixline_protocol::path::PublishedTail;
    use mixline_protocol::session::{Certificate, Form, SessionInitiator, SessionSeal, accept};
    use mixline_protocol::size::PAYLOAD;
    use mixline_protocol::time::UnixTime;
    use rand_core::SeedableRng;

    use super::*;

    /// The two ends of new keys: an initiator's, and a responder's.
    fn keys(seed: u8) -> (SessionKeys, SessionKeys) {
        let rng = &mut chacha20::ChaCha20Rng::from_seed([seed; 32]);
        let at = UnixTime(1_800_000_000);
        let (key, other) = (
            IdentityKey::from_seed([2; 32]),
            IdentityKey::from_seed([3; 32]),
        );
        let (own, theirs) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
        let until = at.plus(3600);
        let certificate = Certificate::sign(&key, &own.public(), until, None).unwrap();
        let tail = PublishedTail {
            first: ShortId([4; 8]),
            alpha: [9; 32],
            gamma: [5; 16],
            beta: [6; 100],
            seed: [7; 16],
        };
        let offer = TailOffer {
            tail,
            expires: until,
        };
        let (to, id) = (theirs.public(), other.anonymous_id());
        let (mut initiator, payload) = SessionInitiator::start(
            &own,
            &to,
            &id,
            Form::Private,
            &certificate,
            &[offer],
            None,
            at.0 * 1000,
            rng,
        )
        .unwrap();
        let accepted =
            accept(&theirs, &id, &id, Form::Private, &payload, at.0 * 1000, rng).unwrap();
        let (responder, response) = accepted.respond(&[offer]).unwrap();
        (initiator.finish(&response).unwrap().0, responder)
    }

    fn pending(keys: SessionKeys, now: Instant) -> Pending {
        let said = Introduction {
            tails: Vec::new(),
            lease: None,
            remote: X25519Public([0; 32]),
        };
        Pending {
            keys,
            said,
            since: now,
        }
    }

    /// Three copies of one cell.
    fn copies(seal: &mut SessionSeal) -> [Payload; 3] {
        [0, 1, 2].map(|index| {
            let mut payload = [0; PAYLOAD];
            let frame = Copy { index, count: 3 }.frame();
            payload[COUNTER..COUNTER + frame.len()].copy_from_slice(&frame);
            seal.seal(&mut payload).unwrap();
            payload
        })
    }

    /// How many of three copies are taken, whichever comes first.
    fn taken(ring: &mut KeyRing, seal: &mut SessionSeal, keep: bool, now: Instant) -> usize {
        let mut copies = copies(seal);
        copies.rotate_left(1);
        let mut taken = 0;
        for copy in &mut copies {
            match ring.open(copy, keep, now) {
                Opened::Data { .. } | Opened::Promoted(_) => taken += 1,
                Opened::Duplicate => {}
                Opened::Changed | Opened::Unknown => panic!("it does not open"),
            }
        }
        taken
    }

    #[test]
    fn one_of_several_copies_is_taken_under_whichever_keys() {
        let now = Instant::now();
        for keep in [false, true] {
            let mut ring = KeyRing::default();
            let (mut first, responder) = keys(1);
            ring.expect(pending(responder, now));
            assert_eq!(taken(&mut ring, &mut first.seal, false, now), 1, "promoted");
            assert_eq!(taken(&mut ring, &mut first.seal, keep, now), 1, "current");
            // New keys: the peer uses them, and has cells under the former ones on their way.
            let (mut second, responder) = keys(2);
            ring.expect(pending(responder, now));
            assert_eq!(
                taken(&mut ring, &mut second.seal, keep, now),
                1,
                "keep {keep}"
            );
            assert_eq!(
                taken(&mut ring, &mut second.seal, keep, now),
                1,
                "keep {keep}"
            );
            assert_eq!(taken(&mut ring, &mut first.seal, keep, now), 1, "former");
        }
    }

    #[test]
    fn former_keys_are_forgotten_in_time() {
        let now = Instant::now();
        let mut ring = KeyRing::default();
        ring.install(keys(1).1, now);
        ring.install(keys(2).1, now);
        ring.expire(now + KEEP_PREVIOUS - Duration::from_millis(1));
        assert!(ring.previous.is_some());
        ring.expire(now + KEEP_PREVIOUS);
        assert!(ring.previous.is_none() && ring.current.is_some());
    }
}
