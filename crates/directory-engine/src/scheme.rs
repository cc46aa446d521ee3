//! Who signs, and how signatures are checked.

use std::cmp::Reverse;

use arrayvec::ArrayVec;
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId, SIGNATURE};
use mixline_protocol::records::{
    Contradiction, Endorsement, MAX_DIRECTORIES, MAX_ONLINE_KEYS, OnlineKey, Roster, Snapshot,
};
use mixline_protocol::time::UnixTime;

/// What a directory signs in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signable {
    /// That a directory has voted so.
    Endorsement {
        /// Which directory.
        voter: u8,
        /// For which round.
        round: UnixTime,
        /// The vote.
        vote: Digest,
    },
    /// The snapshot of a round.
    Snapshot {
        /// Of which round.
        round: UnixTime,
        /// Its body.
        digest: Digest,
    },
}

impl Signable {
    /// The round.
    #[must_use]
    pub fn round(&self) -> UnixTime {
        match self {
            Self::Endorsement { round, .. } | Self::Snapshot { round, .. } => *round,
        }
    }
}

/// Makes this directory's signatures, and checks everybody's.
pub trait Scheme {
    /// This directory's signature.
    fn sign(&self, what: &Signable) -> [u8; SIGNATURE];

    /// Whether directory number `index` has signed; gives the key that it did it with.
    fn verify(&self, index: u8, what: &Signable, signature: &[u8; SIGNATURE]) -> Option<OnlineKey>;

    /// Which directory has contradicted itself, if this proves it.
    fn proven(&self, proof: &Contradiction) -> Option<u8>;

    /// Whose online key this is at a time, if its directory's identity has certified it.
    fn whose(&self, key: &OnlineKey, at: UnixTime) -> Option<u8>;

    /// Takes a directory's online key into account, if its identity has certified it. `now`: when.
    fn learn(&mut self, key: &OnlineKey, now: UnixTime);

    /// The online keys that are known of a directory, the newest first.
    fn keys(&self, index: u8) -> ArrayVec<OnlineKey, MAX_ONLINE_KEYS>;
}

/// Ed25519: the online keys of a roster's directories.
pub struct SigningKeys {
    roster: Roster,
    own: IdentityKey,
    known: [ArrayVec<OnlineKey, MAX_ONLINE_KEYS>; MAX_DIRECTORIES],
}

impl SigningKeys {
    /// Those of a roster, of which this directory's online key is known so far.
    #[must_use]
    pub fn new(roster: Roster, own: IdentityKey) -> Self {
        Self {
            roster,
            own,
            known: Default::default(),
        }
    }

    fn network(&self) -> NetworkId {
        self.roster.network()
    }

    fn identity(&self, index: u8) -> [u8; 32] {
        self.roster
            .member(index)
            .map_or([0; 32], |member| member.key)
    }
}

impl Scheme for SigningKeys {
    fn sign(&self, what: &Signable) -> [u8; SIGNATURE] {
        let (network, own) = (self.network(), &self.own);
        match what {
            Signable::Endorsement { voter, round, vote } => {
                Endorsement::signature(&network, (&self.identity(*voter), *round, vote), own)
            }
            Signable::Snapshot { round, digest } => {
                Snapshot::signature(&network, *round, digest, own)
            }
        }
    }

    fn verify(&self, index: u8, what: &Signable, signature: &[u8; SIGNATURE]) -> Option<OnlineKey> {
        let network = self.network();
        let holds = |key: &[u8; 32]| match what {
            Signable::Endorsement { voter, round, vote } => {
                let vote = (&self.identity(*voter), *round, vote);
                Endorsement::verify_signature(&network, vote, key, signature)
            }
            Signable::Snapshot { round, digest } => {
                Snapshot::verify_signature(&network, *round, digest, key, signature)
            }
        };
        let known = self.known.get(usize::from(index))?;
        let in_time = |key: &&OnlineKey| (key.issued..key.expires).contains(&what.round());
        let mut usable = known.iter().filter(in_time);
        usable.find(|key| holds(&key.key).is_ok()).copied()
    }

    fn proven(&self, proof: &Contradiction) -> Option<u8> {
        proof.verify(&self.roster).ok()
    }

    fn whose(&self, key: &OnlineKey, at: UnixTime) -> Option<u8> {
        let known = self.known.iter().any(|of| of.contains(key));
        if known && (key.issued..key.expires).contains(&at) {
            return self.roster.index_of(&key.directory);
        }
        key.verify(&self.roster, at).ok()
    }

    fn learn(&mut self, key: &OnlineKey, now: UnixTime) {
        let already = self.known.iter().any(|of| of.contains(key));
        if already {
            return;
        }
        let Some(index) = self.whose(key, now) else {
            return;
        };
        let Some(known) = self.known.get_mut(usize::from(index)) else {
            return;
        };
        let mut all: Vec<OnlineKey> = known.iter().copied().chain([*key]).collect();
        all.retain(|key| now < key.expires);
        // The newest two: who certifies more wants to be taken at neither word.
        all.sort_by_key(|key| Reverse((key.issued, key.key)));
        all.truncate(MAX_ONLINE_KEYS);
        *known = all.into_iter().collect();
    }

    fn keys(&self, index: u8) -> ArrayVec<OnlineKey, MAX_ONLINE_KEYS> {
        self.known
            .get(usize::from(index))
            .cloned()
            .unwrap_or_default()
    }
}
