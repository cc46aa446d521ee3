//! Rosters: who the directories are, from the first version on.

use mixline_protocol::Error;
use mixline_protocol::identity::{IdentityKey, NetworkId};
use mixline_protocol::records::{MAX_URL, Member, Roster, Signatures};
use proptest::prelude::*;

use crate::kinds::{alone, four, second_roster};
use crate::records_common::arbitrary::*;
use crate::records_common::directories::{Directories, member};
use crate::records_common::directory_key;

fn authentication<T: std::fmt::Debug>(read: Result<T, Error>) -> bool {
    matches!(read, Err(Error::Authentication { .. }))
}

fn key(n: u8) -> IdentityKey {
    IdentityKey::from_seed([n; 32])
}

fn members(count: u8) -> Vec<Member> {
    (0..count).map(|n| member(&key(n + 1))).collect()
}

#[test]
fn there_are_1_4_7_or_10_directories() {
    for count in 0..=12 {
        let made = Roster::first(members(count), 300, 7200);
        assert_eq!(made.is_ok(), [1, 4, 7, 10].contains(&count), "{count}");
        let next = four().roster.next(members(count), 300, 7200);
        assert_eq!(next.is_ok(), made.is_ok(), "{count}");
    }
    let faults_and_quorum = |count| {
        let roster = Directories::new(count).roster;
        (roster.faults(), roster.quorum())
    };
    assert_eq!(faults_and_quorum(1), (0, 1));
    assert_eq!(faults_and_quorum(4), (1, 3));
    assert_eq!(faults_and_quorum(7), (2, 5));
    assert_eq!(faults_and_quorum(10), (3, 7));
}

#[test]
fn a_roster_is_as_documented_or_not_made() {
    let wrong = |change: fn(&mut Vec<Member>)| {
        let mut changed = members(4);
        change(&mut changed);
        let error = Roster::first(changed, 300, 7200).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    };
    wrong(|m| m[3].key = m[0].key);
    wrong(|m| m[1].name.clear());
    wrong(|m| m[1].name = "n".repeat(33));
    wrong(|m| m[1].name = "<b>".into());
    wrong(|m| m[1].url = "https://example".into());
    wrong(|m| m[1].url = "http://".into());
    wrong(|m| m[1].url = "http://a b".into());
    wrong(|m| m[1].url = "http://a\nb".into());
    wrong(|m| m[1].url = format!("http://{}", "u".repeat(MAX_URL - 6)));
    for (round, validity) in [(9, 7200), (3601, 7200), (300, 599), (300, 86_401), (0, 0)] {
        let made = Roster::first(members(4), round, validity);
        assert!(made.is_err(), "{round} {validity}");
    }
    assert!(Roster::first(members(4), 300, 600).is_ok());
}

#[test]
fn a_network_is_called_by_all_that_its_first_roster_says() {
    let network = |members, round, validity| {
        let roster = Roster::first(members, round, validity).unwrap();
        roster.network()
    };
    let first = network(members(4), 300, 7200);
    let mut swapped = members(4);
    swapped.swap(0, 1);
    let mut renamed = members(4);
    renamed[2].name = "other".into();
    let mut moved = members(4);
    moved[2].url = "http://elsewhere".into();
    // A byte that goes from a text to the next one.
    let mut shifted = members(4);
    shifted[2].name.push('h');
    for (other, what) in [
        (network(swapped, 300, 7200), "order"),
        (network(renamed, 300, 7200), "name"),
        (network(moved, 300, 7200), "address"),
        (network(shifted, 300, 7200), "lengths"),
        (network(members(4), 301, 7200), "round"),
        (network(members(4), 300, 7201), "validity"),
        (network(members(7), 300, 7200), "more"),
    ] {
        assert_ne!(first, other, "{what}");
    }
    assert_eq!(first, network(members(4), 300, 7200));
}

#[test]
fn signatures_are_no_part_of_the_name() {
    let mut unsigned = four().roster.clone();
    unsigned.signed = Signatures::default();
    let read = Roster::decode(&unsigned.encode()).unwrap();
    assert_eq!(read.network(), four().network());
    assert!(authentication(read.verify_first(four().network())));
}

#[test]
fn a_first_roster_needs_a_quorum_and_no_wrong_signature() {
    for count in [1, 4, 7, 10] {
        let directories = Directories::new(count);
        let roster = &directories.roster;
        let with = |most: usize| {
            let mut roster = roster.clone();
            roster.signed.retain(|index, _| usize::from(index) < most);
            Roster::decode(&roster.encode())
                .unwrap()
                .verify_first(directories.network())
        };
        let quorum = roster.quorum();
        assert_eq!(with(quorum), Ok(()), "{count}");
        assert!(authentication(with(quorum - 1)), "{count}");
        let network = NetworkId([1; 32]);
        assert!(authentication(roster.verify_first(network)), "{count}");

        // Enough others do not make up for a wrong one.
        let mut wrong = roster.clone();
        wrong.signed.put(0, [7; 64]);
        assert!(authentication(wrong.verify_first(directories.network())));
        let mut strange = roster.clone();
        if count < 10 {
            strange.signed.put(count, [7; 64]);
            assert!(authentication(strange.verify_first(directories.network())));
        }
    }
}

/// Nothing rides along in a first roster: there was nobody before who could sign it.
#[test]
fn nobody_was_before_the_first() {
    let mut roster = four().roster.clone();
    roster.signed_before.put(0, [7; 64]);
    assert!(matches!(
        Roster::decode(&roster.encode()),
        Err(Error::Malformed { .. })
    ));
    let mut roster = four().roster.clone();
    assert!(roster.sign(&four().identities[0], Some(&four().roster)));
    assert_eq!(roster.signed_before.count(), 0);
    let key = directory_key();
    let mut roster = Roster::first(vec![member(&key)], 300, 7200).unwrap();
    assert!(roster.sign(&key, Some(&alone())));
    assert_eq!(roster.signed_before.count(), 0);
}

/// Four directories, and a next version with one of them replaced, which nobody has signed.
fn next() -> (&'static Directories, IdentityKey, Roster) {
    let (four, new) = (four(), key(77));
    let mut members = four.roster.members.clone();
    members[3] = member(&new);
    let next = four.roster.next(members, 300, 7200).unwrap();
    (four, new, next)
}

#[test]
fn the_next_version_needs_a_quorum_of_both() {
    let (four, new, unsigned) = next();
    let signed = |by: &[&IdentityKey]| {
        let mut next = unsigned.clone();
        for key in by {
            assert!(next.sign(key, Some(&four.roster)));
        }
        let read = Roster::decode(&next.encode()).unwrap();
        read.verify_after(&four.roster)
    };
    let [a, b, c, gone] = &four.identities[..] else {
        panic!("four")
    };
    assert_eq!(signed(&[a, b, c]), Ok(()));
    assert_eq!(signed(&[a, b, c, &new, gone]), Ok(()));
    assert_eq!(signed(&[a, b, gone, &new]), Ok(()));
    // One too few of the old ones, of the new ones, and of both.
    assert!(authentication(signed(&[a, b, &new])));
    assert!(authentication(signed(&[a, b, gone])));
    assert!(authentication(signed(&[a, b])));
    assert!(authentication(signed(&[])));
}

#[test]
fn signatures_of_either_side_do_not_count_for_the_other() {
    let (four, new, mut next) = next();
    for key in four.identities.iter().chain([&new]) {
        next.sign(key, Some(&four.roster));
    }
    assert_eq!(next.verify_after(&four.roster), Ok(()));
    let mut turned = next.clone();
    std::mem::swap(&mut turned.signed, &mut turned.signed_before);
    assert!(authentication(turned.verify_after(&four.roster)));
    let mut wrong = next.clone();
    wrong.signed_before.put(0, [7; 64]);
    assert!(authentication(wrong.verify_after(&four.roster)));
    let mut wrong = next;
    wrong.signed.put(2, [7; 64]);
    assert!(authentication(wrong.verify_after(&four.roster)));
}

#[test]
fn versions_follow_each_other_in_one_network() {
    let first = &four().roster;
    let second = second_roster();
    let mut third = second.next(second.members.clone(), 300, 7200).unwrap();
    for key in &four().identities {
        third.sign(key, Some(&second));
    }
    assert_eq!(second.verify_after(first), Ok(()));
    assert_eq!(third.verify_after(&second), Ok(()));
    assert!(authentication(third.verify_after(first)), "skipped");
    assert!(authentication(second.verify_after(&second)), "replayed");
    assert!(authentication(second.verify_after(&third)), "back");
    assert!(authentication(first.verify_after(first)), "the first");
    assert!(authentication(second.verify_first(first.network())));
    assert!(authentication(first.verify_after(&alone())), "alone");

    // Also where the same directories stand at the same places, so that all signatures hold.
    let all_sign = |mut roster: Roster, before: &Roster| {
        for key in &four().identities {
            roster.sign(key, Some(before));
        }
        roster
    };
    let same = |before: &Roster| {
        let next = before.next(first.members.clone(), 300, 7200).unwrap();
        all_sign(next, before)
    };
    let (two, three) = (same(first), same(&same(first)));
    assert_eq!(three.verify_after(&two), Ok(()));
    assert!(authentication(three.verify_after(first)), "skipped");
    assert!(authentication(two.verify_after(&two)), "replayed");

    // The same directories in another network have the same keys, and another name.
    let mut other = Roster::first(first.members.clone(), 600, 7200).unwrap();
    for key in &four().identities {
        other.sign(key, None);
    }
    assert_eq!(other.verify_first(other.network()), Ok(()));
    assert!(authentication(second.verify_after(&other)), "network");
    let mut moved = other.next(second.members.clone(), 300, 7200).unwrap();
    moved.signed = second.signed.clone();
    moved.signed_before = second.signed_before.clone();
    assert!(authentication(moved.verify_after(&other)), "signatures");
}

/// The signature says at which place a directory is.
#[test]
fn members_in_another_order_are_another_roster() {
    let second = second_roster();
    assert_eq!(second.index_of(&four().roster.members[0].key), Some(3));
    let mut reordered = second.clone();
    reordered.members.swap(0, 1);
    assert!(authentication(reordered.verify_after(&four().roster)));
    let mut signatures = second.clone();
    let moved: Vec<_> = signatures.signed.iter().map(|(i, s)| (3 - i, *s)).collect();
    for (index, signature) in moved {
        signatures.signed.put(index, signature);
    }
    assert!(authentication(signatures.verify_after(&four().roster)));
}

#[test]
fn copies_that_others_have_signed_are_merged() {
    let (four, new, unsigned) = next();
    let mut copies = four.identities.iter().chain([&new]).map(|key| {
        let mut copy = unsigned.clone();
        copy.sign(key, Some(&four.roster));
        copy
    });
    let mut all = copies.next().unwrap();
    for copy in copies {
        assert_eq!(all.merge(&copy), Ok(()));
    }
    assert_eq!(all.verify_after(&four.roster), Ok(()));
    assert_eq!((all.signed.count(), all.signed_before.count()), (4, 4));

    // What does not hold takes the place of nothing that does.
    let mut bent = unsigned.clone();
    for index in 0..4 {
        bent.signed.put(index, [7; 64]);
        bent.signed_before.put(index, [7; 64]);
    }
    assert_eq!(all.merge(&bent), Ok(()));
    assert_eq!(all.verify_after(&four.roster), Ok(()));
    let mut none = unsigned;
    assert_eq!(none.merge(&bent), Ok(()));
    assert_eq!(none.signed.count(), 0);
    assert!(authentication(none.merge(&second_roster())));
    assert!(authentication(none.merge(&four.roster)));
}

#[test]
fn a_chain_leads_from_the_name_to_the_newest() {
    let (first, second) = (four().roster.clone(), second_roster());
    let network = four().network();
    let read = |chain: &[&Roster]| {
        let bytes = Roster::encode_chain(chain.iter().copied());
        Roster::decode_chain(&bytes, network)
    };
    assert_eq!(read(&[&first]), Ok(vec![first.clone()]));
    let both = vec![first.clone(), second.clone()];
    assert_eq!(read(&[&first, &second]), Ok(both));
    assert!(read(&[]).is_err());
    assert!(authentication(read(&[&second])));
    assert!(authentication(read(&[&second, &first])));
    assert!(authentication(read(&[&first, &first])));
    assert!(authentication(read(&[&first, &second, &second])));
    let bytes = Roster::encode_chain([&first, &second]);
    assert!(authentication(Roster::decode_chain(
        &bytes,
        NetworkId([1; 32])
    )));
    let ends = [0, 2 + first.encode().len(), bytes.len()];
    for end in 0..=bytes.len() {
        let read = Roster::decode_chain(&bytes[..end], network);
        assert_eq!(read.is_ok(), end > 0 && ends.contains(&end), "{end}");
    }
    let long = vec![0; Roster::MAX_CHAIN + 1];
    assert!(matches!(
        Roster::decode_chain(&long, network),
        Err(Error::Limit { .. })
    ));
}

#[test]
fn the_largest_roster_is_within_its_bound() {
    let long = |n: u8| Member {
        key: key(n + 1).public(),
        name: "n".repeat(32),
        url: format!("http://{}", "u".repeat(MAX_URL - 7)),
    };
    let first = Roster::first((0..10).map(long).collect(), 300, 7200).unwrap();
    let mut next = first.next(first.members.clone(), 300, 7200).unwrap();
    for n in 0..10 {
        next.sign(&key(n + 1), Some(&first));
    }
    assert_eq!(next.encode().len(), Roster::MAX_ENCODED);
    // It fits the two bytes of a length.
    assert!(Roster::MAX_ENCODED <= usize::from(u16::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_chain_survives((first, next) in any_next_roster()) {
        let chain = vec![first, next];
        let bytes = Roster::encode_chain(&chain);
        prop_assert_eq!(Roster::decode_chain(&bytes, chain[0].network()), Ok(chain));
    }
}
