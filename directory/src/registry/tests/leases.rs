//! Leases: the first free candidate, renewed, and at rest before somebody else has it.

use super::*;
use crate::registry::leases::{CANDIDATES, LEASE_LIFETIME, LEASE_QUARANTINE};

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
    let admission = AdmissionPolicy {
        private_addresses: false,
        check_source: true,
    };
    let parameters = Parameters::default();
    let second = Registry::open(
        store,
        key.clone(),
        parameters,
        admission,
        Limits::default(),
        NOW,
    )
    .unwrap();
    let after = second.lease(&lease_request(1, NOW), NOW).unwrap();
    assert_eq!(after.ipv4, before.ipv4);
    assert_eq!(after.verify(&key.anonymous_id(), NOW), Ok(()));
}
