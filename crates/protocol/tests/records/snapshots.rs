//! What holds for snapshots whoever signs them, by the example of a directory that is alone.

use mixline_protocol::Error;
use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Public};
use mixline_protocol::records::{
    DirectoryEntry, MAX_SNAPSHOT, RelayDescriptor, Roster, Signatures, Snapshot,
};
use proptest::prelude::*;

use crate::kinds::{alone, four};
use crate::records_common::arbitrary::*;
use crate::records_common::*;

#[test]
fn a_snapshot_says_what_is_wrong_with_it() {
    let bytes = snapshot(2).encode();
    let read = |roster: &Roster, now| Snapshot::decode_and_verify(&bytes, roster, now).map(drop);
    assert_eq!(read(&alone(), NOW), Ok(()));
    for other in [Roster::alone(AnonymousId([3; 32])), four().roster.clone()] {
        assert!(matches!(
            read(&other, NOW),
            Err(Error::Authentication { .. })
        ));
    }
    assert!(matches!(
        read(&alone(), NOW.plus(3600)),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        read(&alone(), NOW.minus(3600)),
        Err(Error::NotYetValid { .. })
    ));
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        Snapshot::decode_and_verify(&bytes, &alone(), NOW).map(drop)
    };
    // In the signature, in the network, in a relay, in the last byte.
    for at in [40, 70, bytes.len() / 2, bytes.len() - 1] {
        assert!(
            matches!(changed(at), Err(Error::Authentication { .. })),
            "byte {at}"
        );
    }
}

#[test]
fn a_snapshot_finds_relays_and_refuses_doubles() {
    let key = IdentityKey::from_seed([7; 32]);
    let mut doubled = snapshot(4);
    let third = &doubled.relays[2];
    let found = doubled.relay(&third.short_id()).unwrap();
    assert_eq!(found.descriptor.id, third.descriptor.id);
    assert!(doubled.relay(&relay(&key).short_id()).is_none());
    doubled.relays.push(doubled.relays[0].clone());
    assert!(matches!(
        doubled.sign(&directory_key()),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn relays_are_in_order() {
    let mut turned = snapshot(3);
    turned.relays.reverse();
    let body = turned.encode_body();
    assert!(Snapshot::decode_body(&body).is_err());
    assert_eq!(turned.sign(&directory_key()), Ok(snapshot(3)));
}

#[test]
fn a_directory_cannot_make_relays_up() {
    // A descriptor that the relay did not sign, in a snapshot that the directory did.
    let forge: [fn(&mut RelayDescriptor); 3] = [
        |relay| relay.capacity += 1,
        |relay| relay.link = X25519Public([1; 32]),
        |relay| relay.addresses.truncate(1),
    ];
    for forge in forge {
        let mut forged = snapshot(2);
        forge(&mut forged.relays[0].descriptor);
        let bytes = forged.sign(&directory_key()).unwrap().encode();
        assert!(matches!(
            Snapshot::decode_and_verify(&bytes, &alone(), NOW),
            Err(Error::Authentication { .. })
        ));
    }
}

/// Who holds a snapshot checks what is new in the next one, and all that is.
#[test]
fn what_is_held_already_is_not_checked_again() {
    let held = snapshot(3);
    let after = |snapshot: &Snapshot, held: &Snapshot| {
        let bytes = snapshot.encode();
        let read = Snapshot::decode_and_verify_after(&bytes, &alone(), NOW, Some(held));
        read.map(|read| assert_eq!(&read, snapshot))
    };
    let key = directory_key();
    assert_eq!(after(&held, &held), Ok(()));
    assert_eq!(after(&snapshot(5), &held), Ok(()));
    assert_eq!(after(&snapshot(1), &held), Ok(()));
    assert_eq!(after(&held, &snapshot(0)), Ok(()));

    let spoil: [fn(&mut RelayDescriptor); 4] = [
        |relay| relay.version += 1,
        |relay| relay.link = X25519Public([1; 32]),
        |relay| relay.signature[0] ^= 1,
        |relay| relay.signature = [0; 64],
    ];
    for spoil in spoil {
        let mut forged = held.clone();
        spoil(&mut forged.relays[1].descriptor);
        let forged = forged.sign(&key).unwrap();
        assert!(matches!(
            after(&forged, &held),
            Err(Error::Authentication { .. })
        ));
    }
    // One relay's descriptor under another's ID.
    let mut swapped = held.clone();
    let (first, second) = (&held.relays[0].descriptor, &held.relays[1].descriptor);
    swapped.relays[0].descriptor = RelayDescriptor {
        id: first.id,
        ..second.clone()
    };
    let swapped = swapped.sign(&key).unwrap();
    assert!(after(&swapped, &held).is_err());
}

#[test]
fn a_directory_that_is_alone_signs_with_its_identity() {
    let key = directory_key();
    let mut with_key = snapshot(1);
    with_key.directories[0].keys.push(four().certificate(0));
    let mut of_roster = snapshot(1);
    of_roster.roster = 1;
    let mut two = snapshot(1);
    two.directories.push(DirectoryEntry::default());
    let mut none = snapshot(1);
    none.directories.clear();
    for (wrong, what) in [
        (with_key, "online key"),
        (of_roster, "roster"),
        (two, "two directories"),
        (none, "no directory"),
    ] {
        assert!(wrong.clone().sign(&key).is_err(), "{what}: signed");
        let (digest, mut wrong) = (wrong.digest(), wrong);
        let signature = Snapshot::signature(&wrong.network, wrong.issued, &digest, &key);
        wrong.signatures.put(0, signature);
        let read = Snapshot::decode_and_verify(&wrong.encode(), &alone(), NOW);
        assert!(read.is_err(), "{what}: read");
    }
    let other = IdentityKey::from_seed([1; 32]);
    assert!(snapshot(1).sign(&other).is_err());
}

#[test]
fn onion_keys_are_of_the_snapshots_epoch_or_later() {
    let with_first = |epoch: u32| {
        let mut snapshot = snapshot(1);
        assert_eq!(snapshot.first_epoch(), 500_000);
        snapshot.relays[0].onion = [(epoch, X25519Public([6; 32]))].into_iter().collect();
        snapshot.sign(&directory_key())
    };
    assert!(with_first(499_999).is_err());
    assert!(with_first(500_016).is_err());
    for right in [500_000, 500_015] {
        let snapshot = with_first(right).unwrap();
        let read = Snapshot::decode_and_verify(&snapshot.encode(), &alone(), NOW).unwrap();
        assert!(read.relays[0].onion_for(right).is_some());
        assert!(read.relays[0].onion_for(right + 1).is_none());
    }
}

#[test]
fn the_directory_that_is_asked_is_the_first_with_tails() {
    let mut snapshot = four().snapshot(0);
    let ids: Vec<_> = snapshot.services().map(|service| service.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(snapshot.service().map(|service| service.id), Some(ids[0]));
    let key = IdentityKey::from_seed([200; 32]);
    snapshot.directories[0].service = Some(service(&key, 0, false));
    assert_eq!(snapshot.service().map(|service| service.id), Some(ids[1]));
    snapshot.directories[2].service = None;
    assert_eq!(snapshot.service().map(|service| service.id), Some(ids[0]));
    snapshot.directories[0].service = None;
    assert_eq!(snapshot.service(), None);
}

#[test]
fn what_is_too_long_is_refused() {
    let too_long = vec![0; MAX_SNAPSHOT + 1];
    assert!(matches!(
        Snapshot::decode_and_verify(&too_long, &alone(), NOW),
        Err(Error::Limit { .. })
    ));
    assert!(matches!(
        Snapshot::decode_body(&too_long),
        Err(Error::Limit { .. })
    ));
}

/// Who serves a snapshot chooses which signatures it shows, and so would choose what the tag is.
#[test]
fn the_entity_tag_is_the_same_for_everybody() {
    let tag = |snapshot: &Snapshot| Snapshot::entity_tag(&snapshot.encode());
    let three = four().signed(2, [0, 1, 2]);
    let right = tag(&three);
    assert_eq!(right.len(), 34);
    assert!(right.starts_with('"') && right.ends_with('"'));
    assert_eq!(tag(&four().signed(2, [1, 2, 3])), right);
    assert_eq!(tag(&four().signed(2, [0, 1, 2, 3])), right);
    let mut encoded = three.encode();
    for at in 2 + 2 + 3 * 64..encoded.len() {
        encoded[at] ^= 1;
        assert_ne!(Snapshot::entity_tag(&encoded), right, "byte {at}");
        encoded[at] ^= 1;
    }
    // What is no snapshot has one, too.
    assert_eq!(Snapshot::entity_tag(&[]).len(), 34);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_snapshot_survives(snapshot in any_snapshot()) {
        let bytes = snapshot.encode();
        prop_assert!(bytes.len() <= MAX_SNAPSHOT);
        let decoded = Snapshot::decode_and_verify(&bytes, &alone(), snapshot.issued);
        prop_assert_eq!(decoded, Ok(snapshot));
    }

    /// A directory that signs nonsense gets an error, not a panic.
    #[test]
    fn signed_noise_is_refused(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        kept in any::<prop::sample::Index>(),
    ) {
        let right = snapshot(1).encode_body();
        let kept = kept.index(right.len());
        let body = [&right[..kept], &noise].concat();
        prop_assume!(body != right);
        let key = directory_key();
        // The time is signed apart, and stands in the body.
        let issued = match body.get(36..44) {
            Some(issued) => u64::from_be_bytes(issued.try_into().unwrap()),
            None => 0,
        };
        let digest = Snapshot::digest_of(&body);
        let network = snapshot(0).network;
        let time = mixline_protocol::time::UnixTime(issued);
        let mut signatures = Signatures::default();
        signatures.put(0, Snapshot::signature(&network, time, &digest, &key));
        let bytes = Snapshot::with_signatures(&signatures, &body);
        let read = Snapshot::decode_and_verify(&bytes, &alone(), NOW);
        prop_assert!(read.is_err());
        if kept > 44 {
            let unsigned = Err(Error::Authentication { what: "mixline/v2/snapshot" });
            prop_assert_ne!(read, unsigned);
        }
    }
}
