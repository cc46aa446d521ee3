//! Services: published, looked up, ended.

use super::*;

#[test]
fn services_are_published_and_end() {
    let registry = registry();
    let first = service(1, 2, NOW);
    let id = first.id;
    assert_eq!(registry.lookup_id(&id, None, NOW), Ok(None));
    registry.publish(&first, NOW).unwrap();
    registry.publish(&first, NOW).unwrap();
    assert_eq!(registry.lookup_id(&id, None, NOW), Ok(Some(first.clone())));
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
        registry.lookup_id(&id, None, NOW.plus(5)),
        Ok(Some(second.clone()))
    );
    // Nobody gets what has ended, swept or not.
    assert_eq!(registry.lookup_id(&id, None, second.expires), Ok(None));
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
    // The descriptor ends with its lease: anyone who looks it up could not use it any more.
    let short = Lease::grant(ip, key.anonymous_id(), NOW.plus(100), &directory_key());
    publish(short, NOW).unwrap();
    let id = key.anonymous_id();
    assert!(
        registry
            .lookup_id(&id, None, NOW.plus(99))
            .unwrap()
            .is_some()
    );
    assert!(
        registry
            .lookup_id(&id, None, NOW.plus(100))
            .unwrap()
            .is_none()
    );
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

/// A store in which something stands that cannot be read.
fn unreadable(table: Table, key: &[u8]) -> RedbStore {
    let store = RedbStore::in_memory().unwrap();
    let put = Transaction::new().put(
        table,
        key,
        b"of another format".as_slice(),
        NOW.plus(6 * 3600),
    );
    assert_eq!(store.commit(put).unwrap(), Outcome::Committed);
    store
}

#[test]
fn what_cannot_be_read_any_more_is_its_holders_to_replace() {
    let renewed = service(1, 1, NOW);
    let store = unreadable(Table::Services, &renewed.id.0);
    let registry = open(Box::new(store), Limits::default());
    let lookup = || registry.lookup_id(&renewed.id, None, NOW);
    refused(lookup(), RefusalCode::Unavailable, "directory");
    let mut forged = renewed.clone();
    forged.tails.clear();
    let forged = registry.publish(&forged, NOW);
    refused(forged, RefusalCode::BadSignature, "signature");
    registry.publish(&renewed, NOW).unwrap();
    assert_eq!(lookup(), Ok(Some(renewed.clone())));
    let older = service(1, 2, NOW.minus(5));
    refused(registry.publish(&older, NOW), RefusalCode::Older, "newer");
}

#[test]
fn a_name_whose_record_cannot_be_read_stays_its_holders() {
    let own = name(1, "freespeech", NOW);
    let store = unreadable(Table::Names, b"freespeech");
    let of = [own.id.0.as_slice(), b"freespeech"].concat();
    let put = Transaction::new().put(Table::NamesOf, of.as_slice(), [], NOW.plus(6 * 3600));
    assert_eq!(store.commit(put).unwrap(), Outcome::Committed);
    let registry = open(Box::new(store), Limits::default());
    let other = registry.claim_name(&name(2, "freespeech", NOW), NOW);
    refused(other, RefusalCode::Taken, "another ID");
    registry.claim_name(&own, NOW).unwrap();
    assert_eq!(registry.lookup_name(&own.label, NOW), Ok(Some(own)));
    // When it has ended, it is anybody's.
    let registry = open(
        Box::new(unreadable(Table::Names, b"freespeech")),
        Limits::default(),
    );
    let later = NOW.plus(7 * 3600);
    let next = name(2, "freespeech", later);
    registry.claim_name(&next, later).unwrap();
    assert_eq!(registry.lookup_name(&next.label, later), Ok(Some(next)));
}

#[test]
fn an_id_whose_lease_cannot_be_read_gets_another_address() {
    let request = lease_request(1, NOW);
    let address = ipv4_candidate(&request.id, 0, &VirtualNetwork::default());
    let store = unreadable(Table::Leases, &address.octets());
    let own = Transaction::new().put(
        Table::LeaseOf,
        request.id.0,
        address.octets(),
        NOW.plus(6 * 3600),
    );
    assert_eq!(store.commit(own).unwrap(), Outcome::Committed);
    let registry = open(Box::new(store), Limits::default());
    let lease = registry.lease(&request, NOW).unwrap();
    assert_ne!(lease.ipv4, address);
    assert_eq!(registry.lease(&request, NOW), Ok(lease));
}
