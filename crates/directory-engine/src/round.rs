//! What is known of one round.

use std::collections::HashMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use mixline_protocol::identity::Digest;
use mixline_protocol::records::{MAX_DIRECTORIES, OnlineKey, RelayRecord, Said, Signatures, Vote};
use mixline_protocol::time::UnixTime;

use crate::merge::Merged;
use crate::rounds::Records;

/// Votes of one directory that each of them may bring in: two are a contradiction, and more prove nothing new. So what an honest
/// one passes on finds a place, whatever liars have brought.
pub(crate) const VOTES: usize = 2;
/// Votes of one directory that are looked at.
pub(crate) const MOST_VOTES: usize = VOTES * MAX_DIRECTORIES;

/// One round.
#[derive(Debug)]
pub(crate) struct Round {
    /// When its snapshot is published.
    pub(crate) at: UnixTime,
    /// What each directory has voted, by its index.
    pub(crate) voters: ArrayVec<Voter, MAX_DIRECTORIES>,
    /// Whether this directory has been asked for its vote.
    pub(crate) asked: bool,
    /// Whether the votes have been merged, or were too few.
    pub(crate) closed: bool,
    /// The snapshots that are known: what the votes make here, and what others have signed.
    pub(crate) bodies: ArrayVec<Merged, 2>,
    /// What each directory has signed first.
    pub(crate) signed: ArrayVec<Option<Said>, MAX_DIRECTORIES>,
    /// Whether it has a snapshot.
    pub(crate) published: bool,
    /// When the body was last asked for that others have signed.
    pub(crate) body_asked: u64,
}

/// What one directory has voted.
#[derive(Debug, Default)]
pub(crate) struct Voter {
    pub(crate) votes: Vec<Seen>,
}

impl Voter {
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &Seen> {
        self.votes
            .iter()
            .filter(|vote| vote.state == State::Accepted)
    }

    /// Whether a directory may bring in one more.
    pub(crate) fn has_place_for(&self, by: u8) -> bool {
        let brought = self.votes.iter().filter(|vote| vote.by == by).count();
        brought < VOTES && self.votes.len() < MOST_VOTES
    }
}

/// The records that votes name.
pub(crate) struct Named(HashMap<Digest, Arc<RelayRecord>>);

impl Records for Named {
    fn get(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        self.0.get(digest).cloned()
    }
}

/// A vote that its voter has signed.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) digest: Digest,
    /// Of the voter, and of those who have passed it on.
    pub(crate) chain: Signatures,
    /// The key that the voter has signed with.
    pub(crate) key: OnlineKey,
    /// Who has brought it.
    pub(crate) by: u8,
    pub(crate) content: Option<Arc<Vote>>,
    /// The records that it names, once it is accepted: a relay may have another one by the time of merging.
    pub(crate) records: Vec<(Digest, Arc<RelayRecord>)>,
    pub(crate) state: State,
    /// When its content was last asked for, and how often.
    pub(crate) asked: (u64, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its content is not all here, or has come too late for the signatures that it has.
    Waiting,
    /// It is what the voter has voted, as all honest ones know or will know.
    Accepted,
    /// Its content is not what a vote is.
    Refused,
}

impl Round {
    pub(crate) fn new(at: UnixTime, directories: usize) -> Self {
        Self {
            at,
            voters: (0..directories).map(|_| Voter::default()).collect(),
            asked: false,
            closed: false,
            bodies: ArrayVec::new(),
            signed: (0..directories).map(|_| None).collect(),
            published: false,
            body_asked: 0,
        }
    }

    /// The votes that count: of each directory that has one accepted vote, and not two. And the records that they name.
    pub(crate) fn counted(&self) -> (Vec<Arc<Vote>>, Named) {
        let (mut votes, mut records) = (Vec::new(), HashMap::new());
        for voter in &self.voters {
            let mut accepted = voter.accepted();
            let (Some(one), None) = (accepted.next(), accepted.next()) else {
                continue;
            };
            votes.extend(one.content.clone());
            records.extend(one.records.iter().cloned());
        }
        (votes, Named(records))
    }

    /// Who has signed a snapshot.
    pub(crate) fn signers(&self, digest: &Digest) -> Signatures {
        let mut signatures = Signatures::default();
        for (index, signed) in (0..).zip(&self.signed) {
            if let Some(signed) = signed.filter(|signed| signed.digest == *digest) {
                signatures.put(index, signed.signature);
            }
        }
        signatures
    }

    /// The snapshot that so many have signed.
    pub(crate) fn chosen(&self, quorum: usize) -> Option<Digest> {
        let mut digests = self.signed.iter().flatten().map(|signed| signed.digest);
        digests.find(|digest| self.signers(digest).count() >= quorum)
    }

    pub(crate) fn body(&self, digest: &Digest) -> Option<&Merged> {
        self.bodies.iter().find(|body| body.digest == *digest)
    }

    pub(crate) fn vote(&mut self, voter: u8, digest: &Digest) -> Option<&mut Seen> {
        let voter = self.voters.get_mut(usize::from(voter))?;
        voter.votes.iter_mut().find(|seen| seen.digest == *digest)
    }
}
