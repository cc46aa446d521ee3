//! The snapshots of a directory that is alone: when, and of what.
//!
//! A snapshot is made anew when the network has changed in what paths are built by, but
//! not more often than the network's size allows ([`pace`]); otherwise
//! once a minute; and in any case when half of its life is over, so that what a client
//! fetches is always good for a while. It is what several directories would make of one vote, which is this
//! directory's own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mixline_directory_engine::merge::Before;
use mixline_directory_engine::{Certified, Records, merge};
use mixline_protocol::identity::Digest;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{RelayRecord, Roster, Snapshot, Vote};
use mixline_protocol::round_log::{Leaf, RoundLog};
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;

use super::past::Past;
use super::{ServiceKeys, voted};
use crate::board::{Board, Published};
use crate::registry::Registry;
use crate::{Error, Result};

/// Seconds after which a snapshot is made anew though nothing has changed.
const REFRESH: u64 = 60;

/// The shortest time in seconds between two snapshots of a network with so many relays, and the
/// time for which clients need not ask again. Small networks come up fast; in large ones a
/// snapshot is large, and a single relay matters less.
#[must_use]
pub fn pace(relays: usize) -> u64 {
    (relays as u64 / 16).clamp(2, 60)
}

/// Makes the snapshots of a directory that is alone.
pub struct Alone {
    registry: Arc<Registry>,
    board: Arc<Board>,
    keys: ServiceKeys,
    roster: Roster,
    /// A snapshot's life, seconds.
    validity: AtomicU64,
    made: Mutex<Made>,
}

/// What was made so far.
struct Made {
    log: RoundLog,
    newest: Option<Certified>,
    /// Where it is kept, if it is.
    past: Option<Past>,
    /// The changes that the newest snapshot has seen, and how long it was to live.
    seen: (u64, u64, u64),
    /// What the newest snapshot commits to.
    secret: [u8; 32],
}

impl Alone {
    /// Goes on from the past, if there is one. `validity` a snapshot's life in seconds.
    ///
    /// # Errors
    /// [`Error::State`] if the past cannot be read.
    pub fn new(
        registry: Arc<Registry>,
        board: Arc<Board>,
        keys: ServiceKeys,
        validity: u64,
        past: Option<Past>,
    ) -> Result<Self> {
        let roster = Roster::alone(keys.identity.anonymous_id());
        let (log, newest) = match &past {
            Some(past) => past.load(std::slice::from_ref(&roster))?,
            None => Default::default(),
        };
        if newest.is_none() && log.head().size > 0 {
            tracing::warn!(
                "the last snapshot is missing or damaged: the log of rounds begins anew, and clients may say that \
                 it does not fit the one before"
            );
        }
        let log = newest.as_ref().map_or_else(RoundLog::default, |_| log);
        Ok(Self {
            registry,
            board,
            keys,
            roster,
            validity: AtomicU64::new(validity),
            made: Mutex::new(Made {
                log,
                newest,
                past,
                seen: (u64::MAX, 0, 0),
                secret: [0; 32],
            }),
        })
    }

    /// The life in seconds of the snapshots to come.
    pub fn set_validity(&self, seconds: u64) {
        self.validity.store(seconds, Ordering::Relaxed);
    }

    /// Reads the log of all rounds.
    pub fn with_log<T>(&self, read: impl FnOnce(&RoundLog) -> T) -> T {
        read(&self.made().log)
    }

    /// Makes a new snapshot if it is time; says whether it did.
    ///
    /// # Errors
    /// [`Error::Snapshot`]; the one before stays. [`Error::State`] if it could not be kept; then it is handed
    /// out all the same.
    pub fn tick(&self, now: UnixTime) -> Result<bool> {
        let mut made = self.made();
        let validity = self.validity.load(Ordering::Relaxed);
        let seen = (
            self.registry.changes(),
            self.board.service_changes(),
            validity,
        );
        let published = self.board.newest();
        if let Some(published) = &published {
            let relays = published
                .snapshot
                .relays
                .len()
                .max(self.registry.live_count());
            if !is_due(&published.snapshot, seen != made.seen, pace(relays), now) {
                return Ok(false);
            }
        }
        // One snapshot has one time, also when a clock was set back.
        let last = made.log.last().map_or(UnixTime(0), |leaf| leaf.round);
        let at = if now > last || last.since(now) > REFRESH {
            now
        } else {
            last.plus(1)
        };
        if at < last {
            tracing::warn!("the clock was set back: the log of rounds begins anew");
            made.log = RoundLog::default();
            made.newest = None;
        }
        let (certified, secret) = self.make(&made, at, validity)?;
        made.secret = secret;
        made.seen = seen;
        made.log.push(Leaf {
            round: at,
            digest: certified.digest,
        });
        let max_age = pace(certified.snapshot.relays.len());
        self.board
            .publish(Published::new(certified.snapshot.clone(), max_age));
        made.newest = Some(certified.clone());
        if let Some(past) = &made.past {
            past.keep(&certified, &made.log)?;
        }
        Ok(true)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, made: &Made, at: UnixTime, validity: u64) -> Result<(Certified, [u8; 32])> {
        let service = self.keys.descriptor(&self.board, at, validity)?;
        // Nothing in it outlives its parts.
        let life = validity.min(service.expires.since(at));
        let mut secret = [0; 32];
        OsRandom::new().fill_bytes(&mut secret);
        let live = self.registry.live_relays();
        let records = Listed(
            live.iter()
                .map(|relay| (relay.digest, relay.record.clone()))
                .collect(),
        );
        let relays = voted(&live);
        let newest = made.newest.as_ref();
        let vote = Vote {
            network: self.roster.network(),
            roster: self.roster.version,
            voter: 0,
            round: at,
            previous: newest
                .map(|newest| (newest.snapshot.issued, newest.digest))
                .unwrap_or_default(),
            parameters: self.registry.parameters(),
            keys: Default::default(),
            commitment: Some(Vote::commitment_of(&secret)),
            revealed: Some(made.secret),
            service: Some(service),
            relays,
        };
        let before = Before {
            snapshot: newest.map(|newest| (&*newest.snapshot, newest.digest)),
            log: made.log.head(),
        };
        let merged = merge(&self.roster, at, life, before, &[Arc::new(vote)], &records);
        let malformed = mixline_protocol::Error::Malformed { what: "snapshot" };
        let merged = merged.ok_or(Error::Snapshot(malformed))?;
        let snapshot = (*merged.snapshot).clone();
        let snapshot = snapshot
            .sign(&self.keys.identity)
            .map_err(Error::Snapshot)?;
        let certified = Certified {
            snapshot: Arc::new(snapshot),
            digest: merged.digest,
        };
        Ok((certified, secret))
    }
}

/// The records of the relays that are there.
struct Listed(HashMap<Digest, Arc<RelayRecord>>);

impl Records for Listed {
    fn get(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        self.0.get(digest).cloned()
    }
}

/// Whether the snapshot is to be replaced. A clock that was set back by more than a little makes it due, too.
fn is_due(newest: &Snapshot, changed: bool, pace: u64, now: UnixTime) -> bool {
    let age = now.since(newest.issued);
    let half = newest.valid_until.since(newest.issued) / 2;
    newest.issued.since(now) > REFRESH || age >= half.min(REFRESH) || (changed && age >= pace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::{NOW, beat, registration, registry, relay, service, session};

    fn alone() -> (Arc<Registry>, Arc<Board>, Alone) {
        alone_in(None)
    }

    fn alone_in(past: Option<Past>) -> (Arc<Registry>, Arc<Board>, Alone) {
        let (registry, board) = (Arc::new(registry()), Arc::new(Board::default()));
        let key = Arc::new(crate::registry::tests::directory_key());
        let keys = ServiceKeys {
            identity: key,
            session: session().public(),
        };
        let alone = Alone::new(registry.clone(), board.clone(), keys, 600, past).unwrap();
        assert!(alone.tick(NOW).unwrap());
        (registry, board, alone)
    }

    fn newest(board: &Board, now: UnixTime) -> Snapshot {
        let id = crate::registry::tests::directory_key().anonymous_id();
        let published = board.newest().unwrap();
        Snapshot::decode_and_verify(&published.bytes, &Roster::alone(id), now).unwrap()
    }

    fn register(
        registry: &Registry,
        registration: mixline_protocol::records::Registration,
        at: UnixTime,
    ) {
        registry
            .register_relay(registration, None, &session(), at)
            .unwrap();
    }

    #[test]
    fn a_relay_comes_and_goes() {
        let (registry, board, alone) = alone();
        assert!(newest(&board, NOW).relays.is_empty());
        register(&registry, registration(1, NOW), NOW);
        // Not more often than the pace.
        assert!(!alone.tick(NOW.plus(1)).unwrap());
        assert!(alone.tick(NOW.plus(2)).unwrap());
        let first = newest(&board, NOW.plus(2));
        assert_eq!(first.relays[0].descriptor, relay(1, NOW));
        assert_eq!(first.relays[0].since, NOW.plus(2));
        // Nothing new, nothing made.
        assert!(!alone.tick(NOW.plus(10)).unwrap());
        // A minute of silence.
        registry.forget_silent(NOW.plus(60));
        assert!(!alone.tick(NOW.plus(12)).unwrap());
        registry.forget_silent(NOW.plus(61));
        assert!(alone.tick(NOW.plus(61)).unwrap());
        let after = newest(&board, NOW.plus(61));
        assert!(after.relays.is_empty());
        // Each goes on from the one before.
        assert_eq!(after.previous, (first.issued, first.digest()));
        assert_eq!(after.log.size, 2);
        assert_eq!(alone.with_log(|log| log.leaves().len()), 3);
    }

    #[test]
    fn a_new_load_makes_no_snapshot() {
        let (registry, board, alone) = alone();
        register(&registry, registration(1, NOW), NOW);
        assert!(alone.tick(NOW.plus(2)).unwrap());
        let (later, from) = (NOW.plus(20), [45, 1, 0, 2].into());
        let busy = beat(1, NOW, later, 500);
        registry.hear(&busy, Some(from), &session(), later).unwrap();
        assert!(!alone.tick(NOW.plus(30)).unwrap());
        assert!(alone.tick(NOW.plus(62)).unwrap());
        assert_eq!(newest(&board, NOW.plus(62)).relays[0].since, NOW.plus(2));
        register(&registry, registration(1, NOW.plus(63)), NOW.plus(63));
        assert!(!alone.tick(NOW.plus(64)).unwrap(), "a newer time alone");
        let mut moved = relay(1, NOW.plus(65));
        moved.addresses[0].set_port(7001);
        register(
            &registry,
            crate::registry::tests::registration_of(moved, NOW.plus(65)),
            NOW.plus(65),
        );
        assert!(alone.tick(NOW.plus(66)).unwrap());
    }

    #[test]
    fn the_directory_is_in_its_snapshot() {
        let (_, board, alone) = alone();
        assert!(newest(&board, NOW).service().unwrap().tails.is_empty());
        let own = service(99, 1, NOW);
        board.set_service(Some(Arc::new(own.clone())));
        assert!(alone.tick(NOW.plus(2)).unwrap());
        assert_eq!(newest(&board, NOW.plus(2)).service(), Some(&own));
        // Nothing is published past its end, and no snapshot outlives it.
        let late = own.expires.minus(100);
        assert!(alone.tick(late).unwrap());
        assert_eq!(newest(&board, late).valid_until, own.expires);
        let later = own.expires.minus(20);
        assert!(alone.tick(later).unwrap());
        assert!(newest(&board, later).service().unwrap().tails.is_empty());
    }

    #[test]
    fn snapshots_are_renewed_in_time() {
        let (_, board, alone) = alone();
        for minute in 1..60 {
            let now = NOW.plus(60 * minute);
            assert!(alone.tick(now).unwrap());
            assert!(newest(&board, now).valid_until >= now.plus(300));
        }
        // A clock that was set back by a little waits; by more, all begins anew.
        let last = NOW.plus(60 * 59);
        assert!(!alone.tick(last.minus(50)).unwrap());
        assert!(alone.tick(NOW).unwrap(), "the clock was set back");
        assert_eq!(newest(&board, NOW).issued, NOW);
        assert_eq!(newest(&board, NOW).log.size, 0);
    }

    #[test]
    fn the_log_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let past = || Some(Past::open(dir.path()).unwrap());
        let (_, _, alone) = alone_in(past());
        for minute in 1..4 {
            assert!(alone.tick(NOW.plus(60 * minute)).unwrap());
        }
        let log = alone.with_log(RoundLog::clone);
        drop(alone);
        let (registry, board) = (Arc::new(registry()), Arc::new(Board::default()));
        let key = Arc::new(crate::registry::tests::directory_key());
        let keys = ServiceKeys {
            identity: key,
            session: session().public(),
        };
        let again = Alone::new(registry, board.clone(), keys, 600, past()).unwrap();
        assert_eq!(again.with_log(RoundLog::head), log.head());
        assert!(again.tick(NOW.plus(200)).unwrap(), "at once");
        assert_eq!(newest(&board, NOW.plus(200)).log, log.head());
        // A log that lacks its last round is completed by the snapshot.
        let path = dir.path().join("rounds/log");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
        let (read, newest) = past()
            .unwrap()
            .load(std::slice::from_ref(&again.roster))
            .unwrap();
        assert_eq!(read.head(), again.with_log(RoundLog::head));
        assert!(newest.is_some());
        // Without its log a snapshot is none.
        std::fs::write(&path, &bytes[..40]).unwrap();
        assert!(
            past()
                .unwrap()
                .load(std::slice::from_ref(&again.roster))
                .unwrap()
                .1
                .is_none()
        );
    }

    #[test]
    fn pace_follows_size() {
        assert_eq!([pace(0), pace(8), pace(320), pace(4096)], [2, 2, 20, 60]);
    }
}
