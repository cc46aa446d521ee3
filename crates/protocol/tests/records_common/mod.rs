//! Records to test with, fixed and arbitrary.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{Ipv4Addr, SocketAddr};

use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::authorisation::{ENTRIES, Entry};
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    Lease, NameRecord, Parameters, RelayDescriptor, ServiceDescriptor, Snapshot, TailOffer,
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

/// A relay with two onion keys and an address of each family.
pub fn relay(key: &IdentityKey) -> RelayDescriptor {
    RelayDescriptor {
        id: key.relay_id(),
        version: NOW.0 * 1000,
        issued: NOW,
        expires: NOW.plus(3600),
        link: X25519Public([5; 32]),
        onion: [
            (500_000, X25519Public([6; 32])),
            (500_001, X25519Public([7; 32])),
        ]
        .into_iter()
        .collect(),
        addresses: vec![
            SocketAddr::from(([172, 21, 0, 2], 7000)),
            "[3fff:1::2]:7000".parse().unwrap(),
        ],
        capacity: 100_000,
        load: 17,
        family: Some("red".into()),
        name: "relay1".into(),
        software: "mixline-relay 0.1.0".into(),
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
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
        directory: key.anonymous_id(),
        issued: NOW,
        valid_until: NOW.plus(600),
        parameters: Parameters::default(),
        relays: (0..relays)
            .map(|n| relay(&IdentityKey::from_seed([n + 10; 32])))
            .collect(),
        directory_service: service(&key, 2, false),
        signature: [0; 64],
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
        onion in proptest::collection::btree_map(any::<u32>(), any::<[u8; 32]>(), 1..=3),
        v4 in vec((1u8..224, any::<[u8; 3]>(), 1..=u16::MAX), 1..=2),
        v6 in vec((0x2000u16..0x4000, any::<[u16; 7]>(), 1..=u16::MAX), 0..=2),
        capacity: u32,
        load: u32,
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
            onion: onion.into_iter().map(|(epoch, key)| (epoch, X25519Public(key))).collect(),
            addresses: v4.into_iter().map(ipv4).chain(v6.into_iter().map(ipv6)).collect(),
            capacity,
            load,
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
        relays in vec(any_relay(), 0..5),
        tails in vec(any_tail(), 0..=8),
        life in 1..=Snapshot::MAX_LIFETIME,
        epoch_seconds in 1..=u32::MAX,
        grace_seconds: u32,
        relay_timeout_s: u32,
        length in 8u8..=22,
    ) -> Snapshot {
        let key = directory_key();
        let mut directory_service = service(&key, 0, false);
        directory_service.tails = tails;
        Snapshot {
            directory: key.anonymous_id(),
            issued: NOW,
            valid_until: NOW.plus(life),
            parameters: Parameters {
                epoch_seconds,
                grace_seconds,
                network: VirtualNetwork { prefix: Ipv4Addr::new(10, 0, 0, 0), length },
                relay_timeout_s,
            },
            relays,
            directory_service: directory_service.sign(&key).unwrap(),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}
