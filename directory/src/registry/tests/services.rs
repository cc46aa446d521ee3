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
