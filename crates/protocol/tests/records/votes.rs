//! Votes, and the endorsements of those who have seen them.

use mixline_protocol::Error;
use mixline_protocol::identity::{Digest, IdentityKey};
use mixline_protocol::records::{
    Endorsement, MAX_DIRECTORIES, MAX_ONLINE_KEYS, MAX_VOTE, ServiceDescriptor, Vote,
};
use proptest::prelude::*;

use crate::kinds::{decode, encode, four, second_roster, verify_endorsement};
use crate::records_common::arbitrary::*;
use crate::records_common::directories::Directories;
use crate::records_common::*;

fn refused(vote: &Vote) -> Error {
    Vote::decode(&vote.encode()).unwrap_err()
}

#[test]
fn a_vote_is_called_by_everything_in_it() {
    let right = four().vote(1);
    let digest = right.digest();
    assert_eq!(Vote::digest_of(&right.encode()), digest);
    let changed = |change: fn(&mut Vote)| {
        let mut vote = right.clone();
        change(&mut vote);
        assert_eq!(Vote::decode(&vote.encode()).as_ref(), Ok(&vote));
        assert_ne!(vote.digest(), digest);
    };
    changed(|v| v.roster += 1);
    changed(|v| v.voter = 2);
    changed(|v| v.round = v.round.plus(300));
    changed(|v| v.previous.0 = v.round);
    changed(|v| v.previous.1 = Digest([9; 32]));
    changed(|v| v.parameters.grace_seconds += 1);
    changed(|v| v.keys.clear());
    changed(|v| v.commitment = None);
    changed(|v| v.revealed = None);
    changed(|v| v.service = None);
    changed(|v| v.relays.truncate(2));
    changed(|v| v.relays[0].capacity += 1);
    changed(|v| v.relays[0].flags.ring = false);
    changed(|v| v.relays[0].record = Digest([9; 32]));
}

#[test]
fn a_commitment_is_not_what_is_revealed() {
    let right = four().vote(1);
    let turned = Vote {
        commitment: right.revealed.map(Digest),
        revealed: right.commitment.map(|digest| digest.0),
        ..right.clone()
    };
    assert_ne!(turned.digest(), right.digest());
    let only = |commitment, revealed| {
        let vote = Vote {
            commitment,
            revealed,
            ..right.clone()
        };
        vote.digest()
    };
    assert_ne!(only(Some(Digest([1; 32])), None), only(None, Some([1; 32])));
    assert_ne!(Vote::commitment_of(&[1; 32]), Digest([1; 32]));
}

#[test]
fn relays_of_a_vote_ascend() {
    let mut turned = four().vote(1);
    turned.relays.swap(0, 1);
    assert!(matches!(refused(&turned), Error::Malformed { .. }));
    let mut twice = four().vote(1);
    twice.relays[1] = twice.relays[0];
    assert!(matches!(refused(&twice), Error::Malformed { .. }));
}

#[test]
fn a_vote_names_a_place_that_a_roster_has() {
    let mut vote = four().vote(1);
    vote.voter = MAX_DIRECTORIES as u8;
    assert!(matches!(refused(&vote), Error::Malformed { .. }));
    vote.voter -= 1;
    assert!(Vote::decode(&vote.encode()).is_ok());
}

/// What others take from a vote holds: the online keys, and the service.
#[test]
fn signatures_in_a_vote_hold() {
    let authentication = |vote: &Vote| matches!(refused(vote), Error::Authentication { .. });
    let malformed = |vote: &Vote| matches!(refused(vote), Error::Malformed { .. });
    let right = four().vote(1);
    let mut key = right.clone();
    key.keys[0].signature = [7; 64];
    assert!(authentication(&key));
    let mut foreign = right.clone();
    foreign.keys[0] = Directories::new(7).certificate(1);
    assert!(malformed(&foreign));
    let mut mixed = right.clone();
    mixed.keys.push(four().certificate(2));
    assert!(malformed(&mixed));
    let mut both = right.clone();
    both.keys
        .push(four().certify(1, &IdentityKey::from_seed([60; 32])));
    assert_eq!(both.keys.len(), MAX_ONLINE_KEYS);
    assert_eq!(Vote::decode(&both.encode()), Ok(both));
    let mut service = right.clone();
    service.service.as_mut().unwrap().version += 1;
    assert!(authentication(&service));
}

#[test]
fn the_largest_vote_is_within_its_bound() {
    let mut vote = four().vote(1);
    vote.keys.push(four().certificate(1));
    let key = IdentityKey::from_seed([2; 32]);
    let mut largest = service(&key, 8, true);
    largest.clients = Some(entries([9; 8]));
    vote.service = Some(largest.sign(&key).unwrap());
    let with_relays = |count: u16| {
        let relay = |n: u16| {
            let mut relay = vote.relays[0];
            relay.id.0[..2].copy_from_slice(&n.to_be_bytes());
            relay
        };
        let vote = Vote {
            relays: (0..count).map(relay).collect(),
            ..vote.clone()
        };
        vote.encode()
    };
    let most = with_relays(16_384);
    assert_eq!(most.len(), MAX_VOTE);
    assert!(Vote::decode(&most).is_ok());
    assert!(matches!(
        Vote::decode(&with_relays(16_385)),
        Err(Error::Limit { .. })
    ));
    assert!(ServiceDescriptor::MAX_ENCODED <= usize::from(u16::MAX));
}

#[test]
fn an_endorsement_is_by_whom_it_names() {
    let directories = Directories::new(7);
    let vote = directories.vote(4);
    let right = directories.endorsement(&vote, [1, 4, 6]);
    assert_eq!(verify_endorsement(&right, &directories), Ok(()));
    assert!(encode(&right).len() <= Endorsement::MAX_ENCODED);
    let wrong = |change: fn(&mut Endorsement)| {
        let mut endorsement = right.clone();
        change(&mut endorsement);
        let read = decode(&encode(&endorsement)).unwrap();
        assert!(verify_endorsement(&read, &directories).is_err());
    };
    wrong(|e| e.voter = 3);
    wrong(|e| e.round = e.round.plus(300));
    wrong(|e| e.vote = Digest([9; 32]));
    wrong(|e| e.signatures.put(0, [7; 64]));
    wrong(|e| {
        let (_, one) = e.signatures.iter().next().unwrap();
        let one = *one;
        e.signatures.put(2, one);
    });
    // Nor is it one in a network of others with the same keys.
    assert!(verify_endorsement(&right, &Directories::new(10)).is_err());
    let mut nobody = right.clone();
    nobody.voter = MAX_DIRECTORIES as u8;
    assert!(decode(&encode(&nobody)).is_err());
}

/// The voter is called by its identity: in another version of the roster somebody else is at its place.
#[test]
fn an_endorsement_stays_with_the_directory_that_voted() {
    let (four, turned) = (four(), second_roster());
    let digest = four.vote(3).digest();
    let signature = four.endorse(0, 3, NOW, &digest);
    let key = four.certificate(0).key;
    let verify = |voter: &[u8; 32]| {
        let vote = (voter, NOW, &digest);
        Endorsement::verify_signature(&four.network(), vote, &key, &signature)
    };
    // Number 0 of the next version is number 3 of this one, and number 3 the one that has signed.
    assert_eq!(verify(&turned.members[0].key), Ok(()));
    assert!(verify(&turned.members[3].key).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_vote_survives(vote in any_vote()) {
        let bytes = vote.encode();
        prop_assert!(bytes.len() <= MAX_VOTE);
        prop_assert_eq!(Vote::decode(&bytes), Ok(vote));
    }

    #[test]
    fn an_endorsement_survives((count, endorsement) in any_endorsement()) {
        prop_assert_eq!(decode(&encode(&endorsement)), Ok(endorsement.clone()));
        let verified = verify_endorsement(&endorsement, &Directories::new(count));
        prop_assert_eq!(verified.is_ok(), endorsement.signatures.count() > 0);
    }
}
