//! Records of anonymous IDs: services, names, leases.

use std::net::Ipv4Addr;

use mixline_protocol::Error;
use mixline_protocol::authorisation::LookupToken;
use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::records::{
    CLOCK_SKEW, Lease, LeaseRequest, MAX_TAILS, NameRecord, ServiceDescriptor,
};
use mixline_protocol::time::UnixTime;
use proptest::prelude::*;

use crate::kinds::directory_id;
use crate::records_common::arbitrary::*;
use crate::records_common::*;

fn key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

#[test]
fn a_lease_request_is_fresh_or_refused() {
    let request = LeaseRequest::new(NOW, None, &key());
    assert_eq!(request.verify(NOW.plus(2 * CLOCK_SKEW - 1)), Ok(()));
    assert!(matches!(
        request.verify(NOW.plus(2 * CLOCK_SKEW)),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        request.verify(NOW.minus(CLOCK_SKEW + 1)),
        Err(Error::NotYetValid { .. })
    ));
}

#[test]
fn only_the_directory_grants_leases() {
    let own = Lease::grant(
        Ipv4Addr::new(10, 1, 2, 3),
        key().anonymous_id(),
        NOW.plus(9),
        &key(),
    );
    assert!(matches!(
        own.verify(&directory_id(), NOW),
        Err(Error::Authentication { .. })
    ));
    // And it is for one ID: in another's descriptor it does not hold.
    let mut stolen = lease(&key());
    stolen.id = AnonymousId([9; 32]);
    assert!(matches!(
        stolen.verify(&directory_id(), NOW),
        Err(Error::Authentication { .. })
    ));
}

#[test]
fn a_list_of_clients_is_full_and_ascends() {
    let right = entries([9; 8]);
    let (mut twice, mut turned) = (right.clone(), right.clone());
    twice[1] = twice[0];
    turned.swap(3, 4);
    for (wrong, what) in [
        (Vec::new(), "empty"),
        (right[1..].to_vec(), "one too few"),
        (twice, "one twice"),
        (turned, "out of order"),
    ] {
        let mut record = service(&key(), 1, true);
        record.clients = Some(wrong);
        assert!(
            ServiceDescriptor::decode(&record.encode()).is_err(),
            "{what}: decoded"
        );
        assert!(record.sign(&key()).is_err(), "{what}: signed");
    }
    let token = LookupToken([5; 16]);
    let mut record = service(&key(), 1, true);
    assert!(record.is_for(None) && record.is_for(Some(&token)));
    record.clients = Some(right.clone());
    assert!(!record.is_for(None) && !record.is_for(Some(&token)));
    record.clients = Some([&[token.entry(&record.id)], &right[1..]].concat());
    assert!(!record.is_for(None) && record.is_for(Some(&token)));
}

#[test]
fn sizes_are_within_the_documented_bounds() {
    let mut largest = service(&key(), MAX_TAILS, true);
    largest.clients = Some(entries([9; 8]));
    let largest = largest.sign(&key()).unwrap().encode();
    assert_eq!(largest.len(), ServiceDescriptor::MAX_ENCODED);
    let mut too_many = service(&key(), MAX_TAILS, true);
    too_many.tails.push(too_many.tails[0]);
    assert!(matches!(too_many.sign(&key()), Err(Error::Limit { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_service_survives(record in any_service()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= ServiceDescriptor::MAX_ENCODED);
        let decoded = ServiceDescriptor::decode_and_verify(&bytes, record.issued);
        prop_assert_eq!(&decoded, &Ok(record));
    }

    #[test]
    fn a_name_survives(record in any_name()) {
        let bytes = record.encode();
        prop_assert_eq!(NameRecord::decode_and_verify(&bytes, record.issued), Ok(record));
    }

    #[test]
    fn a_lease_and_its_request_survive(lease in any_lease(), request in any_lease_request()) {
        let decoded = Lease::decode_and_verify(&lease.encode(), &directory_id(), UnixTime(0));
        prop_assert_eq!(decoded, Ok(lease));
        let decoded = LeaseRequest::decode_and_verify(&request.encode(), NOW);
        prop_assert_eq!(decoded, Ok(request));
    }
}
