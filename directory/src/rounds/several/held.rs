//! The records of relays that are here: those of the relays that have registered, and those that votes of the
//! last rounds speak of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mixline_directory_engine::Records;
use mixline_protocol::identity::Digest;
use mixline_protocol::records::{MAX_DIRECTORIES, MAX_RELAYS, RelayRecord};
use mixline_protocol::time::UnixTime;

use crate::registry::Registry;

/// Records that are kept: as many as all directories can vote for.
const MOST: usize = MAX_RELAYS * (MAX_DIRECTORIES / 2);

/// Records by their digests, and the round that they came for.
type Kept = HashMap<Digest, (Arc<RelayRecord>, UnixTime)>;

/// The records.
#[derive(Clone)]
pub(super) struct Held {
    registry: Arc<Registry>,
    kept: Arc<Mutex<Kept>>,
}

impl Held {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            kept: Arc::default(),
        }
    }

    /// Keeps the records that this directory votes for in a round, however many there are of others.
    pub(super) fn keep_own(
        &self,
        records: impl Iterator<Item = Arc<RelayRecord>>,
        round: UnixTime,
    ) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(records.map(|record| (record.digest(), (record, round))));
    }

    /// Keeps records of others for a round, as long as there is room. They have been checked.
    pub(super) fn keep(&self, records: impl Iterator<Item = Arc<RelayRecord>>, round: UnixTime) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let digest = record.digest();
            if kept.len() < MOST || kept.contains_key(&digest) {
                kept.insert(digest, (record, round));
            }
        }
    }

    /// Forgets what came before that round.
    pub(super) fn forget_before(&self, round: UnixTime) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (_, of)| *of >= round);
    }
}

impl Records for Held {
    fn get(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(digest).map(|(record, _)| record.clone());
        drop(kept);
        found.or_else(|| self.registry.record(digest))
    }
}
