//! Every decision of the registry, and records for the tests of other parts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mixline_protocol::address::{VirtualNetwork, ipv4_candidate, ipv6};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    CLOCK_SKEW, Heartbeat, Lease, LeaseRequest, NameRecord, Parameters, Registration,
    RelayDescriptor, RelayRecord, ServiceDescriptor, TailOffer,
};
use mixline_protocol::time::UnixTime;

mod leases;
mod names;
mod places;
mod relays;
mod services;

use super::*;
use crate::store::{Entry, Outcome, RedbStore, Transaction};

/// When the tests take place.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The directory of the tests, seed 99.
pub fn directory_key() -> IdentityKey {
    IdentityKey::from_seed([99; 32])
}

/// A registry over a fresh store.
pub fn registry() -> Registry {
    open(Box::new(RedbStore::in_memory().unwrap()), Limits::default())
}

fn open(store: Box<dyn Store>, limits: Limits) -> Registry {
    open_at(store, limits, NOW)
}

/// A registry that is opened at another time: it has heard of nobody before.
fn open_at(store: Box<dyn Store>, limits: Limits, now: UnixTime) -> Registry {
    let admission = AdmissionPolicy {
        private_addresses: false,
        check_source: true,
    };
    let key = Arc::new(directory_key());
    Registry::open(store, key, Parameters::default(), admission, limits, now).unwrap()
}

/// The key of relay `n`.
pub fn relay_key(n: u8) -> IdentityKey {
    IdentityKey::from_seed([n; 32])
}

/// The secret of relay `n`'s link key.
pub fn link(n: u8) -> X25519Secret {
    X25519Secret::from_bytes([n; 32])
}

/// The secret of the directory's sessions.
pub fn session() -> X25519Secret {
    X25519Secret::from_bytes([98; 32])
}

/// Relay `n` at 45.n.0.2, as it describes itself at `issued`.
pub fn relay(n: u8, issued: UnixTime) -> RelayDescriptor {
    RelayDescriptor {
        id: relay_key(n).relay_id(),
        version: issued.0 * 1000,
        issued,
        expires: issued.plus(3600),
        link: link(n).public(),
        addresses: vec![SocketAddr::from(([45, n, 0, 2], 7000))],
        capacity: 1000,
        family: None,
        name: format!("relay{n}"),
        software: "test".into(),
        signature: [0; 64],
    }
    .sign(&relay_key(n))
    .unwrap()
}

/// Relay `n`'s record.
pub fn record(n: u8, issued: UnixTime) -> RelayRecord {
    record_of(relay(n, issued))
}

fn number_of(descriptor: &RelayDescriptor) -> u8 {
    let known = (0..=u8::MAX).find(|n| relay_key(*n).relay_id() == descriptor.id);
    known.unwrap()
}

/// The record of a descriptor, which is signed for it.
pub fn record_of(descriptor: RelayDescriptor) -> RelayRecord {
    let n = number_of(&descriptor);
    let onion = [(500_000, X25519Public([n; 32]))].into_iter().collect();
    let version = descriptor.version;
    let descriptor = descriptor.sign(&relay_key(n)).unwrap();
    RelayRecord::sign(descriptor, version, onion, &relay_key(n)).unwrap()
}

/// What relay `n` registers, and says, at a time.
pub fn registration(n: u8, at: UnixTime) -> Registration {
    registration_of(relay(n, at), at)
}

/// The registration of a descriptor, which is signed for it.
pub fn registration_of(descriptor: RelayDescriptor, at: UnixTime) -> Registration {
    registered(record_of(descriptor), at)
}

/// The registration of a record at a time, by the link key of the relay's number.
pub fn registered(record: RelayRecord, at: UnixTime) -> Registration {
    let n = number_of(&record.descriptor);
    // Whatever relay's link key it has.
    let mut links = (0..=u8::MAX).map(link);
    let own = links.find(|link| link.public() == record.descriptor.link);
    let keys = (&own.unwrap_or(link(n)), &session().public());
    let (id, digest) = (record.descriptor.id, record.digest());
    let heartbeat = Heartbeat::new(id, at.0 * 1000, (10, false), digest, keys).unwrap();
    Registration { heartbeat, record }
}

/// A heartbeat of relay `n`, whose record is of `issued`.
pub fn beat(n: u8, issued: UnixTime, at: UnixTime, load: u32) -> Heartbeat {
    let keys = (&link(n), &session().public());
    let (id, digest) = (relay_key(n).relay_id(), record(n, issued).digest());
    Heartbeat::new(id, at.0 * 1000, (load, false), digest, keys).unwrap()
}

/// The service of seed `n`, with so many tails.
pub fn service(n: u8, tails: usize, issued: UnixTime) -> ServiceDescriptor {
    let key = IdentityKey::from_seed([n; 32]);
    let tail = |i: usize| TailOffer {
        tail: PublishedTail {
            first: ShortId([i as u8; 8]),
            alpha: [1; 32],
            gamma: [2; 16],
            beta: [3; 100],
            seed: [4; 16],
        },
        expires: issued.plus(1800),
    };
    ServiceDescriptor {
        id: key.anonymous_id(),
        version: issued.0 * 1000,
        issued,
        expires: issued.plus(3600),
        session: X25519Public([n; 32]),
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: (0..tails).map(tail).collect(),
        clients: None,
        signature: [0; 64],
    }
    .sign(&key)
    .unwrap()
}

/// Seed `n`'s claim of a name, for a day.
pub fn name(n: u8, label: &str, issued: UnixTime) -> NameRecord {
    let key = IdentityKey::from_seed([n; 32]);
    NameRecord {
        label: Label::new(label).unwrap(),
        id: key.anonymous_id(),
        version: issued.0 * 1000,
        issued,
        expires: issued.plus(86_400),
        signature: [0; 64],
    }
    .sign(&key)
    .unwrap()
}

fn lease_request(n: u8, at: UnixTime) -> LeaseRequest {
    LeaseRequest::new(at, None, &IdentityKey::from_seed([n; 32]))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(decision: Decision<T>, code: RefusalCode, word: &str) {
    let refusal = decision.expect_err("it was granted");
    assert_eq!(refusal.code, code, "{}", refusal.text);
    assert!(
        refusal.text.contains(word),
        "`{}` does not say `{word}`",
        refusal.text
    );
    assert!(!refusal.text.contains('\n'));
}

/// Registers what a relay signs anew.
fn register(registry: &Registry, relay: RelayDescriptor, now: UnixTime) -> Decision<()> {
    register_as(registry, registration_of(relay, now), now)
}

fn register_as(registry: &Registry, registration: Registration, now: UnixTime) -> Decision<()> {
    let source = registration.record.descriptor.addresses[0].ip();
    registry.register_relay(registration, Some(source), &session(), now)
}

/// A store on which somebody else always writes first, so many times.
struct Contended(RedbStore, std::sync::atomic::AtomicUsize);

impl Store for Contended {
    fn get(&self, table: Table, key: &[u8]) -> crate::Result<Option<Entry>> {
        self.0.get(table, key)
    }
    fn commit(&self, transaction: Transaction) -> crate::Result<Outcome> {
        let left = |n: usize| n.checked_sub(1);
        match self
            .1
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
        {
            Ok(_) => Ok(Outcome::Conflict),
            Err(_) => self.0.commit(transaction),
        }
    }
    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> crate::Result<Vec<(Vec<u8>, Entry)>> {
        self.0.list(table, prefix, after, most)
    }
    fn count(&self, table: Table) -> crate::Result<u64> {
        self.0.count(table)
    }
    fn expire(&self, now: UnixTime, most: usize) -> crate::Result<usize> {
        self.0.expire(now, most)
    }
}

#[test]
fn conflicts_are_decided_anew_and_not_for_ever() {
    for (conflicts, granted) in [(3, true), (1000, false)] {
        let store = Contended(RedbStore::in_memory().unwrap(), conflicts.into());
        let registry = open(Box::new(store), Limits::default());
        let decision = registry.lease(&lease_request(1, NOW), NOW);
        assert_eq!(decision.is_ok(), granted, "{decision:?}");
        if !granted {
            refused(decision, RefusalCode::Unavailable, "again later");
        }
    }
}

#[test]
fn what_is_full_refuses_and_says_so() {
    let limits = Limits {
        services: 1,
        names: 1,
        leases: 1,
        ..Limits::default()
    };
    let registry = open(Box::new(RedbStore::in_memory().unwrap()), limits);
    registry.publish(&service(1, 0, NOW), NOW).unwrap();
    registry.claim_name(&name(1, "a", NOW), NOW).unwrap();
    registry.lease(&lease_request(1, NOW), NOW).unwrap();
    refused(
        registry.publish(&service(2, 0, NOW), NOW),
        RefusalCode::Full,
        "1 services",
    );
    refused(
        registry.claim_name(&name(2, "b", NOW), NOW),
        RefusalCode::Full,
        "1 names",
    );
    refused(
        registry.lease(&lease_request(2, NOW), NOW),
        RefusalCode::Full,
        "1 leases",
    );
    // What is there can be renewed.
    let later = NOW.plus(1);
    registry.publish(&service(1, 0, later), later).unwrap();
    registry.claim_name(&name(1, "a", later), later).unwrap();
    registry.lease(&lease_request(1, later), later).unwrap();
}
