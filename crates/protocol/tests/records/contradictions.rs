//! Proofs that a directory has said two things.

use mixline_protocol::Error;
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId};
use mixline_protocol::records::{
    Contradiction, Endorsement, OnlineKey, Roster, Said, Snapshot, Statement,
};
use proptest::prelude::*;

use crate::kinds::{four, second_roster};
use crate::records_common::NOW;
use crate::records_common::arbitrary::*;
use crate::records_common::directories::Directories;

const STATEMENTS: [Statement; 2] = [Statement::Vote, Statement::Snapshot];
const DIGESTS: [Digest; 2] = [Digest([1; 32]), Digest([2; 32])];

fn verify(statement: Statement, said: [Said; 2]) -> Result<u8, Error> {
    let proof = Contradiction::new(statement, NOW, said).expect("two digests");
    let read = Contradiction::decode(&proof.encode())?;
    assert_eq!(read, proof);
    read.verify(&four().roster)
}

fn authentication(read: Result<u8, Error>) -> bool {
    matches!(read, Err(Error::Authentication { .. }))
}

#[test]
fn two_votes_or_two_snapshots_are_a_proof() {
    for statement in STATEMENTS {
        let [a, b] = DIGESTS.map(|digest| four().said(3, statement, NOW, digest));
        assert_eq!(verify(statement, [a, b]), Ok(3));
        // In whatever order they came.
        assert_eq!(
            Contradiction::new(statement, NOW, [a, b]),
            Contradiction::new(statement, NOW, [b, a])
        );
        let encoded = four().contradiction(3, statement).encode();
        assert_eq!(encoded.len(), Contradiction::ENCODED);
    }
}

#[test]
fn real_votes_and_snapshots_are_a_proof() {
    let (one, mut other) = (four().vote(2), four().vote(2));
    other.relays.pop();
    let votes = [&one, &other].map(|vote| four().said(2, Statement::Vote, NOW, vote.digest()));
    assert_eq!(verify(Statement::Vote, votes), Ok(2));
    let snapshots = [2, 3].map(|relays| {
        let snapshot = four().signed(relays, [2]);
        let (_, signature) = snapshot.signatures.iter().next().unwrap();
        Said {
            key: four().certificate(2),
            digest: snapshot.digest(),
            signature: *signature,
        }
    });
    assert_eq!(verify(Statement::Snapshot, snapshots), Ok(2));
}

#[test]
fn one_thing_twice_is_no_contradiction() {
    for statement in STATEMENTS {
        let said = four().said(3, statement, NOW, DIGESTS[0]);
        assert_eq!(Contradiction::new(statement, NOW, [said; 2]), None);
        // Nor by another key.
        let again = Said {
            key: four().certify(3, &IdentityKey::from_seed([60; 32])),
            ..said
        };
        assert_eq!(Contradiction::new(statement, NOW, [said, again]), None);
        let mut proof = four().contradiction(3, statement);
        proof.said[1] = proof.said[0];
        assert!(Contradiction::decode(&proof.encode()).is_err());
        let mut turned = four().contradiction(3, statement);
        turned.said.reverse();
        assert!(Contradiction::decode(&turned.encode()).is_err());
    }
}

/// Who has two online keys is not safe by signing each thing with another one.
#[test]
fn each_thing_may_have_a_key_of_its_own() {
    let new = IdentityKey::from_seed([60; 32]);
    for statement in STATEMENTS {
        let [a, mut b] = DIGESTS.map(|digest| four().said(3, statement, NOW, digest));
        b.key = four().certify(3, &new);
        assert!(authentication(verify(statement, [a, b])));
        let identity = four().identities[3].public();
        let network = four().network();
        b.signature = match statement {
            Statement::Vote => Endorsement::signature(&network, (&identity, NOW, &b.digest), &new),
            Statement::Snapshot => Snapshot::signature(&network, NOW, &b.digest, &new),
        };
        assert_eq!(verify(statement, [a, b]), Ok(3));
    }
}

#[test]
fn both_are_said_by_one_directory_in_one_round() {
    for statement in STATEMENTS {
        let [a, b] = DIGESTS.map(|digest| four().said(3, statement, NOW, digest));
        let anothers = four().said(2, statement, NOW, DIGESTS[1]);
        assert!(authentication(verify(statement, [a, anothers])));
        let later = four().said(3, statement, NOW.plus(300), DIGESTS[1]);
        assert!(authentication(verify(statement, [a, later])));
        let mut round = Contradiction::new(statement, NOW, [a, b]).unwrap();
        round.round = NOW.plus(300);
        assert!(authentication(round.verify(&four().roster)));
        let other = STATEMENTS.into_iter().find(|other| *other != statement);
        assert!(authentication(verify(other.unwrap(), [a, b])));
        let mixed = [a, four().said(3, other.unwrap(), NOW, DIGESTS[1])];
        assert!(authentication(verify(statement, mixed)));
        let mut forged = [a, b];
        forged[1].signature = [7; 64];
        assert!(authentication(verify(statement, forged)));
    }
}

/// To pass on two votes of a liar is what honest ones do: no version of the roster makes a lie of it.
#[test]
fn who_passes_votes_on_has_not_lied() {
    let said = |by: u8, voter: u8| {
        DIGESTS.map(|digest| Said {
            key: four().certificate(by),
            digest,
            signature: four().endorse(by, voter, NOW, &digest),
        })
    };
    let rosters: [&Roster; 2] = [&four().roster, &second_roster()];
    for roster in rosters {
        for (by, voter) in [(0, 3), (3, 0), (1, 2), (0, 1)] {
            let proof = Contradiction::new(Statement::Vote, NOW, said(by, voter)).unwrap();
            assert!(authentication(proof.verify(roster)), "{by} {voter}");
        }
        // And a lie stays one.
        let proof = Contradiction::new(Statement::Vote, NOW, said(0, 0)).unwrap();
        let liar = roster.index_of(&four().identities[0].public());
        assert_eq!(proof.verify(roster).ok(), liar);
    }
}

#[test]
fn a_proof_is_about_a_directory_of_the_network() {
    for statement in STATEMENTS {
        let proof = four().contradiction(3, statement);
        let seven = Directories::new(7);
        assert!(authentication(proof.verify(&seven.roster)));
        // One who is no directory any more, whose key the next roster does not have.
        let mut members = four().roster.members.clone();
        members[3].key = [1; 32];
        let without = four().roster.next(members, 300, 7200).unwrap();
        assert!(authentication(proof.verify(&without)));
        let mut stranger = proof.clone();
        for said in &mut stranger.said {
            said.key.network = NetworkId([1; 32]);
        }
        assert!(authentication(stranger.verify(&four().roster)));
    }
}

/// A key that was not in use in that round proves nothing: who finds an old one could make up what it said.
#[test]
fn the_keys_were_in_use_in_that_round() {
    let key = IdentityKey::from_seed([60; 32]);
    let certify = |from, until| {
        let identity = &four().identities[3];
        OnlineKey::certify(four().network(), key.public(), (from, until), identity).unwrap()
    };
    let proof = |certificate| {
        let said = DIGESTS.map(|digest| Said {
            key: certificate,
            digest,
            signature: Snapshot::signature(&four().network(), NOW, &digest, &key),
        });
        verify(Statement::Snapshot, said)
    };
    assert_eq!(proof(certify(NOW.minus(9), NOW.plus(1))), Ok(3));
    assert!(matches!(
        proof(certify(NOW.minus(9), NOW)),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        proof(certify(NOW.plus(301), NOW.plus(999))),
        Err(Error::NotYetValid { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_proof_survives((roster, proof) in any_contradiction()) {
        let read = Contradiction::decode(&proof.encode()).unwrap();
        prop_assert_eq!(&read, &proof);
        let index = roster.index_of(&proof.said[0].key.directory);
        prop_assert_eq!(read.verify(&roster).ok(), index);
    }
}
