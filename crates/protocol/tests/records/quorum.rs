//! Snapshots of several directories: who has signed, with which keys, for how long.

use mixline_protocol::Error;
use mixline_protocol::identity::{Digest, IdentityKey, X25519Public};
use mixline_protocol::records::{
    Endorsement, ListedRelay, MAX_RELAYS, MAX_SNAPSHOT, MAX_TAILS, OnlineKey, Snapshot,
};
use mixline_protocol::time::UnixTime;
use proptest::prelude::*;

use crate::kinds::{four, second_roster};
use crate::records_common::arbitrary::*;
use crate::records_common::directories::{CERTIFIED, Directories, VALIDITY};
use crate::records_common::{NOW, entries, listed, relay, service};

fn read(snapshot: &Snapshot, directories: &Directories) -> Result<(), Error> {
    let bytes = snapshot.encode();
    let read = Snapshot::decode_and_verify(&bytes, &directories.roster, NOW)?;
    assert_eq!(&read, snapshot);
    Ok(())
}

fn authentication(read: Result<(), Error>) -> bool {
    matches!(read, Err(Error::Authentication { .. }))
}

#[test]
fn a_quorum_signs() {
    for (count, quorum) in [(1, 1), (4, 3), (7, 5), (10, 7)] {
        let directories = Directories::new(count);
        let signed = |by: std::ops::Range<u8>| read(&directories.signed(2, by), &directories);
        assert_eq!(signed(0..quorum), Ok(()), "{count}");
        assert_eq!(signed(count - quorum..count), Ok(()), "{count}");
        assert_eq!(signed(0..count), Ok(()), "{count}");
        assert!(authentication(signed(0..quorum - 1)), "{count}");
        assert!(authentication(signed(count - quorum + 1..count)), "{count}");
        assert!(authentication(signed(0..0)), "{count}");
    }
}

#[test]
fn one_wrong_signature_among_enough_is_refused() {
    for count in [4, 7, 10] {
        let directories = Directories::new(count);
        let right = directories.signed(2, directories.indices());
        for index in directories.indices() {
            let mut wrong = right.clone();
            wrong.signatures.put(index, [7; 64]);
            assert!(authentication(read(&wrong, &directories)), "{index}");
        }
        // One by a key that is no directory's, at a place that the roster does not have.
        if count < 10 {
            let mut strange = right.clone();
            let (_, first) = right.signatures.iter().next().unwrap();
            strange.signatures.put(count, *first);
            assert!(authentication(read(&strange, &directories)));
        }
    }
}

/// One directory's signature is not another's, and does not count twice.
#[test]
fn a_signature_counts_at_its_own_place() {
    let right = four().signed(2, [0, 1]);
    let (_, first) = right.signatures.iter().next().unwrap();
    let mut copied = right.clone();
    copied.signatures.put(2, *first);
    assert!(authentication(read(&copied, four())));
}

/// Replaces the online keys of a directory, and has three sign, of whom it is one.
fn with_keys(keys: &[OnlineKey], signer: &IdentityKey) -> Result<(), Error> {
    let mut snapshot = four().snapshot(2);
    snapshot.directories[1].keys = keys.iter().copied().collect();
    let digest = snapshot.digest();
    four().sign(&mut snapshot, [0, 2]);
    let signature = Snapshot::signature(&four().network(), NOW, &digest, signer);
    snapshot.signatures.put(1, signature);
    read(&snapshot, four())
}

#[test]
fn either_of_two_online_keys_signs() {
    let (old, new) = (four().certificate(1), IdentityKey::from_seed([60; 32]));
    let both = [four().certify(1, &new), old];
    assert_eq!(with_keys(&both, &new), Ok(()));
    assert_eq!(with_keys(&both, &four().online[1]), Ok(()));
    assert_eq!(with_keys(&both[..1], &new), Ok(()));
    assert!(authentication(with_keys(&both[1..], &new)));
    assert!(authentication(with_keys(&[], &new)));
}

#[test]
fn an_online_key_is_its_directorys_and_in_use() {
    let signer = &four().online[1];
    assert_eq!(with_keys(&[four().certificate(1)], signer), Ok(()));
    let certify = |life: (UnixTime, UnixTime), identity: &IdentityKey| {
        OnlineKey::certify(four().network(), signer.public(), life, identity).unwrap()
    };
    let own = &four().identities[1];
    let ended = certify((CERTIFIED, NOW), own);
    assert!(matches!(
        with_keys(&[ended], signer),
        Err(Error::Expired { .. })
    ));
    assert_eq!(
        with_keys(&[certify((CERTIFIED, NOW.plus(1)), own)], signer),
        Ok(())
    );
    let later = certify((NOW.plus(301), NOW.plus(9999)), own);
    assert!(matches!(
        with_keys(&[later], signer),
        Err(Error::NotYetValid { .. })
    ));
    // Certified by nobody, by another directory, and by the key itself.
    let life = (CERTIFIED, NOW.plus(9999));
    let nobodys = OnlineKey {
        signature: [7; 64],
        ..certify(life, own)
    };
    assert!(authentication(with_keys(&[nobodys], signer)));
    let anothers = certify(life, &four().identities[2]);
    assert!(authentication(with_keys(&[anothers], signer)));
    assert!(authentication(with_keys(&[certify(life, signer)], signer)));
    let other_network = Directories::new(7);
    let of_seven = other_network.certify(1, signer);
    assert!(authentication(with_keys(&[of_seven], signer)));
    // A directory's identity certifies, and signs no snapshot.
    assert!(authentication(with_keys(&[four().certificate(1)], own)));
}

/// Readers take online keys from a snapshot, so all of them hold, and not only those that have signed it.
#[test]
fn keys_of_those_who_have_not_signed_hold_too() {
    let mut snapshot = four().snapshot(2);
    snapshot.directories[3].keys[0].signature = [7; 64];
    four().sign(&mut snapshot, [0, 1, 2]);
    assert!(authentication(read(&snapshot, four())));
    let mut snapshot = four().snapshot(2);
    snapshot.directories[3].keys = snapshot.directories[2].keys.clone();
    four().sign(&mut snapshot, [0, 1, 2]);
    assert!(authentication(read(&snapshot, four())));
    let mut none = four().snapshot(2);
    none.directories[3].keys.clear();
    four().sign(&mut none, [0, 1, 2]);
    assert_eq!(read(&none, four()), Ok(()));
}

#[test]
fn another_version_of_the_roster_is_named() {
    let mut snapshot = four().snapshot(2);
    snapshot.roster = 2;
    four().sign(&mut snapshot, [0, 1, 2]);
    let expected = Err(Error::Roster { held: 1, said: 2 });
    assert_eq!(read(&snapshot, four()), expected);
    let old = four().signed(2, [0, 1, 2]).encode();
    assert_eq!(
        Snapshot::decode_and_verify(&old, &second_roster(), NOW).map(drop),
        Err(Error::Roster { held: 2, said: 1 })
    );
    // A network that it is not of is worse.
    let seven = Directories::new(7);
    let of_seven = Snapshot::decode_and_verify(&old, &seven.roster, NOW).map(drop);
    assert!(authentication(of_seven));
}

/// A version with the same directories in another order does not make old signatures its own.
#[test]
fn a_signature_does_not_pass_to_another_version() {
    let mut snapshot = four().signed(2, [0, 1, 2, 3]);
    snapshot.roster = 2;
    snapshot.directories.reverse();
    snapshot.valid_until = snapshot.issued.plus(7200);
    let old = snapshot.signatures.clone();
    for (index, signature) in old.iter() {
        snapshot.signatures.put(3 - index, *signature);
    }
    let read = Snapshot::decode_and_verify(&snapshot.encode(), &second_roster(), NOW);
    assert!(authentication(read.map(drop)));
    four().sign(&mut snapshot, [0, 1, 2, 3]);
    let right: Vec<_> = snapshot
        .signatures
        .iter()
        .map(|(i, s)| (3 - i, *s))
        .collect();
    for (index, signature) in right {
        snapshot.signatures.put(index, signature);
    }
    let bytes = snapshot.encode();
    assert!(Snapshot::decode_and_verify(&bytes, &second_roster(), NOW).is_ok());
}

/// What the offline keys have signed, a quorum of online keys does not prolong.
#[test]
fn validity_is_at_most_the_rosters() {
    let mut snapshot = four().snapshot(2);
    snapshot.valid_until = NOW.plus(u64::from(VALIDITY) + 1);
    four().sign(&mut snapshot, [0, 1, 2]);
    assert!(matches!(
        read(&snapshot, four()),
        Err(Error::Malformed { .. })
    ));
    let mut shorter = four().snapshot(2);
    shorter.valid_until = NOW.plus(1);
    four().sign(&mut shorter, [0, 1, 2]);
    assert_eq!(read(&shorter, four()), Ok(()));
}

#[test]
fn there_is_an_entry_for_each_directory() {
    for change in [0, 1] {
        let mut snapshot = four().snapshot(2);
        match change {
            0 => drop(snapshot.directories.pop()),
            _ => snapshot.directories.push(Default::default()),
        }
        four().sign(&mut snapshot, [0, 1, 2]);
        assert!(authentication(read(&snapshot, four())));
    }
}

/// All of the largest, but for one relay in place of 16,384.
#[test]
fn the_largest_snapshot_is_within_its_bound() {
    let ten = Directories::new(10);
    let mut snapshot = ten.snapshot(0);
    let key = IdentityKey::from_seed([2; 32]);
    let mut largest = service(&key, MAX_TAILS, true);
    largest.clients = Some(entries([9; 8]));
    let largest = largest.sign(&key).unwrap();
    for (entry, index) in snapshot.directories.iter_mut().zip(0..) {
        let before = ten.certify(index, &IdentityKey::from_seed([60; 32]));
        entry.keys.push(before);
        entry.commitment = Some(Digest([1; 32]));
        entry.service = Some(largest.clone());
    }
    let mut relay = relay(&key);
    relay.addresses = vec!["[2001:db8::1]:65535".parse().unwrap(); 4];
    relay.family = Some("f".repeat(32));
    relay.name = "n".repeat(32);
    relay.software = "s".repeat(32);
    let mut relay = listed(relay.sign(&key).unwrap());
    relay.onion = (500_000..500_004)
        .map(|epoch| (epoch, X25519Public([6; 32])))
        .collect();
    snapshot.relays = vec![relay];
    ten.sign(&mut snapshot, ten.indices());
    assert_eq!(read(&snapshot, &ten), Ok(()));
    let rest = (MAX_RELAYS - 1) * ListedRelay::MAX_ENCODED;
    assert_eq!(snapshot.encode().len() + rest, MAX_SNAPSHOT);
}

/// What a directory signs elsewhere is no signature of a snapshot, and none of another round or network.
#[test]
fn a_signature_is_for_one_thing() {
    let (network, key) = (four().network(), &four().online[1]);
    let snapshot = four().signed(2, [0, 2]);
    let digest = snapshot.digest();
    let with = |signature: [u8; 64]| {
        let mut snapshot = snapshot.clone();
        snapshot.signatures.put(1, signature);
        read(&snapshot, four())
    };
    assert_eq!(
        with(Snapshot::signature(&network, NOW, &digest, key)),
        Ok(())
    );
    let identity = four().identities[1].public();
    let endorsed = Endorsement::signature(&network, (&identity, NOW, &digest), key);
    assert!(authentication(with(endorsed)));
    let later = Snapshot::signature(&network, NOW.plus(300), &digest, key);
    assert!(authentication(with(later)));
    let elsewhere = Snapshot::signature(&Directories::new(7).network(), NOW, &digest, key);
    assert!(authentication(with(elsewhere)));
    let bare = key.sign("mixline/v2/snapshot", &digest.0);
    assert!(authentication(with(bare)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_survives((roster, snapshot) in any_snapshot_of_several()) {
        let bytes = snapshot.encode();
        let read = Snapshot::decode_and_verify(&bytes, &roster, NOW);
        prop_assert_eq!(read.as_ref(), Ok(&snapshot));
        let peeked = Snapshot::peek(&bytes);
        prop_assert_eq!(peeked, Ok((roster.network(), 1, NOW)));
        let body = snapshot.encode_body();
        prop_assert_eq!(Snapshot::digest_of(&body), snapshot.digest());
        let unsigned = Snapshot { signatures: Default::default(), ..snapshot };
        prop_assert_eq!(Snapshot::decode_body(&body), Ok(unsigned));
    }
}
