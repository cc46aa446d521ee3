//! Signatures that only the model's harness can make: who signs is a number in them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrayvec::ArrayVec;
use mixline_directory_engine::{Records, Scheme, Signable};
use mixline_protocol::identity::Digest;
use mixline_protocol::records::{
    Contradiction, MAX_ONLINE_KEYS, OnlineKey, RelayRecord, Said, Statement,
};
use mixline_protocol::time::UnixTime;

#[derive(Clone)]
pub struct Pretended {
    pub me: u8,
    pub keys: Rc<Vec<OnlineKey>>,
}

pub fn signature(index: u8, what: &Signable) -> [u8; 64] {
    let mut bytes = [0; 64];
    let (kind, voter, round, digest) = match what {
        Signable::Endorsement { voter, round, vote } => (1, *voter, round, vote),
        Signable::Snapshot { round, digest } => (2, 0, round, digest),
    };
    bytes[0] = index;
    bytes[1] = kind;
    bytes[2] = voter;
    bytes[8..16].copy_from_slice(&round.0.to_be_bytes());
    bytes[16..48].copy_from_slice(&digest.0);
    bytes
}

impl Scheme for Pretended {
    fn sign(&self, what: &Signable) -> [u8; 64] {
        signature(self.me, what)
    }

    fn verify(&self, index: u8, what: &Signable, given: &[u8; 64]) -> Option<OnlineKey> {
        (signature(index, what) == *given).then(|| self.keys[usize::from(index)])
    }

    fn proven(&self, proof: &Contradiction) -> Option<u8> {
        let [first, second] = &proof.said;
        let index = self.whose(&first.key, proof.round)?;
        let right = |said: &Said| {
            let (round, digest) = (proof.round, said.digest);
            let what = match proof.statement {
                Statement::Vote => Signable::Endorsement {
                    voter: index,
                    round,
                    vote: digest,
                },
                Statement::Snapshot => Signable::Snapshot { round, digest },
            };
            said.key == first.key && signature(index, &what) == said.signature
        };
        (first.digest != second.digest && right(first) && right(second)).then_some(index)
    }

    fn whose(&self, key: &OnlineKey, _: UnixTime) -> Option<u8> {
        (0..)
            .zip(self.keys.iter())
            .find(|(_, of)| *of == key)
            .map(|(index, _)| index)
    }

    fn learn(&mut self, _: &OnlineKey, _: UnixTime) {}

    fn keys(&self, index: u8) -> ArrayVec<OnlineKey, MAX_ONLINE_KEYS> {
        self.keys
            .get(usize::from(index))
            .copied()
            .into_iter()
            .collect()
    }
}

/// The records that one directory has.
#[derive(Clone, Default)]
pub struct Held(pub Rc<RefCell<HashMap<Digest, Arc<RelayRecord>>>>);

impl Records for Held {
    fn get(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        self.0.borrow().get(digest).cloned()
    }
}
