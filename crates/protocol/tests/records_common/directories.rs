//! Several directories of one network, and what they sign.

use arrayvec::ArrayVec;
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId};
use mixline_protocol::records::{
    Contradiction, DirectoryEntry, Endorsement, LogHead, Member, OnlineKey, Parameters, RelayFlags,
    Roster, Said, SharedRandom, Signatures, Snapshot, Statement, Vote, VotedRelay,
};
use mixline_protocol::time::UnixTime;

use super::{NOW, listed, relay, relay_record, service};

/// When the online keys begin, a day before the tests.
pub const CERTIFIED: UnixTime = UnixTime(NOW.0 - 24 * 3600);
/// How long a snapshot is valid, in seconds.
pub const VALIDITY: u32 = 3 * 3600;

/// Directories and all their keys, by index.
pub struct Directories {
    /// What is kept offline.
    pub identities: Vec<IdentityKey>,
    /// What signs from day to day.
    pub online: Vec<IdentityKey>,
    /// The first one, signed by all.
    pub roster: Roster,
}

/// A directory of a roster.
pub fn member(key: &IdentityKey) -> Member {
    let name = format!("directory{}", key.public()[0]);
    Member {
        key: key.public(),
        url: format!("http://{name}.example:8080"),
        name,
    }
}

impl Directories {
    /// So many directories: 1, 4, 7 or 10.
    pub fn new(count: u8) -> Self {
        let seeded = |first: u8| (0..count).map(move |n| IdentityKey::from_seed([first + n; 32]));
        let identities: Vec<_> = seeded(100).collect();
        let members = identities.iter().map(member).collect();
        let mut roster = Roster::first(members, 300, VALIDITY).unwrap();
        for key in &identities {
            assert!(roster.sign(key, None));
        }
        Self {
            identities,
            online: seeded(150).collect(),
            roster,
        }
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.roster.network()
    }

    /// A directory's certificate of any key, for 90 days.
    pub fn certify(&self, index: u8, key: &IdentityKey) -> OnlineKey {
        let life = (CERTIFIED, CERTIFIED.plus(OnlineKey::MAX_LIFETIME));
        let identity = &self.identities[usize::from(index)];
        OnlineKey::certify(self.network(), key.public(), life, identity).unwrap()
    }

    /// The certificate of a directory's online key.
    pub fn certificate(&self, index: u8) -> OnlineKey {
        self.certify(index, &self.online[usize::from(index)])
    }

    /// All indices.
    pub fn indices(&self) -> std::ops::Range<u8> {
        0..self.identities.len() as u8
    }

    /// A snapshot that nobody has signed.
    pub fn snapshot(&self, relays: u8) -> Snapshot {
        let entry = |index: u8| DirectoryEntry {
            keys: [self.certificate(index)].into_iter().collect(),
            commitment: Some(Vote::commitment_of(&[index; 32])),
            service: index
                .is_multiple_of(2)
                .then(|| service(&IdentityKey::from_seed([200 + index; 32]), 2, false)),
        };
        Snapshot {
            network: self.network(),
            roster: 1,
            issued: NOW,
            valid_until: NOW.plus(VALIDITY.into()),
            previous: (NOW.minus(300), Digest([1; 32])),
            log: LogHead {
                size: 2,
                root: Digest([2; 32]),
            },
            random: SharedRandom {
                period: 3,
                current: Digest([4; 32]),
                next: Digest([5; 32]),
                chain: Digest([6; 32]),
            },
            parameters: Parameters::default(),
            directories: self.indices().map(entry).collect(),
            relays: (0..relays)
                .map(|n| listed(relay(&IdentityKey::from_seed([n + 10; 32]))))
                .collect(),
            signatures: Signatures::default(),
        }
        .ordered()
        .unwrap()
    }

    /// Adds the signatures of these directories' online keys.
    pub fn sign(&self, snapshot: &mut Snapshot, signers: impl IntoIterator<Item = u8>) {
        let digest = snapshot.digest();
        for index in signers {
            let key = &self.online[usize::from(index)];
            let signature = Snapshot::signature(&self.network(), snapshot.issued, &digest, key);
            snapshot.signatures.put(index, signature);
        }
    }

    /// A snapshot that these have signed.
    pub fn signed(&self, relays: u8, signers: impl IntoIterator<Item = u8>) -> Snapshot {
        let mut snapshot = self.snapshot(relays);
        self.sign(&mut snapshot, signers);
        snapshot
    }

    /// How a directory votes.
    pub fn vote(&self, voter: u8) -> Vote {
        let mut relays: Vec<_> = (0..3)
            .map(|n| relay_record(&IdentityKey::from_seed([n + 10; 32])))
            .map(|record| VotedRelay {
                id: record.descriptor.id,
                record: record.digest(),
                flags: RelayFlags { ring: true },
                capacity: record.descriptor.capacity,
            })
            .collect();
        relays.sort_by_key(|relay| relay.id);
        let keys: ArrayVec<_, 2> = [self.certificate(voter)].into_iter().collect();
        Vote {
            network: self.network(),
            roster: 1,
            voter,
            round: NOW,
            previous: (NOW.minus(300), Digest([1; 32])),
            parameters: Parameters::default(),
            keys,
            commitment: Some(Vote::commitment_of(&[voter; 32])),
            revealed: Some([voter; 32]),
            service: Some(service(
                &IdentityKey::from_seed([200 + voter; 32]),
                2,
                false,
            )),
            relays,
        }
    }

    /// A directory's signature under another's vote, or its own.
    pub fn endorse(&self, by: u8, voter: u8, round: UnixTime, vote: &Digest) -> [u8; 64] {
        let identity = self.identities[usize::from(voter)].public();
        let key = &self.online[usize::from(by)];
        Endorsement::signature(&self.network(), (&identity, round, vote), key)
    }

    /// The endorsement of a vote by these.
    pub fn endorsement(&self, vote: &Vote, by: impl IntoIterator<Item = u8>) -> Endorsement {
        let digest = vote.digest();
        let mut signatures = Signatures::default();
        for index in by {
            let signature = self.endorse(index, vote.voter, vote.round, &digest);
            signatures.put(index, signature);
        }
        Endorsement {
            voter: vote.voter,
            round: vote.round,
            vote: digest,
            signatures,
        }
    }

    /// What a directory says by its online key, in this round: a vote of its own, or a snapshot.
    pub fn said(&self, index: u8, statement: Statement, round: UnixTime, digest: Digest) -> Said {
        let signature = match statement {
            Statement::Vote => self.endorse(index, index, round, &digest),
            Statement::Snapshot => {
                let key = &self.online[usize::from(index)];
                Snapshot::signature(&self.network(), round, &digest, key)
            }
        };
        Said {
            key: self.certificate(index),
            digest,
            signature,
        }
    }

    /// The proof that a directory has said two things now.
    pub fn contradiction(&self, index: u8, statement: Statement) -> Contradiction {
        let said = [1, 2].map(|n| self.said(index, statement, NOW, Digest([n; 32])));
        Contradiction::new(statement, NOW, said).unwrap()
    }
}
