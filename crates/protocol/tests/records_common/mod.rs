//! Records to test with, fixed and arbitrary.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod arbitrary;
pub mod directories;

use std::net::{Ipv4Addr, SocketAddr};

use mixline_protocol::authorisation::{ENTRIES, Entry};
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    DirectoryEntry, Heartbeat, Lease, ListedRelay, LogHead, NameRecord, OnionKeys, Parameters,
    Registration, RelayDescriptor, RelayFlags, RelayRecord, ServiceDescriptor, SharedRandom,
    Signatures, Snapshot, TailOffer,
};
use mixline_protocol::time::UnixTime;

/// When the tests take place.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The directory of the tests.
pub fn directory_key() -> IdentityKey {
    IdentityKey::from_seed([99; 32])
}

/// The secret of the link key of all relays.
pub fn link_secret() -> X25519Secret {
    X25519Secret::from_bytes([5; 32])
}

/// The secret of the session key of the directory that relays register with.
pub fn session_secret() -> X25519Secret {
    X25519Secret::from_bytes([8; 32])
}

/// A relay with an address of each family.
pub fn relay(key: &IdentityKey) -> RelayDescriptor {
    RelayDescriptor {
        id: key.relay_id(),
        version: NOW.0 * 1000,
        issued: NOW,
        expires: NOW.plus(3600),
        link: link_secret().public(),
        addresses: vec![
            SocketAddr::from(([172, 21, 0, 2], 7000)),
            "[3fff:1::2]:7000".parse().unwrap(),
        ],
        capacity: 100_000,
        family: Some("red".into()),
        name: "relay1".into(),
        software: "mixline-relay 0.1.0".into(),
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
}

/// Two onion keys.
pub fn onion() -> OnionKeys {
    [
        (500_000, X25519Public([6; 32])),
        (500_001, X25519Public([7; 32])),
    ]
    .into_iter()
    .collect()
}

/// What the relay registers.
pub fn relay_record(key: &IdentityKey) -> RelayRecord {
    RelayRecord::sign(relay(key), NOW.0 * 1000, onion(), key).unwrap()
}

/// A heartbeat that says that a relay has this record.
pub fn heartbeat(record: &RelayRecord) -> Heartbeat {
    let (link, session) = (link_secret(), session_secret().public());
    let (relay, digest) = (record.descriptor.id, record.digest());
    Heartbeat::new(relay, NOW.0 * 1000, (7, false), digest, (&link, &session)).unwrap()
}

/// What the relay registers with.
pub fn registration(key: &IdentityKey) -> Registration {
    let record = relay_record(key);
    Registration {
        heartbeat: heartbeat(&record),
        record,
    }
}

/// The relay as it is listed.
pub fn listed(descriptor: RelayDescriptor) -> ListedRelay {
    ListedRelay {
        capacity: descriptor.capacity,
        descriptor,
        onion: onion(),
        since: NOW.minus(3600),
        flags: RelayFlags { ring: true },
    }
}

/// A tail of no relay in particular.
pub fn tail(n: u8) -> TailOffer {
    TailOffer {
        tail: PublishedTail {
            first: ShortId([n; 8]),
            alpha: [n.wrapping_add(1); 32],
            gamma: [n.wrapping_add(2); 16],
            beta: [n.wrapping_add(3); 100],
            seed: [n.wrapping_add(4); 16],
        },
        expires: NOW.plus(1800),
    }
}

/// The lease of 10.1.2.3 to the key's ID.
pub fn lease(key: &IdentityKey) -> Lease {
    let ipv4 = Ipv4Addr::new(10, 1, 2, 3);
    Lease::grant(ipv4, key.anonymous_id(), NOW.plus(86_400), &directory_key())
}

/// A service.
pub fn service(key: &IdentityKey, tails: usize, leased: bool) -> ServiceDescriptor {
    ServiceDescriptor {
        id: key.anonymous_id(),
        version: NOW.0 * 1000,
        issued: NOW,
        expires: NOW.plus(3600),
        session: X25519Public([8; 32]),
        effort: EffortTerms {
            seed: [9; 16],
            suggested: 1 << 12,
        },
        lease: leased.then(|| lease(key)),
        tails: (0..tails).map(|n| tail(n as u8)).collect(),
        clients: None,
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
}

/// The key's ID has this name.
pub fn name(key: &IdentityKey, label: &str) -> NameRecord {
    NameRecord {
        label: Label::new(label).unwrap(),
        id: key.anonymous_id(),
        version: NOW.0 * 1000,
        issued: NOW,
        expires: NOW.plus(86_400),
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
}

/// A snapshot of some relays, with a directory that has two tails.
pub fn snapshot(relays: u8) -> Snapshot {
    let key = directory_key();
    Snapshot {
        network: key.anonymous_id().into(),
        roster: 0,
        issued: NOW,
        valid_until: NOW.plus(600),
        previous: Default::default(),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters: Parameters::default(),
        directories: vec![DirectoryEntry {
            service: Some(service(&key, 2, false)),
            ..DirectoryEntry::default()
        }],
        relays: (0..relays)
            .map(|n| listed(relay(&IdentityKey::from_seed([n + 10; 32]))))
            .collect(),
        signatures: Signatures::default(),
    }
    .sign(&key)
    .unwrap()
}

/// Entries of a list of clients, as a descriptor has them.
pub fn entries(seed: [u8; 8]) -> Vec<Entry> {
    let numbered = |n: u8| Entry([[n; 8], seed].concat().try_into().unwrap());
    (0..ENTRIES as u8).map(numbered).collect()
}
