//! Networks of any shape.
#![allow(dead_code, reason = "each test uses some of it")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_endpoint_engine::clock::Now;
use mixline_endpoint_engine::testing::internals::relays::Network;
use mixline_protocol::epoch;
use mixline_protocol::identity::{IdentityKey, RelayId, X25519Public};
use mixline_protocol::records::{
    DirectoryEntry, ListedRelay, LogHead, Parameters, RelayDescriptor, RelayFlags,
    ServiceDescriptor, SharedRandom, Signatures, Snapshot,
};
use mixline_protocol::time::UnixTime;
use proptest::prelude::*;

pub const START: u64 = 1_800_000_000;

#[derive(Debug, Clone)]
pub struct Spec {
    pub network: u8,
    pub network6: Option<u8>,
    pub family: Option<u8>,
    pub capacity: u32,
    /// Which of the keys it has published: current, next.
    pub keys: (bool, bool),
}

pub fn plain(network: u8) -> Spec {
    Spec {
        network,
        network6: None,
        family: None,
        capacity: 100,
        keys: (true, true),
    }
}

pub fn spec() -> impl Strategy<Value = Spec> {
    (
        0u8..12,
        proptest::option::of(0u8..6),
        proptest::option::weighted(0.3, 0u8..4),
        prop_oneof![Just(0), 1u32..1000, Just(u32::MAX)],
        prop_oneof![8 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true))],
    )
        .prop_map(|(network, network6, family, capacity, keys)| Spec {
            network,
            network6,
            family,
            capacity,
            keys,
        })
}

pub fn key(number: usize) -> IdentityKey {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    IdentityKey::from_seed(seed)
}

pub fn id(number: usize) -> RelayId {
    key(number).relay_id()
}

/// A network of these relays at a time; `None` leaves a number out.
pub fn network_at(specs: &[Option<Spec>], now: UnixTime) -> Network {
    let parameters = Parameters::default();
    let current = epoch::current(now, parameters.epoch_seconds);
    let relays = specs.iter().enumerate().filter_map(|(number, spec)| {
        let spec = spec.as_ref()?;
        let low = u8::try_from(number % 250).unwrap();
        let mut addresses: Vec<SocketAddr> = vec![SocketAddr::from((
            [172, spec.network, number as u8, 2],
            7000,
        ))];
        if let Some(network) = spec.network6 {
            let ip: IpAddr = format!("3fff:{network:x}:0:{low:x}::2").parse().unwrap();
            addresses.push((ip, 7000).into());
        }
        let mut onion = mixline_protocol::records::OnionKeys::new();
        if spec.keys.0 {
            onion.push((current, X25519Public([low; 32])));
        }
        if spec.keys.1 {
            onion.push((current + 1, X25519Public([low.wrapping_add(1); 32])));
        }
        let mut link = [low; 32];
        link[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let descriptor = RelayDescriptor {
            id: id(number),
            version: 1,
            issued: now,
            expires: now.plus(3600),
            link: X25519Public(link),
            addresses,
            capacity: spec.capacity,
            family: spec.family.map(|family| format!("family{family}")),
            name: format!("relay{number}"),
            software: String::new(),
            signature: [0; 64],
        };
        Some(ListedRelay {
            capacity: spec.capacity,
            descriptor: descriptor.sign(&key(number)).unwrap(),
            onion,
            since: now,
            flags: RelayFlags::default(),
        })
    });
    let directory = IdentityKey::from_seed([9; 32]);
    let service = ServiceDescriptor {
        id: directory.anonymous_id(),
        version: 1,
        issued: now,
        expires: now.plus(3600),
        session: X25519Public([1; 32]),
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: Vec::new(),
        clients: None,
        signature: [0; 64],
    };
    let snapshot = Snapshot {
        network: directory.anonymous_id().into(),
        roster: 0,
        issued: now,
        valid_until: now.plus(3600),
        previous: Default::default(),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters,
        directories: vec![DirectoryEntry {
            service: Some(service.sign(&directory).unwrap()),
            ..DirectoryEntry::default()
        }],
        relays: relays.collect(),
        signatures: Signatures::default(),
    };
    Network::new(Arc::new(snapshot.sign(&directory).unwrap()))
}

pub fn network(specs: &[Spec]) -> Network {
    network_at(
        &specs.iter().cloned().map(Some).collect::<Vec<_>>(),
        UnixTime(START),
    )
}

pub fn now(seconds: u64) -> Now {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    Now {
        instant: origin + Duration::from_secs(seconds),
        unix_ms: (START + seconds) * 1000,
    }
}
