//! What a relay says of itself: its descriptor, its onion keys, its heartbeats.

use std::net::SocketAddr;

use mixline_protocol::Error;
use mixline_protocol::identity::{IdentityKey, X25519Public};
use mixline_protocol::records::{
    CLOCK_SKEW, MAX_ADDRESSES, MAX_ONION_KEYS, OnionKeys, Registration, RelayDescriptor,
    RelayRecord,
};
use proptest::prelude::*;

use crate::records_common::arbitrary::*;
use crate::records_common::*;

fn key() -> IdentityKey {
    IdentityKey::from_seed([1; 32])
}

#[test]
fn a_descriptor_lives_from_issue_to_expiry() {
    let record = relay(&key());
    let expired = Err(Error::Expired {
        what: "relay descriptor",
        at: record.expires.0,
    });
    assert_eq!(record.verify(record.expires), expired);
    assert_eq!(record.verify(record.expires.minus(1)), Ok(()));
    // A clock may be behind the one of who made it, but not by more than the skew.
    assert_eq!(record.verify(record.issued.minus(CLOCK_SKEW)), Ok(()));
    assert_eq!(
        record.verify(record.issued.minus(CLOCK_SKEW + 1)),
        Err(Error::NotYetValid {
            what: "relay descriptor",
            from: record.issued.0
        })
    );
}

type Spoil = fn(&mut RelayDescriptor);

#[test]
fn sign_refuses_what_decode_would() {
    let breaks: [(&str, Spoil); 10] = [
        ("no address", |r| r.addresses.clear()),
        ("many addresses", |r| {
            r.addresses = vec![r.addresses[0]; MAX_ADDRESSES + 1]
        }),
        ("port 0", |r| r.addresses[0].set_port(0)),
        ("any address", |r| {
            r.addresses[0] = SocketAddr::from(([0, 0, 0, 0], 7000))
        }),
        ("multicast", |r| {
            r.addresses[0] = SocketAddr::from(([224, 0, 0, 1], 7000))
        }),
        ("mapped", |r| {
            r.addresses[0] = "[::ffff:172.21.0.2]:7000".parse().unwrap()
        }),
        ("no name", |r| r.name.clear()),
        ("markup", |r| r.name = "<b>".into()),
        ("long family", |r| r.family = Some("f".repeat(33))),
        ("long life", |r| {
            r.expires = r.issued.plus(RelayDescriptor::MAX_LIFETIME + 1)
        }),
    ];
    for (what, spoil) in breaks {
        let mut record = relay(&key());
        spoil(&mut record);
        assert!(
            RelayDescriptor::decode(&record.encode()).is_err(),
            "{what}: decoded"
        );
        assert!(record.sign(&key()).is_err(), "{what}: signed");
    }
    let another = IdentityKey::from_seed([2; 32]);
    assert!(relay(&key()).sign(&another).is_err(), "another's key");
}

fn keys(epochs: &[u32]) -> OnionKeys {
    let key = X25519Public([6; 32]);
    epochs.iter().map(|epoch| (*epoch, key)).collect()
}

fn signed(onion: OnionKeys) -> Result<RelayRecord, Error> {
    RelayRecord::sign(relay(&key()), 7, onion, &key())
}

#[test]
fn onion_keys_are_of_one_to_four_consecutive_epochs() {
    for right in [&[5][..], &[5, 6, 7, 8], &[u32::MAX - 1, u32::MAX]] {
        let record = signed(keys(right)).unwrap();
        assert_eq!(RelayRecord::decode(&record.encode()), Ok(record));
    }
    for wrong in [&[][..], &[5, 7], &[6, 5], &[5, 5]] {
        assert!(signed(keys(wrong)).is_err(), "{wrong:?}");
    }
    // Epochs after the last there is, and more keys than there may be.
    let last = signed(keys(&[u32::MAX])).unwrap().encode();
    let count_at = last.len() - 64 - 32 - 1;
    assert_eq!(last[count_at], 1);
    let mut past = last.clone();
    past[count_at] = 2;
    past.extend([0; 32]);
    assert!(matches!(
        RelayRecord::decode(&past),
        Err(Error::Malformed { .. })
    ));
    let mut many = signed(keys(&[5, 6, 7, 8])).unwrap().encode();
    let count_at = many.len() - 64 - 4 * 32 - 1;
    assert_eq!(usize::from(many[count_at]), MAX_ONION_KEYS);
    many[count_at] += 1;
    many.extend([0; 32]);
    assert!(matches!(
        RelayRecord::decode(&many),
        Err(Error::Limit { .. })
    ));
}

/// Nobody puts the keys of one of a relay's records beside the descriptor of another.
#[test]
fn keys_stay_with_their_descriptor() {
    let old = signed(keys(&[5])).unwrap();
    let mut descriptor = relay(&key());
    descriptor.version += 1;
    let descriptor = descriptor.sign(&key()).unwrap();
    let new = RelayRecord::sign(descriptor, 8, keys(&[6]), &key()).unwrap();
    assert_eq!((old.verify(NOW), new.verify(NOW)), (Ok(()), Ok(())));
    assert!(old.age() < new.age());
    let mixed = [
        RelayRecord {
            descriptor: new.descriptor.clone(),
            ..old.clone()
        },
        RelayRecord {
            descriptor: old.descriptor.clone(),
            ..new.clone()
        },
        RelayRecord {
            version: new.version,
            ..old.clone()
        },
        RelayRecord {
            signature: new.signature,
            ..old.clone()
        },
    ];
    for mixed in mixed {
        let read = RelayRecord::decode(&mixed.encode()).unwrap();
        assert!(matches!(
            read.verify(NOW),
            Err(Error::Authentication { .. })
        ));
        assert!(mixed.digest() != old.digest() && mixed.digest() != new.digest());
    }
    let another = IdentityKey::from_seed([2; 32]);
    assert!(RelayRecord::sign(relay(&key()), 7, keys(&[5]), &another).is_err());
}

/// What a descriptor's signature says does not make a record, and the other way round.
#[test]
fn signatures_of_descriptor_and_record_are_two() {
    let record = signed(keys(&[5])).unwrap();
    let mut turned = record.clone();
    turned.signature = record.descriptor.signature;
    turned.descriptor.signature = record.signature;
    assert!(turned.verify(NOW).is_err());
    assert!(turned.descriptor.verify(NOW).is_err());
}

#[test]
fn sizes_are_within_the_documented_bounds() {
    let mut relay = relay(&key());
    relay.addresses = vec!["[2001:db8::1]:65535".parse().unwrap(); MAX_ADDRESSES];
    relay.family = Some("f".repeat(32));
    relay.name = "n".repeat(32);
    relay.software = "s".repeat(32);
    let relay = relay.sign(&key()).unwrap();
    assert_eq!(relay.encode().len(), RelayDescriptor::MAX_ENCODED);
    let record = RelayRecord::sign(relay, 1, keys(&[1, 2, 3, 4]), &key()).unwrap();
    assert_eq!(record.encode().len(), RelayRecord::MAX_ENCODED);
    let heartbeat = heartbeat(&record);
    let registration = Registration { heartbeat, record };
    assert_eq!(registration.encode().len(), Registration::MAX_ENCODED);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_descriptor_survives(record in any_relay()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= RelayDescriptor::MAX_ENCODED);
        prop_assert_eq!(&RelayDescriptor::decode_and_verify(&bytes, record.issued), &Ok(record));
    }

    #[test]
    fn a_registration_survives(registration in any_registration()) {
        let read = Registration::decode(&registration.encode()).unwrap();
        prop_assert_eq!(&read, &registration);
        let issued = registration.record.descriptor.issued;
        prop_assert_eq!(read.record.verify(issued), Ok(()));
        let (link, session) = (link_secret().public(), session_secret());
        prop_assert_eq!(read.heartbeat.verify(&link, &session), Ok(()));
    }
}
