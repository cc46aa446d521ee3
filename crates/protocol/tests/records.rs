//! Records of all kinds: every one survives encoding, and nothing else gets through.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod records_common;

use std::net::{Ipv4Addr, SocketAddr};

use mixline_protocol::Error;
use mixline_protocol::authorisation::LookupToken;
use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::records::{
    CLOCK_SKEW, Lease, LeaseRequest, MAX_ADDRESSES, MAX_SNAPSHOT, MAX_TAILS, NameRecord,
    RelayDescriptor, ServiceDescriptor, Snapshot,
};
use mixline_protocol::time::UnixTime;
use proptest::prelude::*;
use records_common::*;

/// A decoder that checks everything, its result thrown away.
type Check = fn(&[u8]) -> Result<(), Error>;

fn directory_id() -> AnonymousId {
    directory_key().anonymous_id()
}

const CHECKS: [(&str, Check); 6] = [
    ("relay", |b| {
        RelayDescriptor::decode_and_verify(b, NOW).map(drop)
    }),
    ("service", |b| {
        ServiceDescriptor::decode_and_verify(b, NOW).map(drop)
    }),
    ("name", |b| NameRecord::decode_and_verify(b, NOW).map(drop)),
    ("lease", |b| {
        Lease::decode_and_verify(b, &directory_id(), NOW).map(drop)
    }),
    ("lease request", |b| {
        LeaseRequest::decode_and_verify(b, NOW).map(drop)
    }),
    ("snapshot", |b| {
        Snapshot::decode_and_verify(b, &directory_id(), NOW).map(drop)
    }),
];

fn samples() -> Vec<(&'static str, Check, Vec<u8>)> {
    let bytes = [
        relay(&IdentityKey::from_seed([1; 32])).encode(),
        service(&IdentityKey::from_seed([2; 32]), 2, true).encode(),
        name(&IdentityKey::from_seed([2; 32]), "freespeech").encode(),
        lease(&IdentityKey::from_seed([2; 32])).encode(),
        LeaseRequest::new(
            NOW,
            Some(Ipv4Addr::new(10, 1, 2, 3)),
            &IdentityKey::from_seed([2; 32]),
        )
        .encode(),
        snapshot(3).encode(),
    ];
    CHECKS
        .iter()
        .zip(bytes)
        .map(|((what, check), bytes)| (*what, *check, bytes))
        .collect()
}

#[test]
fn whole_records_are_taken() {
    for (what, check, bytes) in samples() {
        assert_eq!(check(&bytes), Ok(()), "{what}");
    }
}

#[test]
fn a_flipped_bit_is_refused() {
    for (what, check, mut bytes) in samples() {
        // Each bit of the short ones; of a snapshot enough to hit every field.
        let step = if bytes.len() > 1000 { 7 } else { 1 };
        for bit in (0..bytes.len() * 8).step_by(step) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes).is_err(), "{what}: bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn truncated_and_extended_records_are_refused() {
    for (what, check, mut bytes) in samples() {
        for end in 0..bytes.len() {
            assert!(check(&bytes[..end]).is_err(), "{what}: {end} bytes");
        }
        bytes.push(0);
        assert!(check(&bytes).is_err(), "{what}: one byte more");
    }
}

#[test]
fn a_record_is_not_one_of_another_kind() {
    for (what, _, bytes) in samples() {
        for (other, check) in CHECKS {
            assert_eq!(check(&bytes).is_ok(), what == other, "{what} as {other}");
        }
    }
}

#[test]
fn another_version_of_the_format_is_named() {
    for (what, check, mut bytes) in samples() {
        bytes[1] = 2;
        assert!(
            matches!(check(&bytes), Err(Error::Version { .. })),
            "{what}"
        );
    }
}

#[test]
fn a_record_lives_from_issue_to_expiry() {
    let record = relay(&IdentityKey::from_seed([1; 32]));
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

#[test]
fn a_lease_request_is_fresh_or_refused() {
    let request = LeaseRequest::new(NOW, None, &IdentityKey::from_seed([2; 32]));
    assert_eq!(request.verify(NOW.plus(2 * CLOCK_SKEW - 1)), Ok(()));
    assert!(matches!(
        request.verify(NOW.plus(2 * CLOCK_SKEW)),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        request.verify(NOW.minus(CLOCK_SKEW + 1)),
        Err(Error::NotYetValid { .. })
    ));
}

#[test]
fn only_the_directory_grants_leases() {
    let key = IdentityKey::from_seed([2; 32]);
    let own = Lease::grant(
        Ipv4Addr::new(10, 1, 2, 3),
        key.anonymous_id(),
        NOW.plus(9),
        &key,
    );
    assert!(matches!(
        own.verify(&directory_id(), NOW),
        Err(Error::Authentication { .. })
    ));
    // And it is for one ID: in another's descriptor it does not hold.
    let mut stolen = lease(&key);
    stolen.id = AnonymousId([9; 32]);
    assert!(matches!(
        stolen.verify(&directory_id(), NOW),
        Err(Error::Authentication { .. })
    ));
}

#[test]
fn a_snapshot_says_what_is_wrong_with_it() {
    let snapshot = snapshot(2);
    let bytes = snapshot.encode();
    let other = AnonymousId([3; 32]);
    let read = |id, now| Snapshot::decode_and_verify(&bytes, &id, now).map(drop);
    let id = directory_id();
    assert_eq!(read(id, NOW), Ok(()));
    assert!(matches!(
        read(other, NOW),
        Err(Error::Authentication { .. })
    ));
    assert!(matches!(
        read(id, NOW.plus(3600)),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        read(id, NOW.minus(3600)),
        Err(Error::NotYetValid { .. })
    ));
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        Snapshot::decode_and_verify(&bytes, &id, NOW).map(drop)
    };
    for at in [40, bytes.len() / 2, bytes.len() - 1] {
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
    let short = doubled.relays[2].short_id();
    assert_eq!(
        doubled.relay(&short).map(|r| r.id),
        Some(doubled.relays[2].id)
    );
    assert!(doubled.relay(&relay(&key).short_id()).is_none());
    doubled.relays.push(doubled.relays[0].clone());
    assert!(matches!(
        doubled.sign(&directory_key()),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn a_directory_cannot_make_relays_up() {
    // A descriptor that the relay did not sign, in a snapshot that the directory did.
    let mut forged = snapshot(2);
    forged.relays[0].capacity += 1;
    let bytes = forged.sign(&directory_key()).unwrap().encode();
    assert!(matches!(
        Snapshot::decode_and_verify(&bytes, &directory_id(), NOW),
        Err(Error::Authentication { .. })
    ));
}

type Spoil = fn(&mut RelayDescriptor);

#[test]
fn sign_refuses_what_decode_would() {
    let key = IdentityKey::from_seed([1; 32]);
    let breaks: [(&str, Spoil); 12] = [
        ("no key", |r| r.onion.clear()),
        ("keys out of order", |r| r.onion.swap(0, 1)),
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
        let mut record = relay(&key);
        spoil(&mut record);
        assert!(
            RelayDescriptor::decode(&record.encode()).is_err(),
            "{what}: decoded"
        );
        assert!(record.sign(&key).is_err(), "{what}: signed");
    }
    assert!(
        relay(&key).sign(&IdentityKey::from_seed([2; 32])).is_err(),
        "another's key"
    );
}

#[test]
fn a_list_of_clients_is_full_and_ascends() {
    let key = IdentityKey::from_seed([1; 32]);
    let right = entries([9; 8]);
    let (mut twice, mut turned) = (right.clone(), right.clone());
    twice[1] = twice[0];
    turned.swap(3, 4);
    for (wrong, what) in [
        (Vec::new(), "empty"),
        (right[1..].to_vec(), "one too few"),
        (twice, "one twice"),
        (turned, "out of order"),
    ] {
        let mut record = service(&key, 1, true);
        record.clients = Some(wrong);
        assert!(
            ServiceDescriptor::decode(&record.encode()).is_err(),
            "{what}: decoded"
        );
        assert!(record.sign(&key).is_err(), "{what}: signed");
    }
    let token = LookupToken([5; 16]);
    let mut record = service(&key, 1, true);
    assert!(record.is_for(None) && record.is_for(Some(&token)));
    record.clients = Some(right.clone());
    assert!(!record.is_for(None) && !record.is_for(Some(&token)));
    record.clients = Some([&[token.entry(&record.id)], &right[1..]].concat());
    assert!(!record.is_for(None) && record.is_for(Some(&token)));
}

#[test]
fn sizes_are_within_the_documented_bounds() {
    let key = IdentityKey::from_seed([1; 32]);
    let mut largest = service(&key, MAX_TAILS, true);
    largest.clients = Some(entries([9; 8]));
    let largest = largest.sign(&key).unwrap().encode();
    assert_eq!(largest.len(), ServiceDescriptor::MAX_ENCODED);
    let mut too_many = service(&key, MAX_TAILS, true);
    too_many.tails.push(too_many.tails[0]);
    assert!(matches!(too_many.sign(&key), Err(Error::Limit { .. })));
    let mut relay = relay(&key);
    relay.onion = [(1, relay.link), (2, relay.link), (3, relay.link)].into();
    relay.addresses = vec!["[2001:db8::1]:65535".parse().unwrap(); MAX_ADDRESSES];
    relay.family = Some("f".repeat(32));
    relay.name = "n".repeat(32);
    relay.software = "s".repeat(32);
    assert_eq!(
        relay.sign(&key).unwrap().encode().len(),
        RelayDescriptor::MAX_ENCODED
    );
    let too_long = vec![0; MAX_SNAPSHOT + 1];
    assert!(matches!(
        Snapshot::decode_and_verify(&too_long, &directory_id(), NOW),
        Err(Error::Limit { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn relay_round_trip(record in any_relay()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= RelayDescriptor::MAX_ENCODED);
        prop_assert_eq!(&RelayDescriptor::decode_and_verify(&bytes, record.issued), &Ok(record));
    }

    #[test]
    fn service_round_trip(record in any_service()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= ServiceDescriptor::MAX_ENCODED);
        let decoded = ServiceDescriptor::decode_and_verify(&bytes, record.issued);
        prop_assert_eq!(&decoded, &Ok(record));
    }

    #[test]
    fn name_round_trip(record in any_name()) {
        let bytes = record.encode();
        prop_assert_eq!(NameRecord::decode_and_verify(&bytes, record.issued), Ok(record));
    }

    #[test]
    fn lease_round_trip(seed: [u8; 32], ip: u32, expires in 1..=u64::MAX, wanted: Option<u32>) {
        let id = IdentityKey::from_seed(seed).anonymous_id();
        let lease = Lease::grant(Ipv4Addr::from_bits(ip), id, UnixTime(expires), &directory_key());
        let decoded = Lease::decode_and_verify(&lease.encode(), &directory_id(), UnixTime(0));
        prop_assert_eq!(decoded, Ok(lease));
        let wanted = wanted.map(Ipv4Addr::from_bits);
        let request = LeaseRequest::new(NOW, wanted, &IdentityKey::from_seed(seed));
        let decoded = LeaseRequest::decode_and_verify(&request.encode(), NOW);
        prop_assert_eq!(decoded, Ok(request));
    }

    #[test]
    fn snapshot_round_trip(snapshot in any_snapshot()) {
        let bytes = snapshot.encode();
        prop_assert!(bytes.len() <= MAX_SNAPSHOT);
        let decoded = Snapshot::decode_and_verify(&bytes, &directory_id(), snapshot.issued);
        prop_assert_eq!(decoded, Ok(snapshot));
    }

    /// Whatever the form lets through is encoded to the same bytes again: one record, one
    /// encoding.
    #[test]
    fn noise_is_refused_or_canonical(
        which in 0usize..6,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        const KINDS: [u8; 6] = [1, 2, 3, 4, 5, 6];
        for (at, value) in [KINDS[which], 1].into_iter().enumerate() {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        prop_assert!(CHECKS[which].1(&bytes).is_err());
        if let Ok(record) = RelayDescriptor::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
        if let Ok(record) = ServiceDescriptor::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
        if let Ok(record) = NameRecord::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
        if let Ok(record) = Lease::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
        if let Ok(record) = LeaseRequest::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes.clone());
        }
    }

    /// The same for records with a byte changed, which get further than noise.
    #[test]
    fn a_changed_record_is_refused_or_canonical(
        record in any_service(),
        relay in any_relay(),
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut bytes = record.encode();
        let index = at.index(bytes.len());
        bytes[index] = value;
        if let Ok(changed) = ServiceDescriptor::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes);
        }
        let mut bytes = relay.encode();
        let index = at.index(bytes.len());
        bytes[index] = value;
        if let Ok(changed) = RelayDescriptor::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes);
        }
    }

    /// A directory that signs nonsense gets an error, not a panic.
    #[test]
    fn signed_noise_is_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = vec![6, 1];
        bytes.extend(directory_id().0);
        bytes.extend(NOW.0.to_be_bytes());
        bytes.extend(NOW.plus(600).0.to_be_bytes());
        bytes.extend(body);
        let signature = directory_key().sign("mixline/v1/snapshot", &bytes);
        bytes.extend(signature);
        let read = Snapshot::decode_and_verify(&bytes, &directory_id(), NOW);
        let authentic = !matches!(read, Err(Error::Authentication { what: "mixline/v1/snapshot" }));
        prop_assert!(authentic && read.is_err());
    }
}
