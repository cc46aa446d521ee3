//! Records of relays and of anonymous IDs, and snapshots of all of them.

use mixline_protocol::records::{
    Heartbeat, Lease, LeaseRequest, NameRecord, Registration, RelayDescriptor, RelayRecord, Roster,
    ServiceDescriptor, Signatures, Snapshot,
};
use mixline_protocol::time::UnixTime;

use super::samples::*;
use super::{Target, fit};

/// A record of any kind that one has signed.
pub const RECORDS: Target = Target {
    name: "records",
    seeds: record_seeds,
    run: records,
};

/// What relays send to a directory again and again.
pub const REGISTRATION: Target = Target {
    name: "registration",
    seeds: || {
        let registration = registration();
        vec![
            registration.encode(),
            registration.heartbeat.encode(),
            registration.record.encode(),
        ]
    },
    run: any_registration,
};

/// A snapshot from anybody.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    seeds: || {
        let snapshots = [
            snapshot(0),
            snapshot(3),
            snapshot_of_four(0),
            snapshot_of_four(2),
        ];
        snapshots.map(|snapshot| snapshot.encode()).into()
    },
    run: |data| any_snapshot(data, &alone()) || any_snapshot(data, &roster()),
};

/// The body of a snapshot, which directories then sign.
pub const SEALED_SNAPSHOT: Target = Target {
    name: "snapshot_sealed",
    seeds: || {
        let snapshots = [
            snapshot(0),
            snapshot(3),
            snapshot_of_four(0),
            snapshot_of_four(2),
        ];
        snapshots.map(|snapshot| snapshot.encode_body()).into()
    },
    run: sealed_snapshot,
};

fn alone() -> Roster {
    Roster::alone(directory().anonymous_id())
}

fn record_seeds() -> Vec<Vec<u8>> {
    vec![
        relay(20).encode(),
        service(&key(), Some(lease())).encode(),
        service(&key(), None).encode(),
        name().encode(),
        lease().encode(),
        lease_request().encode(),
    ]
}

/// Reads, writes again, verifies; the first says whether it was accepted.
macro_rules! read {
    ($bytes:expr, $kind:ty, $verified:expr) => {
        match <$kind>::decode($bytes) {
            Ok(record) => {
                assert_eq!(record.encode(), $bytes, "{record:?}");
                $verified(&record)
            }
            Err(_) => false,
        }
    };
}

fn records(data: &[u8]) -> bool {
    let directory = directory().anonymous_id();
    let verified = [
        read!(data, RelayDescriptor, |record: &RelayDescriptor| {
            record.verify(NOW).is_ok()
        }),
        read!(data, ServiceDescriptor, |record: &ServiceDescriptor| {
            record.verify(NOW).is_ok()
        }),
        read!(data, NameRecord, |record: &NameRecord| {
            record.verify(NOW).is_ok()
        }),
        read!(data, Lease, |record: &Lease| {
            record.verify(&directory, NOW).is_ok()
        }),
        read!(data, LeaseRequest, |record: &LeaseRequest| {
            record.verify(NOW).is_ok()
        }),
    ];
    one_of(&verified)
}

/// Nothing passes for two kinds.
fn one_of(verified: &[bool]) -> bool {
    let count = verified.iter().filter(|verified| **verified).count();
    assert!(count <= 1);
    count == 1
}

fn any_registration(data: &[u8]) -> bool {
    let link = link().public();
    let verified = [
        read!(data, RelayRecord, |record: &RelayRecord| {
            record.verify(NOW).is_ok()
        }),
        read!(data, Heartbeat, |heartbeat: &Heartbeat| {
            heartbeat.verify(&link, &session()).is_ok()
        }),
        read!(data, Registration, |registration: &Registration| {
            let Registration { heartbeat, record } = registration;
            assert_eq!(heartbeat.record, record.digest());
            let link = record.descriptor.link;
            heartbeat.verify(&link, &session()).is_ok() && record.verify(NOW).is_ok()
        }),
    ];
    one_of(&verified)
}

fn any_snapshot(data: &[u8], roster: &Roster) -> bool {
    let Ok(snapshot) = Snapshot::decode_and_verify(data, roster, NOW) else {
        return false;
    };
    assert_eq!(snapshot.encode(), data);
    assert!(snapshot.signatures.count() >= roster.quorum());
    for relay in &snapshot.relays {
        assert!(snapshot.relay(&relay.short_id()).is_some());
        assert!(
            relay
                .onion
                .first()
                .is_some_and(|(epoch, _)| *epoch >= snapshot.first_epoch())
        );
    }
    // A reader that holds it finds the same.
    let again = Snapshot::decode_and_verify_after(data, roster, NOW, Some(&snapshot));
    assert_eq!(again.as_ref(), Ok(&snapshot));
    true
}

fn sealed_snapshot(body: &[u8]) -> bool {
    // Network and time are signed apart, as they stand in the body.
    let issued = UnixTime(u64::from_be_bytes(fit(body.get(36..).unwrap_or_default())));
    let digest = Snapshot::digest_of(body);
    let (alone, four) = (alone(), roster());
    let mut signatures = Signatures::default();
    let signature = Snapshot::signature(&alone.network(), issued, &digest, &directory());
    signatures.put(0, signature);
    if any_snapshot(&Snapshot::with_signatures(&signatures, body), &alone) {
        return true;
    }
    for index in 0..3 {
        let signature = Snapshot::signature(&four.network(), issued, &digest, &online(index));
        signatures.put(index, signature);
    }
    any_snapshot(&Snapshot::with_signatures(&signatures, body), &four)
}
