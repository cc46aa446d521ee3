//! What holds for records of every kind.

use mixline_protocol::Error;
use mixline_protocol::records::{Heartbeat, RelayRecord};
use proptest::prelude::*;

use crate::kinds::{KINDS, Kind, encode};
use crate::records_common::arbitrary::*;

fn with_samples(test: impl Fn(&Kind, Vec<u8>)) {
    for kind in &KINDS {
        test(kind, (kind.sample)());
    }
}

#[test]
fn whole_records_are_taken() {
    with_samples(|kind, bytes| {
        assert_eq!((kind.verify)(&bytes), Ok(()), "{}", kind.name);
        assert_eq!((kind.recode)(&bytes), Ok(bytes), "{}", kind.name);
        if let Some(head) = kind.head {
            assert_eq!((kind.sample)()[..2], head, "{}", kind.name);
        }
    });
}

#[test]
fn a_flipped_bit_is_refused() {
    with_samples(|kind, mut bytes| {
        // Each bit of the short ones; of a long one enough to hit every field.
        let step = if bytes.len() > 500 { 7 } else { 1 };
        for bit in (0..bytes.len() * 8).step_by(step) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!((kind.verify)(&bytes).is_err(), "{}: bit {bit}", kind.name);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    });
}

#[test]
fn truncated_and_extended_records_are_refused() {
    with_samples(|kind, mut bytes| {
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            assert!((kind.verify)(cut).is_err(), "{}: {end} bytes", kind.name);
        }
        bytes.push(0);
        assert!((kind.verify)(&bytes).is_err(), "{}: a byte more", kind.name);
    });
}

#[test]
fn a_record_is_not_one_of_another_kind() {
    with_samples(|kind, bytes| {
        for other in &KINDS {
            let taken = (other.verify)(&bytes).is_ok();
            assert_eq!(
                taken,
                kind.name == other.name,
                "{} as {}",
                kind.name,
                other.name
            );
        }
    });
}

#[test]
fn another_version_of_the_format_is_named() {
    with_samples(|kind, mut bytes| {
        let Some([_, format]) = kind.head else { return };
        for other in [format - 1, format + 1] {
            bytes[1] = other;
            let read = (kind.verify)(&bytes);
            assert!(
                matches!(read, Err(Error::Version { .. })),
                "{}: {read:?}",
                kind.name
            );
        }
    });
}

/// Bytes of any record of any kind, with the kind's place in [`KINDS`].
fn any_record() -> impl Strategy<Value = (usize, Vec<u8>)> {
    fn kind(name: &str) -> usize {
        KINDS.iter().position(|kind| kind.name == name).unwrap()
    }
    prop_oneof![
        any_relay().prop_map(|r| (kind("relay descriptor"), r.encode())),
        any_service().prop_map(|r| (kind("service descriptor"), r.encode())),
        any_name().prop_map(|r| (kind("name record"), r.encode())),
        any_lease().prop_map(|r| (kind("lease"), r.encode())),
        any_lease_request().prop_map(|r| (kind("lease request"), r.encode())),
        any_snapshot().prop_map(|r| (kind("snapshot"), r.encode())),
        any_snapshot_of_several().prop_map(|(_, r)| (kind("snapshot of four"), r.encode())),
        any_roster().prop_map(|(_, r)| (kind("first roster"), r.encode())),
        any_next_roster().prop_map(|(_, r)| (kind("second roster"), r.encode())),
        any_online_key().prop_map(|(_, r)| (kind("online key"), r.encode())),
        any_vote().prop_map(|r| (kind("vote"), r.encode())),
        any_endorsement().prop_map(|(_, r)| (kind("endorsement"), encode(&r))),
        any_contradiction().prop_map(|(_, r)| (kind("contradiction"), r.encode())),
        any_relay_record().prop_map(|r| (kind("relay record"), r.encode())),
        any_registration().prop_map(|r| (kind("heartbeat"), r.heartbeat.encode())),
        any_registration().prop_map(|r| (kind("registration"), r.encode())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_record_survives((kind, bytes) in any_record()) {
        prop_assert_eq!((KINDS[kind].recode)(&bytes), Ok(bytes));
    }

    /// Whatever the form lets through is encoded to the same bytes again: one record, one
    /// encoding.
    #[test]
    fn noise_is_refused_or_canonical(
        which in 0..KINDS.len(),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let kind = &KINDS[which];
        if let Some(front) = kind.head.and(bytes.first_chunk_mut::<2>()) {
            *front = kind.head.unwrap();
        }
        prop_assert!((kind.verify)(&bytes).is_err());
        for kind in &KINDS {
            if let Ok(again) = (kind.recode)(&bytes) {
                prop_assert_eq!(&again, &bytes, "{}", kind.name);
            }
        }
    }

    /// The same for records with some bytes changed, which get further than noise.
    #[test]
    fn a_changed_record_is_refused_or_canonical(
        (which, bytes) in any_record(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut changed = bytes.clone();
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        let kind = &KINDS[which];
        if changed != bytes {
            prop_assert!((kind.verify)(&changed).is_err(), "{}", kind.name);
        }
        if let Ok(again) = (kind.recode)(&changed) {
            prop_assert_eq!(&again, &changed, "{}", kind.name);
        }
    }

    /// Where a record ends another may begin, but not within one.
    #[test]
    fn no_record_is_the_beginning_of_another((which, bytes) in any_record(), more in 1usize..100) {
        let longer = [&bytes[..], &vec![0; more]].concat();
        prop_assert!((KINDS[which].recode)(&longer).is_err());
    }

    #[test]
    fn documented_sizes_hold(registration in any_registration()) {
        prop_assert_eq!(registration.heartbeat.encode().len(), Heartbeat::ENCODED);
        prop_assert!(registration.record.encode().len() <= RelayRecord::MAX_ENCODED);
    }
}
