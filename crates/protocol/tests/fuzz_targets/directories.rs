//! What directories say of themselves and to each other.

use mixline_protocol::identity::Digest;
use mixline_protocol::records::{
    Contradiction, Endorsement, MAX_DIRECTORIES, MAX_VOTE, OnlineKey, Parameters, RelayFlags,
    Roster, Said, Signatures, Snapshot, Statement, Vote, VotedRelay,
};
use mixline_protocol::wire::{Reader, Writer};

use super::Target;
use super::samples::*;

/// The rosters of a network, the first one first.
pub const ROSTER_CHAIN: Target = Target {
    name: "roster_chain",
    seeds: || {
        vec![
            Roster::encode_chain([&roster()]),
            Roster::encode_chain([&roster(), &next_roster()]),
        ]
    },
    run: roster_chain,
};

/// A vote, or the certificate of an online key.
pub const VOTE: Target = Target {
    name: "vote",
    seeds: || vec![vote(0).encode(), vote(3).encode(), certificate(2).encode()],
    run: any_vote,
};

/// That a directory has voted so.
pub const ENDORSEMENT: Target = Target {
    name: "endorsement",
    seeds: || vec![endorsement(&[1]), endorsement(&[0, 1, 2, 3])],
    run: any_endorsement,
};

/// That a directory has said two things.
pub const CONTRADICTION: Target = Target {
    name: "contradiction",
    seeds: || {
        [Statement::Vote, Statement::Snapshot]
            .map(|statement| contradiction(statement).encode())
            .into()
    },
    run: any_contradiction,
};

fn vote(relays: u8) -> Vote {
    let voted = |n: u8| VotedRelay {
        id: relay(n + 20).id,
        record: relay_record(n + 20).digest(),
        flags: RelayFlags { ring: true },
        capacity: 5,
    };
    let mut relays: Vec<_> = (0..relays).map(voted).collect();
    relays.sort_by_key(|relay| relay.id);
    Vote {
        network: roster().network(),
        roster: 1,
        voter: 1,
        round: NOW,
        previous: (NOW.minus(300), Digest([1; 32])),
        parameters: Parameters::default(),
        keys: [certificate(1)].into_iter().collect(),
        commitment: Some(Digest([2; 32])),
        revealed: (!relays.is_empty()).then_some([3; 32]),
        service: Some(service(&key(), None)),
        relays,
    }
}

fn endorsement(by: &[u8]) -> Vec<u8> {
    let (vote, voter) = (vote(3).digest(), identity(1).public());
    let mut signatures = Signatures::default();
    for index in by {
        let (network, said) = (roster().network(), (&voter, NOW, &vote));
        signatures.put(
            *index,
            Endorsement::signature(&network, said, &online(*index)),
        );
    }
    written(&Endorsement {
        voter: 1,
        round: NOW,
        vote,
        signatures,
    })
}

fn written(endorsement: &Endorsement) -> Vec<u8> {
    let mut writer = Writer::new();
    endorsement.write(&mut writer);
    writer.into_bytes()
}

fn contradiction(statement: Statement) -> Contradiction {
    let (network, voter) = (roster().network(), identity(2).public());
    let said = [4, 5].map(|n| {
        let digest = Digest([n; 32]);
        let signature = match statement {
            Statement::Vote => Endorsement::signature(&network, (&voter, NOW, &digest), &online(2)),
            Statement::Snapshot => Snapshot::signature(&network, NOW, &digest, &online(2)),
        };
        Said {
            key: certificate(2),
            digest,
            signature,
        }
    });
    Contradiction::new(statement, NOW, said).expect("two digests")
}

fn roster_chain(data: &[u8]) -> bool {
    // Each roster apart, whoever has signed it.
    let mut reader = Reader::new(data, "chain");
    while let Ok(length) = reader.u16() {
        let Ok(bytes) = reader.take(length.into()) else {
            break;
        };
        if let Ok(roster) = Roster::decode(bytes) {
            assert_eq!(roster.encode(), bytes);
            assert!(roster.quorum() <= roster.members.len());
            assert!(roster.quorum() > 2 * roster.faults());
        }
    }
    let Ok(chain) = Roster::decode_chain(data, roster().network()) else {
        return false;
    };
    assert_eq!(Roster::encode_chain(&chain), data);
    assert!(
        (1..)
            .zip(&chain)
            .all(|(version, roster)| roster.version == version)
    );
    true
}

fn any_vote(data: &[u8]) -> bool {
    if let Ok(key) = OnlineKey::decode(data) {
        assert_eq!(key.encode(), data);
        return key.verify(&roster(), NOW).is_ok();
    }
    let Ok(vote) = Vote::decode(data) else {
        return false;
    };
    assert!(data.len() <= MAX_VOTE);
    assert_eq!(vote.encode(), data);
    assert_eq!(vote.digest(), Vote::digest_of(data));
    assert!(usize::from(vote.voter) < MAX_DIRECTORIES);
    true
}

fn any_endorsement(data: &[u8]) -> bool {
    let mut reader = Reader::new(data, "endorsement");
    let Ok(read) = Endorsement::read(&mut reader) else {
        return false;
    };
    if reader.finish().is_err() {
        return false;
    }
    assert_eq!(written(&read), data);
    assert!(data.len() <= Endorsement::MAX_ENCODED);
    let four = roster();
    let Some(voter) = four.member(read.voter) else {
        return false;
    };
    let holds = |(index, signature): (u8, &[u8; 64])| {
        let said = (&voter.key, read.round, &read.vote);
        let key = certificate(index.min(3)).key;
        index < 4 && Endorsement::verify_signature(&four.network(), said, &key, signature).is_ok()
    };
    read.signatures.iter().all(holds)
}

fn any_contradiction(data: &[u8]) -> bool {
    let Ok(proof) = Contradiction::decode(data) else {
        return false;
    };
    assert_eq!(proof.encode(), data);
    assert!(proof.said[0].digest < proof.said[1].digest);
    match proof.verify(&roster()) {
        // The seeds' directory is the only one that has signed anything.
        Ok(index) => {
            assert_eq!(index, 2);
            true
        }
        Err(_) => false,
    }
}
