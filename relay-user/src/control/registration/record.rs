//! What a relay says of itself, made anew when something in it changes or its time is nearly over.

use std::sync::Arc;

use mixline_protocol::Result;
use mixline_protocol::identity::{IdentityKey, SIGNATURE, X25519Public};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{CLOCK_SKEW, MAX_TEXT, OnionKeys, RelayDescriptor, RelayRecord};
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;

use crate::reload::Offer;

/// How long a descriptor lives, in seconds.
const LIFE: u64 = 18 * 3600;
/// After so long it is replaced, or up to a quarter earlier, by chance: relays that have started
/// together are not all new in one round.
const HALF: u64 = LIFE / 2;

/// Makes the records of a relay.
pub struct Maker {
    identity: Arc<IdentityKey>,
    link: X25519Public,
    /// How many of the addresses stand behind the others.
    first: usize,
    made: Option<Made>,
}

struct Made {
    record: Arc<RelayRecord>,
    replaced_at: UnixTime,
}

impl Maker {
    /// For the relay of these keys.
    pub fn new(identity: Arc<IdentityKey>, link: X25519Public) -> Self {
        Self {
            identity,
            link,
            first: 0,
            made: None,
        }
    }

    /// Puts the next of the relay's addresses first.
    pub fn rotate(&mut self) {
        self.first += 1;
    }

    /// The record that counts at `now`: the last one, if it says all that is to be said. `known`: the version of
    /// the descriptor that others have. `version` gives a new one each time.
    ///
    /// # Errors
    /// [`mixline_protocol::Error`] if something in it is too long, or too much.
    pub fn record(
        &mut self,
        offer: &Offer,
        onion: OnionKeys,
        now: UnixTime,
        known: u64,
        mut version: impl FnMut() -> u64,
    ) -> Result<Arc<RelayRecord>> {
        let last = self.made.as_ref();
        let wanted = self.describe(offer);
        let kept = last.filter(|made| made.holds(&wanted, now, known));
        if let Some(made) = kept
            && made.has_all(&onion)
        {
            return Ok(Arc::clone(&made.record));
        }
        let (descriptor, replaced_at) = match kept {
            Some(made) => (made.record.descriptor.clone(), made.replaced_at),
            None => {
                let descriptor = RelayDescriptor {
                    version: version(),
                    issued: now,
                    expires: now.plus(LIFE),
                    ..wanted
                };
                let early = OsRandom::new().next_u64() % (HALF / 4);
                (descriptor.sign(&self.identity)?, now.plus(HALF - early))
            }
        };
        let record = RelayRecord::sign(descriptor, version(), onion, &self.identity)?;
        let record = Arc::new(record);
        self.made = Some(Made {
            record: Arc::clone(&record),
            replaced_at,
        });
        Ok(record)
    }

    /// What the relay says of itself, not yet when, and not signed.
    fn describe(&self, offer: &Offer) -> RelayDescriptor {
        let mut addresses = offer.advertise.clone();
        let count = addresses.len().max(1);
        addresses.rotate_left(self.first % count);
        RelayDescriptor {
            id: self.identity.relay_id(),
            version: 0,
            issued: UnixTime(0),
            expires: UnixTime(0),
            link: self.link,
            addresses,
            capacity: offer.capacity,
            family: offer.family.clone(),
            name: offer.name.clone(),
            software: software(),
            signature: [0; SIGNATURE],
        }
    }
}

impl Made {
    /// Whether the descriptor says what is wanted, and its time has come and is not nearly over.
    fn holds(&self, wanted: &RelayDescriptor, now: UnixTime, known: u64) -> bool {
        let made = &self.record.descriptor;
        let same = RelayDescriptor {
            version: made.version,
            issued: made.issued,
            expires: made.expires,
            signature: made.signature,
            ..wanted.clone()
        };
        // The clock may have been set back since: others would not take it yet.
        let begun = made.issued.since(now) <= CLOCK_SKEW / 2;
        *made == same && begun && now < self.replaced_at && known <= made.version
    }

    /// One key less than before is nothing to say: its epoch is over.
    fn has_all(&self, onion: &OnionKeys) -> bool {
        onion.iter().all(|key| self.record.onion.contains(key))
    }
}

/// What this relay runs, for its descriptor.
fn software() -> String {
    let mut text = concat!("mixline-relay ", env!("CARGO_PKG_VERSION")).to_owned();
    text.truncate(MAX_TEXT);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn offer() -> Offer {
        Offer {
            name: "relay".into(),
            family: None,
            capacity: 7,
            contact: None,
            bandwidth: None,
            monthly: None,
            advertise: ["192.0.2.1:7000", "[2001:db8::1]:7000"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            directories: vec!["http://192.0.2.9".into()],
        }
    }

    fn keys(epochs: std::ops::Range<u32>) -> OnionKeys {
        let key = |epoch: u32| (epoch, X25519Public([epoch as u8; 32]));
        epochs.map(key).collect()
    }

    struct Setting {
        maker: Maker,
        version: u64,
    }

    impl Setting {
        fn new() -> Self {
            let identity = Arc::new(IdentityKey::from_seed([3; 32]));
            Self {
                maker: Maker::new(identity, X25519Public([1; 32])),
                version: 100,
            }
        }

        fn record(&mut self, offer: &Offer, keys: OnionKeys, now: u64) -> Arc<RelayRecord> {
            let version = &mut self.version;
            let next = || {
                *version += 1;
                *version
            };
            let record = self
                .maker
                .record(offer, keys, UnixTime(now), 0, next)
                .unwrap();
            record.verify(UnixTime(now)).unwrap();
            record
        }
    }

    #[test]
    fn a_record_stays_the_same_until_something_changes() {
        let mut setting = Setting::new();
        let start = 100 * HOUR;
        let first = setting.record(&offer(), keys(100..104), start);
        let life = first.descriptor.expires.since(first.descriptor.issued);
        assert_eq!(life, 18 * HOUR);
        for minute in 0..60 {
            let same = setting.record(&offer(), keys(100..104), start + minute * 60);
            assert_eq!(same, first);
        }
        // In the next epoch one key less is no news, and a new one is.
        let now = start + HOUR;
        assert_eq!(setting.record(&offer(), keys(101..104), now), first);
        let next = setting.record(&offer(), keys(101..105), now);
        assert_eq!(next.descriptor, first.descriptor, "it is stable");
        assert!(next.onion == keys(101..105) && next.age() > first.age());
        // What is configured anew is said at once.
        let more = Offer {
            capacity: 8,
            ..offer()
        };
        let changed = setting.record(&more, keys(101..105), now);
        assert_eq!(changed.descriptor.capacity, 8);
        assert!(changed.age() > next.age() && changed.descriptor.issued == UnixTime(now));
        // What others never hear of is nothing new.
        let contact = Offer {
            contact: Some("me".into()),
            ..more
        };
        assert_eq!(setting.record(&contact, keys(101..105), now), changed);
    }

    #[test]
    fn half_a_life_is_never_passed_and_not_all_relays_are_new_at_once() {
        let start = 100 * HOUR;
        let renewed = |_| {
            let mut setting = Setting::new();
            let first = setting.record(&offer(), keys(1..2), start);
            let after = (0..).step_by(60).find(|passed| {
                let record = setting.record(&offer(), keys(1..2), start + passed);
                record.descriptor != first.descriptor
            });
            after.unwrap()
        };
        let times: Vec<u64> = (0..8).map(renewed).collect();
        assert!(
            times.iter().all(|t| (6 * HOUR..=9 * HOUR).contains(t)),
            "{times:?}"
        );
        assert!(times.iter().any(|time| *time != times[0]), "{times:?}");
    }

    #[test]
    fn clocks_that_were_set_back_and_versions_of_before() {
        let mut setting = Setting::new();
        let start = 100 * HOUR;
        let ahead = setting.record(&offer(), keys(1..2), start);
        let back = setting.record(&offer(), keys(1..2), start - 5 * HOUR);
        assert_eq!(back.descriptor.issued, UnixTime(start - 5 * HOUR));
        assert!(back.age() > ahead.age());
        // Others have one of an earlier run that is newer, by its version.
        let beyond = setting.maker.record(
            &offer(),
            keys(1..2),
            UnixTime(start - 5 * HOUR),
            5000,
            || 5001,
        );
        assert_eq!(beyond.unwrap().descriptor.version, 5001);
    }

    #[test]
    fn the_first_address_changes_places() {
        let mut setting = Setting::new();
        let first = setting.record(&offer(), keys(1..2), 1000);
        setting.maker.rotate();
        let second = setting.record(&offer(), keys(1..2), 1000);
        assert_eq!(
            second.descriptor.addresses[0],
            first.descriptor.addresses[1]
        );
        assert_eq!(
            second.descriptor.addresses[1],
            first.descriptor.addresses[0]
        );
    }

    #[test]
    fn what_cannot_be_said_is_an_error() {
        let mut setting = Setting::new();
        let bad = Offer {
            name: "no spaces".into(),
            ..offer()
        };
        let made = setting
            .maker
            .record(&bad, keys(1..2), UnixTime(1000), 0, || 1);
        assert!(made.is_err());
        assert!(software().len() <= MAX_TEXT);
    }
}
