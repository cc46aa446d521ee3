//! Records to test with, fixed and arbitrary.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{Ipv4Addr, SocketAddr};

use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::authorisation::{ENTRIES, Entry};
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{Digest, IdentityKey, ShortId, X25519Public};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    DirectoryEntry, Lease, ListedRelay, LogHead, NameRecord, OnionKeys, Parameters,
    RelayDescriptor, RelayFlags, RelayRecord, ServiceDescriptor, SharedRandom, Signatures,
    Snapshot, TailOffer,
};
use mixline_protocol::time::UnixTime;
use proptest::collection::vec;
use proptest::prelude::*;

/// When the tests take place.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The directory of the tests.
pub fn directory_key() -> IdentityKey {
    IdentityKey::from_seed([99; 32])
}

/// A relay with an address of each family.
pub fn relay(key: &IdentityKey) -> RelayDescriptor {
    RelayDescriptor {
        id: key.relay_id(),
        version: NOW.0 * 1000,
        issued: NOW,
        expires: NOW.plus(3600),
        link: X25519Public([5; 32]),
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

prop_compose! {
    /// Any relay that can be signed.
    pub fn any_relay()(
        seed: [u8; 32],
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=RelayDescriptor::MAX_LIFETIME,
        link: [u8; 32],
        v4 in vec((1u8..224, any::<[u8; 3]>(), 1..=u16::MAX), 1..=2),
        v6 in vec((0x2000u16..0x4000, any::<[u16; 7]>(), 1..=u16::MAX), 0..=2),
        capacity: u32,
        family in proptest::option::of("[a-zA-Z0-9-]{1,32}"),
        name in "[a-zA-Z0-9-]{1,32}",
        software in "[ -~]{0,32}",
    ) -> RelayDescriptor {
        let key = IdentityKey::from_seed(seed);
        let ipv6 = |(front, rest, port): (u16, [u16; 7], u16)| {
            let mut segments = [front; 8];
            segments[1..].copy_from_slice(&rest);
            SocketAddr::from((segments, port))
        };
        let ipv4 = |(front, [b, c, d], port): (u8, [u8; 3], u16)| {
            SocketAddr::from(([front, b, c, d], port))
        };
        RelayDescriptor {
            id: key.relay_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            link: X25519Public(link),
            addresses: v4.into_iter().map(ipv4).chain(v6.into_iter().map(ipv6)).collect(),
            capacity,
            family,
            name,
            software,
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any onion keys, the first within so many epochs from one.
    pub fn any_onion(first: u32, skipped: u32)(
        skipped in 0..=skipped,
        keys in vec(any::<[u8; 32]>(), 1..=4),
    ) -> OnionKeys {
        let epochs = first.saturating_add(skipped).min(u32::MAX - 4)..;
        epochs.zip(keys).map(|(epoch, key)| (epoch, X25519Public(key))).collect()
    }
}

prop_compose! {
    fn any_tail()(
        first: [u8; 8],
        alpha: [u8; 32],
        gamma: [u8; 16],
        beta in vec(any::<u8>(), 100),
        seed: [u8; 16],
        expires: u32,
    ) -> TailOffer {
        let beta = beta.try_into().unwrap();
        TailOffer {
            tail: PublishedTail { first: ShortId(first), alpha, gamma, beta, seed },
            expires: UnixTime(expires.into()),
        }
    }
}

/// Entries of a list of clients, as a descriptor has them.
pub fn entries(seed: [u8; 8]) -> Vec<Entry> {
    let numbered = |n: u8| Entry([[n; 8], seed].concat().try_into().unwrap());
    (0..ENTRIES as u8).map(numbered).collect()
}

prop_compose! {
    /// Any service that can be signed.
    pub fn any_service()(
        seed: [u8; 32],
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=ServiceDescriptor::MAX_LIFETIME,
        session: [u8; 32],
        lease: Option<(u32, u64)>,
        effort in (any::<[u8; 16]>(), prop::option::of(0..32u32)),
        tails in vec(any_tail(), 0..=8),
        clients: Option<[u8; 8]>,
    ) -> ServiceDescriptor {
        let key = IdentityKey::from_seed(seed);
        let grant = |(ip, expires)| {
            let ip = Ipv4Addr::from_bits(ip);
            Lease::grant(ip, key.anonymous_id(), UnixTime(expires), &directory_key())
        };
        ServiceDescriptor {
            id: key.anonymous_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            session: X25519Public(session),
            effort: EffortTerms {
                seed: effort.0,
                suggested: effort.1.map_or(0, |exponent| 1 << exponent),
            },
            lease: lease.map(grant),
            tails,
            clients: clients.map(entries),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any name record that can be signed.
    pub fn any_name()(
        seed: [u8; 32],
        label in "[a-z0-9]([a-z0-9]{0,38}[a-z0-9])?",
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=NameRecord::MAX_LIFETIME,
    ) -> NameRecord {
        let key = IdentityKey::from_seed(seed);
        NameRecord {
            label: Label::new(&label).unwrap(),
            id: key.anonymous_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any snapshot that can be signed, now.
    pub fn any_snapshot()(
        epoch_seconds in 1..=u32::MAX,
    )(
        epoch_seconds in Just(epoch_seconds),
        relays in vec(
            (any_relay(), any_onion((NOW.0 / u64::from(epoch_seconds)) as u32, 15), any::<u32>(), any::<bool>()),
            0..5,
        ),
        tails in vec(any_tail(), 0..=8),
        life in 1..=Snapshot::MAX_LIFETIME,
        grace_seconds: u32,
        relay_timeout_s: u32,
        period_seconds in 1..=u32::MAX,
        length in 8u8..=22,
        digests: [[u8; 32]; 5],
        numbers: [u64; 3],
        commitment: bool,
    ) -> Snapshot {
        let key = directory_key();
        let mut own = service(&key, 0, false);
        own.tails = tails;
        let [a, b, c, d, e] = digests.map(Digest);
        Snapshot {
            network: key.anonymous_id().into(),
            roster: 0,
            issued: NOW,
            valid_until: NOW.plus(life),
            previous: (UnixTime(numbers[0]), a),
            log: LogHead { size: numbers[1], root: b },
            random: SharedRandom { period: numbers[2], current: c, next: d, chain: e },
            parameters: Parameters {
                epoch_seconds,
                grace_seconds,
                network: VirtualNetwork { prefix: Ipv4Addr::new(10, 0, 0, 0), length },
                relay_timeout_s,
                period_seconds,
            },
            directories: vec![DirectoryEntry {
                commitment: commitment.then_some(a),
                service: Some(own.sign(&key).unwrap()),
                ..DirectoryEntry::default()
            }],
            relays: relays
                .into_iter()
                .map(|(descriptor, onion, capacity, ring)| ListedRelay {
                    descriptor,
                    onion,
                    capacity,
                    since: UnixTime(capacity.into()),
                    flags: RelayFlags { ring },
                })
                .collect(),
            signatures: Signatures::default(),
        }
        .sign(&key)
        .unwrap()
    }
}
