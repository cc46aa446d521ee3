//! What this directory has said last, in its store: a vote and a snapshot, so that it says nothing else in the
//! same round, also when it was killed in between, and whichever of its front ends it is that says it.
//!
//! ```text
//! own/vote, own/signed     round 8 | digest 32
//! state_dir/rounds/vote    the vote itself, to be said again
//! ```

use std::sync::Arc;

use mixline_directory_engine::Promise;
use mixline_protocol::identity::Digest;
use mixline_protocol::records::Vote;
use mixline_protocol::round_log::{LEAF, Leaf};
use mixline_protocol::time::UnixTime;

use super::super::past::Past;
use crate::Result;
use crate::registry::Registry;
use crate::store::{Outcome, Table, Transaction};

const VOTE: &[u8] = b"vote";
const SIGNED: &[u8] = b"signed";

pub(super) struct Promises {
    registry: Arc<Registry>,
    past: Past,
}

impl Promises {
    pub(super) fn new(registry: Arc<Registry>, past: &Past) -> Self {
        Self {
            registry,
            past: past.clone(),
        }
    }

    /// The last vote, if it is here whole.
    pub(super) fn vote(&self) -> Result<Option<(UnixTime, Vec<u8>)>> {
        let Some(said) = self.read(VOTE)? else {
            return Ok(None);
        };
        let vote = self.past.vote()?;
        Ok((Vote::digest_of(&vote) == said.digest).then_some((said.round, vote)))
    }

    /// The snapshot that was signed last.
    pub(super) fn signed(&self) -> Result<Option<(UnixTime, Digest)>> {
        Ok(self.read(SIGNED)?.map(|said| (said.round, said.digest)))
    }

    /// Keeps a promise. False if another one was made in the same round, or in a later one.
    pub(super) fn keep(&self, promise: &Promise) -> Result<bool> {
        let (key, said) = match promise {
            Promise::Vote { round, vote } => {
                self.past.keep_vote(vote)?;
                let digest = Vote::digest_of(vote);
                (
                    VOTE,
                    Leaf {
                        round: *round,
                        digest,
                    },
                )
            }
            Promise::Snapshot { round, digest } => {
                let (round, digest) = (*round, *digest);
                (SIGNED, Leaf { round, digest })
            }
        };
        let store = self.registry.store();
        let stored = store.get(Table::Own, key)?;
        let before = stored.as_ref().and_then(|entry| decode(&entry.value));
        if before == Some(said) {
            return Ok(true);
        }
        if before.is_some_and(|before| before.round >= said.round) {
            return Ok(false);
        }
        let forever = UnixTime(u64::MAX);
        let change = Transaction::new()
            .check(Table::Own, key, stored.as_ref())
            .put(Table::Own, key, said.encode(), forever);
        // Another front end was faster: what it has said is not what this one would.
        Ok(store.commit(change)? == Outcome::Committed)
    }

    fn read(&self, key: &[u8]) -> Result<Option<Leaf>> {
        let stored = self.registry.store().get(Table::Own, key)?;
        Ok(stored.and_then(|entry| decode(&entry.value)))
    }
}

fn decode(value: &[u8]) -> Option<Leaf> {
    let bytes: &[u8; LEAF] = value.try_into().ok()?;
    Some(Leaf::decode(bytes))
}
