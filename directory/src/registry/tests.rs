//! Every decision of the registry, and records for the tests of other parts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mixline_protocol::address::{VirtualNetwork, ipv4_candidate, ipv6};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    CLOCK_SKEW, Lease, LeaseRequest, NameRecord, Parameters, RelayDescriptor, ServiceDescriptor,
    TailOffer,
};
use mixline_protocol::time::UnixTime;

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
    let welcome = Welcome {
        private_addresses: false,
        check_source: true,
    };
    let key = Arc::new(directory_key());
    Registry::open(store, key, Parameters::default(), welcome, limits, NOW).unwrap()
}

/// The key of relay `n`.
pub fn relay_key(n: u8) -> IdentityKey {
    IdentityKey::from_seed([n; 32])
}

/// Relay `n` at 45.n.0.2, as it describes itself at `issued`.
pub fn relay(n: u8, issued: UnixTime) -> RelayDescriptor {
    RelayDescriptor {
        id: relay_key(n).relay_id(),
        version: issued.0 * 1000,
        issued,
        expires: issued.plus(3600),
        link: X25519Public([n; 32]),
        onion: [(500_000, X25519Public([n; 32]))].into_iter().collect(),
        addresses: vec![SocketAddr::from(([45, n, 0, 2], 7000))],
        capacity: 1000,
        load: 10,
        family: None,
        name: format!("relay{n}"),
        software: "test".into(),
        signature: [0; 64],
    }
    .sign(&relay_key(n))
    .unwrap()
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
        lease: None,
        tails: (0..tails).map(tail).collect(),
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
fn refused<T: std::fmt::Debug>(verdict: Verdict<T>, code: RefusalCode, word: &str) {
    let refusal = verdict.expect_err("it was granted");
    assert_eq!(refusal.code, code, "{}", refusal.text);
    assert!(
        refusal.text.contains(word),
        "`{}` does not say `{word}`",
        refusal.text
    );
    assert!(!refusal.text.contains('\n'));
}

fn register(registry: &Registry, relay: RelayDescriptor, now: UnixTime) -> Verdict<()> {
    let source = relay.addresses[0].ip();
    registry.register_relay(relay, Some(source), now)
}

#[test]
fn relays_are_verified() {
    let registry = registry();
    let mut forged = relay(1, NOW);
    forged.capacity += 1;
    refused(
        register(&registry, forged, NOW),
        RefusalCode::BadSignature,
        "signature",
    );
    let expired = register(&registry, relay(1, NOW.minus(7200)), NOW);
    refused(expired, RefusalCode::Expired, "60 minutes ago");
    assert_eq!(registry.live_count(), 0);
    register(&registry, relay(1, NOW), NOW).unwrap();
    assert_eq!(registry.live_relays()[0].descriptor.id, relay(1, NOW).id);
}

#[test]
fn a_wrong_clock_is_told_whose_it_is() {
    let registry = registry();
    let ahead = register(&registry, relay(1, NOW.plus(3600)), NOW);
    refused(
        ahead,
        RefusalCode::NotYetValid,
        "your clock is 60 minutes ahead of the directory's",
    );
    let behind = register(&registry, relay(1, NOW.minus(1200)), NOW);
    refused(
        behind,
        RefusalCode::Expired,
        "your clock is 20 minutes behind the directory's",
    );
    // What clocks usually are apart is nobody's concern.
    register(&registry, relay(1, NOW.minus(CLOCK_SKEW)), NOW).unwrap();
    register(&registry, relay(2, NOW.plus(CLOCK_SKEW)), NOW).unwrap();
}

#[test]
fn an_older_version_is_refused() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    refused(
        register(&registry, relay(1, NOW.minus(9)), NOW),
        RefusalCode::Older,
        "newer",
    );
    // The same one again does no harm; another one of the same version is refused.
    register(&registry, relay(1, NOW), NOW.plus(1)).unwrap();
    let mut twin = relay(1, NOW);
    twin.load += 1;
    let twin = twin.sign(&relay_key(1)).unwrap();
    refused(register(&registry, twin, NOW), RefusalCode::Older, "newer");
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
}

#[test]
fn a_repeated_descriptor_keeps_nobody_alive() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    register(&registry, relay(1, NOW), NOW.plus(50)).unwrap();
    registry.forget_silent(NOW.plus(61));
    assert_eq!(registry.live_count(), 0);
    // Nor does it bring one back.
    register(&registry, relay(1, NOW), NOW.plus(62)).unwrap();
    assert_eq!(registry.live_count(), 0);
    register(&registry, relay(1, NOW.plus(63)), NOW.plus(63)).unwrap();
    assert_eq!(registry.live_relays()[0].since, NOW.plus(63));
}

#[test]
fn a_short_id_is_one_relays() {
    // Two keys with one short ID take 2^32 tries to find: the store says that another relay
    // has relay 1's already.
    let store = RedbStore::in_memory().unwrap();
    let short = relay(1, NOW).short_id();
    let held = Transaction::new().put(Table::ShortIds, short.0, [7; 32], NOW.plus(100));
    assert_eq!(store.commit(held).unwrap(), Outcome::Committed);
    let registry = open(Box::new(store), Limits::default());
    let clash = register(&registry, relay(1, NOW), NOW);
    refused(clash, RefusalCode::Taken, &short.to_string());
    // When the other one's descriptor has ended, it is free.
    register(&registry, relay(1, NOW.plus(100)), NOW.plus(100)).unwrap();
}

#[test]
fn relays_must_be_where_they_can_be_reached() {
    let registry = registry();
    let at = |text: &str| {
        let mut moved = relay(1, NOW);
        moved.addresses = vec![text.parse().unwrap()];
        moved.sign(&relay_key(1)).unwrap()
    };
    for private in [
        "172.21.0.2:7000",
        "127.0.0.1:7000",
        "[::1]:7000",
        "[3fff:1::2]:7000",
    ] {
        let verdict = register(&registry, at(private), NOW);
        refused(verdict, RefusalCode::NotAllowed, "allow_private_addresses");
    }
    for nowhere in [
        "10.1.2.3:7000",
        "[fd00::1]:7000",
        "[fe80::1]:7000",
        "169.254.1.1:7000",
    ] {
        let mut lenient = open(Box::new(RedbStore::in_memory().unwrap()), Limits::default());
        lenient.welcome.private_addresses = true;
        let verdict = register(&lenient, at(nowhere), NOW);
        assert_eq!(
            verdict.unwrap_err().code,
            RefusalCode::NotAllowed,
            "{nowhere}"
        );
    }
}

#[test]
fn relays_register_from_their_own_addresses() {
    let mut registry = registry();
    let elsewhere: IpAddr = [45, 9, 9, 9].into();
    let verdict = registry.register_relay(relay(1, NOW), Some(elsewhere), NOW);
    refused(verdict, RefusalCode::NotAllowed, "check_source");
    let mapped: IpAddr = Ipv4Addr::new(45, 1, 0, 2).to_ipv6_mapped().into();
    registry
        .register_relay(relay(1, NOW), Some(mapped), NOW)
        .unwrap();
    registry.welcome.check_source = false;
    registry
        .register_relay(relay(2, NOW), Some(elsewhere), NOW)
        .unwrap();
}

#[test]
fn a_full_network_refuses_newcomers_and_keeps_the_rest() {
    let limits = Limits {
        relays: 2,
        remembered_relays: 3,
        ..Limits::default()
    };
    let registry = open(Box::new(RedbStore::in_memory().unwrap()), limits);
    for n in [1, 2] {
        register(&registry, relay(n, NOW), NOW).unwrap();
    }
    refused(
        register(&registry, relay(3, NOW), NOW),
        RefusalCode::Full,
        "2 relays",
    );
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
    // Relay 2 falls silent: one place, and still one for a relay that nobody knows.
    let later = NOW.plus(61);
    registry.forget_silent(later);
    register(&registry, relay(3, later), later).unwrap();
    registry.forget_silent(NOW.plus(100));
    let silent = register(&registry, relay(4, NOW.plus(100)), NOW.plus(100));
    refused(silent, RefusalCode::Full, "silent");
    register(&registry, relay(2, NOW.plus(100)), NOW.plus(100)).unwrap();
}

#[test]
fn relays_are_still_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let first = open(Box::new(RedbStore::open(&path).unwrap()), Limits::default());
    register(&first, relay(1, NOW.minus(40)), NOW.minus(40)).unwrap();
    register(&first, relay(2, NOW.minus(100)), NOW.minus(100)).unwrap();
    register(&first, relay(1, NOW.minus(20)), NOW.minus(20)).unwrap();
    drop(first);
    let again = open(Box::new(RedbStore::open(&path).unwrap()), Limits::default());
    let live = again.live_relays();
    assert_eq!(live.len(), 1, "the silent one is not live");
    assert_eq!(
        (live[0].heard, live[0].since),
        (NOW.minus(20), NOW.minus(40))
    );
    // And versions are remembered.
    refused(
        register(&again, relay(1, NOW.minus(30)), NOW),
        RefusalCode::Older,
        "newer",
    );
}

#[test]
fn only_what_builders_see_is_a_change() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    let before = registry.changes();
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
    assert_eq!(registry.changes(), before, "a newer time and load");
    let mut rekeyed = relay(1, NOW.plus(2));
    rekeyed.onion.push((500_001, X25519Public([9; 32])));
    register(&registry, rekeyed.sign(&relay_key(1)).unwrap(), NOW.plus(2)).unwrap();
    assert!(registry.changes() > before);
}

#[test]
fn services_are_published_and_end() {
    let registry = registry();
    let first = service(1, 2, NOW);
    let id = first.id;
    assert_eq!(registry.lookup_id(&id, NOW), Ok(None));
    registry.publish(&first, NOW).unwrap();
    registry.publish(&first, NOW).unwrap();
    assert_eq!(registry.lookup_id(&id, NOW), Ok(Some(first.clone())));
    let found = registry.lookup_address(ipv6(&id).into(), NOW);
    assert_eq!(found, Ok(Some(first.clone())));
    refused(
        registry.publish(&service(1, 1, NOW.minus(5)), NOW),
        RefusalCode::Older,
        "newer",
    );
    let mut forged = first.clone();
    forged.tails.clear();
    refused(
        registry.publish(&forged, NOW),
        RefusalCode::BadSignature,
        "signature",
    );
    let second = service(1, 1, NOW.plus(5));
    registry.publish(&second, NOW.plus(5)).unwrap();
    assert_eq!(
        registry.lookup_id(&id, NOW.plus(5)),
        Ok(Some(second.clone()))
    );
    // Nobody gets what has ended, swept or not.
    assert_eq!(registry.lookup_id(&id, second.expires), Ok(None));
    assert_eq!(registry.sweep(second.expires.minus(1)).unwrap(), 0);
    assert_eq!(registry.sweep(second.expires).unwrap(), 2);
    assert_eq!(registry.counts().unwrap(), Counts::default());
}

#[test]
fn a_virtual_ipv6_address_is_one_ids() {
    let store = RedbStore::in_memory().unwrap();
    let key = ipv6(&service(1, 0, NOW).id).octets();
    let held = Transaction::new().put(Table::Addresses, key, [7; 32], NOW.plus(100));
    assert_eq!(store.commit(held).unwrap(), Outcome::Committed);
    let registry = open(Box::new(store), Limits::default());
    refused(
        registry.publish(&service(1, 0, NOW), NOW),
        RefusalCode::Taken,
        "new ID",
    );
}

#[test]
fn a_descriptors_lease_must_be_the_directorys_and_live() {
    let registry = registry();
    let key = IdentityKey::from_seed([1; 32]);
    let publish = |lease: Lease, at: UnixTime| {
        let mut descriptor = service(1, 1, at);
        descriptor.lease = Some(lease);
        registry.publish(&descriptor.sign(&key).unwrap(), at)
    };
    let ip = Ipv4Addr::new(10, 1, 2, 3);
    let own = Lease::grant(ip, key.anonymous_id(), NOW.plus(100), &key);
    refused(publish(own, NOW), RefusalCode::BadSignature, "signature");
    let ended = Lease::grant(ip, key.anonymous_id(), NOW.minus(1), &directory_key());
    refused(publish(ended, NOW), RefusalCode::Expired, "lease");
    // The descriptor ends with its lease: who looks it up could not use it any more.
    let short = Lease::grant(ip, key.anonymous_id(), NOW.plus(100), &directory_key());
    publish(short, NOW).unwrap();
    let id = key.anonymous_id();
    assert!(registry.lookup_id(&id, NOW.plus(99)).unwrap().is_some());
    assert!(registry.lookup_id(&id, NOW.plus(100)).unwrap().is_none());
}

#[test]
fn a_name_is_the_first_claimants() {
    let registry = registry();
    let first = name(1, "freespeech", NOW);
    registry.claim_name(&first, NOW).unwrap();
    let second = registry.claim_name(&name(2, "freespeech", NOW.plus(1)), NOW.plus(1));
    refused(
        second,
        RefusalCode::Taken,
        "freespeech.anon belongs to another ID",
    );
    assert_eq!(registry.lookup_name(&first.label, NOW), Ok(Some(first)));
    assert_eq!(registry.name_of(&first.id, NOW), Ok(Some(first)));
    registry.claim_name(&first, NOW).unwrap();
    let renewed = name(1, "freespeech", NOW.plus(50));
    registry.claim_name(&renewed, NOW.plus(50)).unwrap();
    refused(
        registry.claim_name(&first, NOW.plus(50)),
        RefusalCode::Older,
        "newer",
    );
}

#[test]
fn a_name_that_was_not_renewed_waits_for_its_owner() {
    let registry = registry();
    let first = name(1, "freespeech", NOW);
    registry.claim_name(&first, NOW).unwrap();
    let after = first.expires;
    // It does not resolve, and nobody else gets it, for a while.
    assert_eq!(registry.lookup_name(&first.label, after), Ok(None));
    assert_eq!(registry.name_of(&first.id, after), Ok(None));
    let other = |at| registry.claim_name(&name(2, "freespeech", at), at);
    refused(other(after), RefusalCode::Taken, "another");
    assert_eq!(registry.sweep(after.plus(NAME_GRACE - 1)).unwrap(), 0);
    registry
        .claim_name(&name(1, "freespeech", after), after)
        .unwrap();
    let end = after.plus(86_400 + NAME_GRACE);
    refused(other(end.minus(1)), RefusalCode::Taken, "another");
    // Then it is free, swept or not, and the first one's no more.
    other(end).unwrap();
    let id = first.id;
    assert_eq!(registry.name_of(&id, end), Ok(None));
    assert_eq!(registry.names_left(&id), 0);
    assert_eq!(registry.sweep(end).unwrap(), 0);
}

#[test]
fn an_id_holds_so_many_names() {
    let registry = registry();
    for n in 0..NAMES_PER_ID {
        registry
            .claim_name(&name(1, &format!("name{n}"), NOW), NOW)
            .unwrap();
    }
    let more = registry.claim_name(&name(1, "more", NOW), NOW);
    refused(more, RefusalCode::Full, "16 names");
    registry
        .claim_name(&name(1, "name3", NOW.plus(1)), NOW.plus(1))
        .unwrap();
    registry.claim_name(&name(2, "more", NOW), NOW).unwrap();
    assert_eq!(
        registry
            .name_of(&name(1, "x", NOW).id, NOW)
            .unwrap()
            .unwrap()
            .label
            .as_str(),
        "name0"
    );
}

#[test]
fn leases_are_granted_and_renewed() {
    let registry = registry();
    let directory = directory_key().anonymous_id();
    let network = VirtualNetwork::default();
    let first = registry.lease(&lease_request(1, NOW), NOW).unwrap();
    assert_eq!(first.verify(&directory, NOW), Ok(()));
    assert_eq!(first.ipv4, ipv4_candidate(&first.id, 0, &network));
    // Asking again gives the same, until half of it is over.
    let soon = NOW.plus(3600);
    assert_eq!(registry.lease(&lease_request(1, soon), soon), Ok(first));
    let late = NOW.plus(LEASE_LIFETIME / 2);
    let renewed = registry.lease(&lease_request(1, late), late).unwrap();
    assert_eq!(
        (renewed.ipv4, renewed.expires),
        (first.ipv4, late.plus(LEASE_LIFETIME))
    );
    let stale = registry.lease(&lease_request(1, NOW), late);
    refused(stale, RefusalCode::Expired, "clock");
}

/// A store in which somebody else has an address.
fn taken(addresses: &[Ipv4Addr], until: UnixTime) -> Box<RedbStore> {
    let store = RedbStore::in_memory().unwrap();
    let other = IdentityKey::from_seed([50; 32]).anonymous_id();
    for ip in addresses {
        let lease = Lease::grant(*ip, other, until, &directory_key());
        let end = until.plus(LEASE_QUARANTINE);
        let held = Transaction::new().put(Table::Leases, ip.octets(), lease.encode(), end);
        assert_eq!(store.commit(held).unwrap(), Outcome::Committed);
    }
    Box::new(store)
}

#[test]
fn a_collision_moves_to_the_next_candidate() {
    let id = lease_request(1, NOW).id;
    let network = VirtualNetwork::default();
    let candidate = |attempt| ipv4_candidate(&id, attempt, &network);
    let registry = open(
        taken(&[candidate(0), candidate(1)], NOW.plus(100)),
        Limits::default(),
    );
    let lease = registry.lease(&lease_request(1, NOW), NOW).unwrap();
    assert_eq!(lease.ipv4, candidate(2));
    // It keeps that one, also when the first is free again.
    let later = NOW.plus(LEASE_LIFETIME - 5);
    let renewed = registry.lease(&lease_request(1, later), later).unwrap();
    assert_eq!(renewed.ipv4, candidate(2));
    let all: Vec<_> = (0..CANDIDATES).map(candidate).collect();
    let registry = open(taken(&all, NOW.plus(100)), Limits::default());
    refused(
        registry.lease(&lease_request(1, NOW), NOW),
        RefusalCode::NoAddress,
        "new ID",
    );
}

#[test]
fn an_address_rests_before_somebody_else_gets_it() {
    let id = lease_request(1, NOW).id;
    let first = ipv4_candidate(&id, 0, &VirtualNetwork::default());
    let ends = NOW.plus(100);
    for (at, free) in [
        (ends.plus(LEASE_QUARANTINE - 1), false),
        (ends.plus(LEASE_QUARANTINE), true),
    ] {
        let registry = open(taken(&[first], ends), Limits::default());
        let lease = registry.lease(&lease_request(1, at), at).unwrap();
        assert_eq!(lease.ipv4 == first, free);
    }
}

#[test]
fn a_wish_is_granted_among_the_candidates() {
    let key = IdentityKey::from_seed([1; 32]);
    let network = VirtualNetwork::default();
    let third = ipv4_candidate(&key.anonymous_id(), 3, &network);
    let lease = registry()
        .lease(&LeaseRequest::new(NOW, Some(third), &key), NOW)
        .unwrap();
    assert_eq!(lease.ipv4, third);
    let vain = Ipv4Addr::new(10, 10, 10, 10);
    let lease = registry()
        .lease(&LeaseRequest::new(NOW, Some(vain), &key), NOW)
        .unwrap();
    assert_eq!(lease.ipv4, ipv4_candidate(&key.anonymous_id(), 0, &network));
}

#[test]
fn a_new_key_of_the_directory_signs_leases_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let first = open(Box::new(RedbStore::open(&path).unwrap()), Limits::default());
    let before = first.lease(&lease_request(1, NOW), NOW).unwrap();
    drop(first);
    let key = Arc::new(IdentityKey::from_seed([98; 32]));
    let store = Box::new(RedbStore::open(&path).unwrap());
    let welcome = Welcome {
        private_addresses: false,
        check_source: true,
    };
    let parameters = Parameters::default();
    let second = Registry::open(
        store,
        key.clone(),
        parameters,
        welcome,
        Limits::default(),
        NOW,
    )
    .unwrap();
    let after = second.lease(&lease_request(1, NOW), NOW).unwrap();
    assert_eq!(after.ipv4, before.ipv4);
    assert_eq!(after.verify(&key.anonymous_id(), NOW), Ok(()));
}

#[test]
fn addresses_are_looked_up_by_lease() {
    let registry = registry();
    let key = IdentityKey::from_seed([1; 32]);
    let lease = registry.lease(&lease_request(1, NOW), NOW).unwrap();
    let look = |at| registry.lookup_address(lease.ipv4.into(), at).unwrap();
    assert_eq!(look(NOW), None, "not published");
    registry.publish(&service(1, 1, NOW), NOW).unwrap();
    assert_eq!(
        look(NOW),
        None,
        "published without the lease: the asker could not check it"
    );
    let mut descriptor = service(1, 1, NOW.plus(1));
    descriptor.lease = Some(lease);
    let descriptor = descriptor.sign(&key).unwrap();
    registry.publish(&descriptor, NOW.plus(1)).unwrap();
    assert_eq!(look(NOW.plus(1)), Some(descriptor));
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
        let verdict = registry.lease(&lease_request(1, NOW), NOW);
        assert_eq!(verdict.is_ok(), granted, "{verdict:?}");
        if !granted {
            refused(verdict, RefusalCode::Unavailable, "again later");
        }
    }
}

#[test]
fn many_claim_one_name_and_one_gets_it() {
    let registry = registry();
    let granted: Vec<_> = std::thread::scope(|scope| {
        let claims: Vec<_> = (1..=12)
            .map(|n| {
                let registry = &registry;
                scope.spawn(move || registry.claim_name(&name(n, "prize", NOW), NOW).is_ok())
            })
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .collect()
    });
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
    let holder = registry
        .lookup_name(&Label::new("prize").unwrap(), NOW)
        .unwrap()
        .unwrap();
    let winner = granted.iter().position(|granted| *granted).unwrap() as u8 + 1;
    assert_eq!(holder.id, name(winner, "prize", NOW).id);
}

impl Registry {
    /// How many names the store has under an ID.
    fn names_left(&self, id: &AnonymousId) -> usize {
        self.store
            .list(Table::NamesOf, &id.0, None, 100)
            .unwrap()
            .len()
    }
}
