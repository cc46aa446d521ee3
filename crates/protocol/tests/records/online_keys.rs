//! Certificates of the keys that directories sign with.

use mixline_protocol::Error;
use mixline_protocol::identity::{IdentityKey, NetworkId};
use mixline_protocol::records::{CLOCK_SKEW, OnlineKey};
use proptest::prelude::*;

use crate::kinds::{alone, four, second_roster};
use crate::records_common::NOW;
use crate::records_common::arbitrary::*;
use crate::records_common::directories::Directories;

#[test]
fn a_directory_certifies_for_90_days_at_most() {
    let identity = &four().identities[1];
    let certify = |life: u64| {
        let life = (NOW, NOW.plus(life));
        OnlineKey::certify(four().network(), [1; 32], life, identity)
    };
    let longest = certify(OnlineKey::MAX_LIFETIME).unwrap();
    assert_eq!(longest.encode().len(), OnlineKey::ENCODED);
    assert!(certify(0).is_err());
    assert!(certify(OnlineKey::MAX_LIFETIME + 1).is_err());
    let mut longer = longest;
    longer.expires = longer.expires.plus(1);
    assert!(OnlineKey::decode(&longer.encode()).is_err());
}

#[test]
fn a_certificate_lives_from_issue_to_expiry() {
    let (key, roster) = (four().certificate(2), &four().roster);
    assert_eq!(key.verify(roster, NOW), Ok(2));
    assert_eq!(key.verify(roster, key.issued.minus(CLOCK_SKEW)), Ok(2));
    assert!(matches!(
        key.verify(roster, key.issued.minus(CLOCK_SKEW + 1)),
        Err(Error::NotYetValid { .. })
    ));
    assert_eq!(key.verify(roster, key.expires.minus(1)), Ok(2));
    assert!(matches!(
        key.verify(roster, key.expires),
        Err(Error::Expired { .. })
    ));
}

#[test]
fn a_certificate_is_for_one_directory_of_one_network() {
    let refused = |key: &OnlineKey| {
        let error = key.verify(&four().roster, NOW).unwrap_err();
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
    };
    let key = four().certificate(2);
    refused(&OnlineKey {
        network: NetworkId([1; 32]),
        ..key
    });
    refused(&OnlineKey {
        directory: four().identities[1].public(),
        ..key
    });
    refused(&OnlineKey {
        key: [1; 32],
        ..key
    });
    // By one who is in no roster, in another network's, and by an online key.
    let life = (key.issued, key.expires);
    let by = |network, identity: &IdentityKey| {
        OnlineKey::certify(network, key.key, life, identity).unwrap()
    };
    refused(&by(four().network(), &IdentityKey::from_seed([1; 32])));
    refused(&by(four().network(), &four().online[2]));
    refused(&by(Directories::new(7).network(), &four().identities[2]));
    assert!(key.verify(&Directories::new(7).roster, NOW).is_err());
    assert!(key.verify(&alone(), NOW).is_err());
}

/// The next version keeps the certificates of those who stay, at whatever place.
#[test]
fn a_certificate_outlives_a_version_of_the_roster() {
    let key = four().certificate(0);
    assert_eq!(key.verify(&four().roster, NOW), Ok(0));
    assert_eq!(key.verify(&second_roster(), NOW), Ok(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_certificate_survives((roster, key) in any_online_key()) {
        let read = OnlineKey::decode(&key.encode()).unwrap();
        prop_assert_eq!(read, key);
        let index = roster.index_of(&key.directory).unwrap();
        prop_assert_eq!(read.verify(&roster, key.issued), Ok(index));
    }
}
