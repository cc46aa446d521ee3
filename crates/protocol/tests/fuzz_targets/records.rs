//! Signed records, the snapshot, and messages to and from the directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mixline_protocol::authorisation::{ENTRIES, Entry, LookupToken};
use mixline_protocol::directory::{
    MAX_MESSAGE, RefusalCode, Request, RequestBody, Response, ResponseBody,
};
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    Lease, LeaseRequest, NameRecord, Parameters, Registration, RelayDescriptor, ServiceDescriptor,
    Snapshot, TailOffer,
};
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;

use super::{Target, forge};

/// A record of any kind.
pub const RECORDS: Target = Target {
    name: "records",
    seeds: record_seeds,
    run: records,
};

/// A snapshot from anybody.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    seeds: || [0, 3].map(|relays| snapshot(relays).encode()).into(),
    run: any_snapshot,
};

/// A snapshot without its signature, which the directory then makes.
pub const SEALED_SNAPSHOT: Target = Target {
    name: "snapshot_sealed",
    seeds: || {
        let body = |relays| {
            let mut bytes = snapshot(relays).encode();
            bytes.truncate(bytes.len() - 64);
            bytes
        };
        [0, 3].map(body).into()
    },
    run: |data| {
        let signature = directory().sign("mixline/v1/snapshot", data);
        any_snapshot(&[data, &signature].concat())
    },
};

/// A request to the directory.
pub const REQUEST: Target = Target {
    name: "directory_request",
    seeds: request_seeds,
    run: request,
};

/// An answer of the directory, whose records are signed as they are in the seeds.
pub const RESPONSE: Target = Target {
    name: "directory_response",
    seeds: response_seeds,
    run: response,
};

/// What a relay has stored of its replay filter, without its checksum.
pub const REPLAY_MEMORY: Target = Target {
    name: "replay_memory",
    seeds: replay_seeds,
    run: replay_memory,
};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn directory() -> IdentityKey {
    IdentityKey::from_seed([1; 32])
}

fn key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

fn lease() -> Lease {
    let ipv4 = Ipv4Addr::new(10, 1, 2, 3);
    Lease::grant(ipv4, key().anonymous_id(), NOW.plus(600), &directory())
}

fn relay(n: u8) -> RelayDescriptor {
    let key = IdentityKey::from_seed([n; 32]);
    RelayDescriptor {
        id: key.relay_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        link: link().public(),
        onion: [(500_000, X25519Public([4; 32]))].into_iter().collect(),
        addresses: vec![
            SocketAddr::from(([198, 51, 100, 1], 7000)),
            SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 7000)),
        ],
        capacity: 5,
        load: 6,
        family: Some("red".into()),
        name: "relay".into(),
        software: "fuzz".into(),
        signature: [0; 64],
    }
    .sign(&key)
    .expect("a descriptor")
}

/// The link key of all relays.
fn link() -> X25519Secret {
    X25519Secret::from_bytes([3; 32])
}

/// Of the directory's sessions.
fn session() -> X25519Secret {
    X25519Secret::from_bytes([12; 32])
}

fn registration() -> Registration {
    Registration::new(relay(20), &link(), &session().public()).expect("a registration")
}

fn service(key: &IdentityKey, lease: Option<Lease>) -> ServiceDescriptor {
    let tail = PublishedTail {
        first: ShortId([7; 8]),
        alpha: [8; 32],
        gamma: [9; 16],
        beta: [10; 100],
        seed: [11; 16],
    };
    ServiceDescriptor {
        id: key.anonymous_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        session: X25519Public([12; 32]),
        effort: EffortTerms {
            seed: [13; 16],
            suggested: 1 << 12,
        },
        lease,
        tails: vec![TailOffer {
            tail,
            expires: NOW.plus(300),
        }],
        clients: lease.map(|_| (0..ENTRIES as u8).map(|n| Entry([n; 16])).collect()),
        signature: [0; 64],
    }
    .sign(key)
    .expect("a descriptor")
}

fn name() -> NameRecord {
    NameRecord {
        label: Label::new("name").expect("a label"),
        id: key().anonymous_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        signature: [0; 64],
    }
    .sign(&key())
    .expect("a record")
}

fn lease_request() -> LeaseRequest {
    LeaseRequest::new(NOW, Some(Ipv4Addr::new(10, 9, 8, 7)), &key())
}

fn snapshot(relays: u8) -> Snapshot {
    Snapshot {
        directory: directory().anonymous_id(),
        issued: NOW,
        valid_until: NOW.plus(600),
        parameters: Parameters::default(),
        relays: (0..relays).map(|n| relay(n + 20)).collect(),
        directory_service: service(&directory(), None),
        signature: [0; 64],
    }
    .sign(&directory())
    .expect("a snapshot")
}

fn record_seeds() -> Vec<Vec<u8>> {
    vec![
        relay(20).encode(),
        registration().encode(),
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
        read!(data, Registration, |registration: &Registration| {
            registration.verify_proof(&session()).is_ok()
                && registration.descriptor.verify(NOW).is_ok()
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
    let count = verified.iter().filter(|verified| **verified).count();
    // Kinds differ in their first byte, and a registration is longer than its descriptor, so nothing
    // passes for two.
    assert!(count <= 1);
    count == 1
}

fn any_snapshot(data: &[u8]) -> bool {
    let Ok(snapshot) = Snapshot::decode_and_verify(data, &directory().anonymous_id(), NOW) else {
        return false;
    };
    assert_eq!(snapshot.encode(), data);
    for relay in &snapshot.relays {
        assert!(snapshot.relay(&relay.short_id()).is_some());
    }
    true
}

fn request_seeds() -> Vec<Vec<u8>> {
    [
        RequestBody::Publish(service(&key(), Some(lease()))),
        RequestBody::LookupId(key().anonymous_id()),
        RequestBody::LookupName(Label::new("name").expect("a label")),
        RequestBody::LookupAddress(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3))),
        RequestBody::LookupAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        RequestBody::Lease(lease_request()),
        RequestBody::ClaimName(name()),
        RequestBody::NameOf(key().anonymous_id()),
        RequestBody::LookupListed(key().anonymous_id(), LookupToken([9; 16])),
    ]
    .into_iter()
    .map(|body| Request { id: 7, body }.encode())
    .collect()
}

fn request(data: &[u8]) -> bool {
    let Ok(request) = Request::decode(data) else {
        return false;
    };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(request.encode(), data);
    assert_eq!(Request::id_of(data), Some(request.id));
    true
}

fn response_seeds() -> Vec<Vec<u8>> {
    [
        ResponseBody::Done,
        ResponseBody::Descriptor(service(&key(), Some(lease()))),
        ResponseBody::Named {
            name: name(),
            descriptor: Some(service(&key(), None)),
        },
        ResponseBody::Named {
            name: name(),
            descriptor: None,
        },
        ResponseBody::Lease(lease()),
        ResponseBody::NotFound,
    ]
    .into_iter()
    .map(|body| Response { id: 7, body })
    .chain([Response::refused(
        7,
        RefusalCode::Malformed,
        "not like this",
    )])
    .map(|response| response.encode())
    .collect()
}

fn response(data: &[u8]) -> bool {
    let directory = directory().anonymous_id();
    let Ok(response) = Response::decode_and_verify(data, &directory, NOW) else {
        return false;
    };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(response.encode(), data);
    true
}

fn replay_seeds() -> Vec<Vec<u8>> {
    let now = Instant::now();
    let filter = ReplayFilter::new(4096, [1; 16], now).expect("a filter");
    let saved = |filter: &ReplayFilter| {
        let mut bytes = filter.save(now, NOW);
        bytes.truncate(bytes.len() - 32);
        bytes
    };
    let empty = saved(&filter);
    for tag in 0..5u8 {
        assert!(filter.check_and_set(&[tag; 16]));
    }
    vec![empty, saved(&filter)]
}

fn replay_memory(data: &[u8]) -> bool {
    let mut data = data.to_vec();
    // The number of blocks stands at 25; a filter may be of many gigabytes, which are not
    // wanted here.
    if let Some(front) = data.get_mut(25..30) {
        front.fill(0);
    }
    let bytes = [&data[..], &forge::sha256(&[&data])].concat();
    let Ok(filter) = ReplayFilter::load(&bytes, Instant::now(), NOW) else {
        return false;
    };
    let _ = filter.contains(&[3; 16]);
    let _ = filter.check_and_set(&[99; 16]);
    assert!(filter.fill().is_finite());
    true
}
