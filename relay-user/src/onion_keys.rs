//! The onion keys of a relay: one for each epoch, erased when their time is over.
//!
//! The current epoch's and those of the next three are published, so that a snapshot is of use for hours.
//! Headers are tried with the current one's, the next one's, since clocks are not quite the same, and the
//! previous one's, which is honoured for the network's grace period: garbage costs no more than that. What was captured on the wire before cannot be opened
//! by anybody afterwards, this relay included.
//!
//! Epochs say for how long a key lives. Which key it is, its number says: clocks and lengths of
//! epochs change, and an epoch that comes again has another key.

use std::sync::Arc;

use mixline_protocol::epoch;
use mixline_protocol::path::OnionSecret;
use mixline_protocol::records::{MAX_ONION_KEYS, OnionKeys as Published, Parameters};
use mixline_protocol::time::UnixTime;
use mixline_protocol::wire::{Reader, Writer};
use mixline_protocol::{Error, Result};
use mixline_relay_engine::slow_path::{Keyring, LiveKeys};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const WHAT: &str = "onion keys";
const VERSION: u8 = 1;
/// Bytes before the keys in the form on disk.
const HEAD: usize = 10;
/// Epochs after the current one whose keys are published.
const AHEAD: u32 = MAX_ONION_KEYS as u32 - 1;
/// The previous, the current, and those to come.
const MOST: usize = 2 + AHEAD as usize;

/// Onion keys by epoch, and how long epochs are.
pub struct OnionKeys {
    epoch_seconds: u32,
    grace_seconds: u32,
    /// By epoch, ascending.
    keys: Vec<OnionKey>,
    /// The number of the next key.
    next: u32,
}

/// The key of an epoch.
struct OnionKey {
    epoch: u32,
    /// Its place in the order in which this process has made or read keys.
    number: u32,
    secret: Arc<OnionSecret>,
}

impl OnionKeys {
    /// No keys yet.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            epoch_seconds: parameters.epoch_seconds,
            grace_seconds: parameters.grace_seconds,
            keys: Vec::new(),
            next: 0,
        }
    }

    /// Takes the network's parameters. Another length of epochs makes all keys wrong, and
    /// they go; true if that happened.
    pub fn set_parameters(&mut self, parameters: &Parameters) -> bool {
        self.grace_seconds = parameters.grace_seconds;
        let changed = self.epoch_seconds != parameters.epoch_seconds;
        if changed {
            self.epoch_seconds = parameters.epoch_seconds;
            self.keys.clear();
        }
        changed
    }

    /// Makes the keys that are to be published at `now`, and erases those that are not
    /// honoured any more. True if anything changed, and so is to be stored.
    pub fn advance(&mut self, now: UnixTime, rng: &mut impl CryptoRng) -> bool {
        let current = epoch::current(now, self.epoch_seconds);
        let before = self.live();
        let (seconds, grace) = (self.epoch_seconds, self.grace_seconds);
        let last = current.saturating_add(AHEAD);
        self.keys
            .retain(|key| key.epoch <= last && now < epoch::ends(key.epoch, seconds, grace));
        // A grace longer than an epoch would keep more than the keyring has room for.
        self.keys
            .retain(|key| key.epoch.saturating_add(1) >= current);
        for wanted in current..=last {
            if !self.epochs().any(|n| n == wanted) {
                self.add(wanted, OnionSecret::generate(rng));
            }
        }
        self.keys.sort_by_key(|key| key.epoch);
        self.live() != before
    }

    fn add(&mut self, epoch: u32, secret: OnionSecret) {
        let (number, secret) = (self.next, Arc::new(secret));
        self.keys.push(OnionKey {
            epoch,
            number,
            secret,
        });
        self.next += 1;
    }

    /// The epochs that there are keys of, ascending.
    pub fn epochs(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|key| key.epoch)
    }

    /// The numbers of the keys that there are.
    #[must_use]
    pub fn live(&self) -> LiveKeys {
        LiveKeys::new(self.keys.iter().map(|key| key.number), self.next)
    }

    /// What is published at `now`: the keys of the current and the next three epochs.
    #[must_use]
    pub fn published(&self, now: UnixTime) -> Published {
        let current = epoch::current(now, self.epoch_seconds);
        let published = self.keys.iter().filter(|key| key.epoch >= current);
        published
            .map(|key| (key.epoch, key.secret.public()))
            .take(MAX_ONION_KEYS)
            .collect()
    }

    /// The keys that headers are tried with, in the order in which one that came at `now` is likely to fit: the
    /// current epoch's, then whichever of its neighbours is nearer. None of later epochs: each more would cost
    /// whatever fits none as much again.
    #[must_use]
    pub fn keyring(&self, now: UnixTime) -> Keyring {
        let current = epoch::current(now, self.epoch_seconds);
        let begins = epoch::starts(current, self.epoch_seconds);
        let early = now.since(begins) * 2 < u64::from(self.epoch_seconds);
        let near = |key: &&OnionKey| key.epoch <= current.saturating_add(1);
        let mut keys: Vec<&OnionKey> = self.keys.iter().filter(near).collect();
        keys.sort_by_key(|key| match key.epoch.cmp(&current) {
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Less => 2 - u8::from(early),
            std::cmp::Ordering::Greater => 1 + u8::from(early),
        });
        keys.into_iter()
            .map(|key| (key.number, Arc::clone(&key.secret)))
            .collect()
    }

    /// The form on disk: `version 1 | epoch seconds 4 | grace seconds 4 | count 1 |
    /// (epoch 4, secret 32)*`.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer::with_capacity(HEAD + self.keys.len() * (4 + 32));
        out.u8(VERSION)
            .u32(self.epoch_seconds)
            .u32(self.grace_seconds);
        out.u8(u8::try_from(self.keys.len()).unwrap_or(0));
        for key in &self.keys {
            out.u32(key.epoch).bytes(key.secret.to_bytes().as_ref());
        }
        Zeroizing::new(out.into_bytes())
    }

    /// Reads the form on disk.
    ///
    /// # Errors
    /// [`Error::Version`], [`Error::Length`], [`Error::Limit`], [`Error::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        if reader.u8()? != VERSION {
            return Err(Error::Version { what: WHAT });
        }
        let (epoch_seconds, grace_seconds) = (reader.u32()?, reader.u32()?);
        let count = usize::from(reader.u8()?);
        if count > MOST {
            return Err(Error::Limit { what: WHAT });
        }
        let mut read = Self {
            epoch_seconds,
            grace_seconds,
            keys: Vec::with_capacity(count),
            next: 0,
        };
        for _ in 0..count {
            let epoch = reader.u32()?;
            let secret = Zeroizing::new(reader.array()?);
            read.add(epoch, OnionSecret::from_bytes(*secret));
        }
        let ascending = read
            .keys
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch);
        if epoch_seconds == 0 || !ascending {
            return Err(reader.malformed());
        }
        reader.finish()?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::random::OsRandom;

    use super::*;

    const HOUR: u64 = 3600;

    fn keys() -> OnionKeys {
        OnionKeys::new(&Parameters::default())
    }

    fn epochs(keys: &OnionKeys) -> Vec<u32> {
        keys.epochs().collect()
    }

    #[test]
    fn an_epoch_and_the_next_three() {
        let mut rng = OsRandom::new();
        let mut keys = keys();
        assert!(keys.advance(UnixTime(10 * HOUR), &mut rng));
        assert!(!keys.advance(UnixTime(10 * HOUR + 3599), &mut rng));
        assert_eq!(epochs(&keys), [10, 11, 12, 13]);
        let eleventh = keys.published(UnixTime(10 * HOUR))[1].1;
        // The next epoch: its key is the one that was published, the last is honoured.
        let now = UnixTime(11 * HOUR);
        assert!(keys.advance(now, &mut rng));
        assert_eq!(epochs(&keys), [10, 11, 12, 13, 14]);
        assert_eq!(keys.published(now)[0], (11, eleventh));
        assert_eq!(keys.published(now).len(), MAX_ONION_KEYS);
        // Keys are numbered as they were made. Only neighbours are tried.
        let order =
            |keys: &OnionKeys, now| keys.keyring(now).iter().map(|k| k.0).collect::<Vec<_>>();
        assert_eq!(order(&keys, now), [1, 0, 2]);
        // After the grace period the previous one is gone.
        assert!(!keys.advance(UnixTime(11 * HOUR + 299), &mut rng));
        assert!(keys.advance(UnixTime(11 * HOUR + 300), &mut rng));
        assert_eq!(epochs(&keys), [11, 12, 13, 14]);
        let late = UnixTime(11 * HOUR + 3500);
        assert_eq!(order(&keys, late), [1, 2]);
    }

    #[test]
    fn clocks_that_jump() {
        let mut rng = OsRandom::new();
        let mut keys = keys();
        keys.advance(UnixTime(10 * HOUR), &mut rng);
        let before = keys.published(UnixTime(10 * HOUR));
        keys.advance(UnixTime(100 * HOUR), &mut rng);
        assert_eq!(epochs(&keys), [100, 101, 102, 103]);
        keys.advance(UnixTime(10 * HOUR), &mut rng);
        assert_eq!(epochs(&keys), [10, 11, 12, 13]);
        assert_ne!(
            keys.published(UnixTime(10 * HOUR)),
            before,
            "erased is erased"
        );
        // The epoch is the same one, the key is not.
        let live = |keys: &OnionKeys| (0..12).map(|n| keys.live().is_live(n)).collect::<Vec<_>>();
        assert_eq!(live(&keys), [[false; 8].as_slice(), &[true; 4]].concat());
        // Longer epochs: their numbers are smaller, those of keys go on.
        let longer = Parameters {
            epoch_seconds: 24 * 3600,
            ..Parameters::default()
        };
        assert!(keys.set_parameters(&longer));
        assert!(keys.advance(UnixTime(10 * HOUR), &mut rng));
        assert_eq!(epochs(&keys), [0, 1, 2, 3]);
        assert!(!keys.live().is_live(11) && keys.live().is_live(13));
    }

    #[test]
    fn other_epochs_need_other_keys() {
        let mut rng = OsRandom::new();
        let mut keys = keys();
        keys.advance(UnixTime(10 * HOUR), &mut rng);
        let other = Parameters {
            epoch_seconds: 60,
            grace_seconds: 100,
            ..Parameters::default()
        };
        assert!(keys.set_parameters(&other));
        assert!(!keys.set_parameters(&other));
        for minute in 0..10 {
            keys.advance(UnixTime(10 * HOUR + minute * 60), &mut rng);
            assert!(keys.epochs().count() <= MOST);
            let now = UnixTime(10 * HOUR + minute * 60);
            assert!(
                keys.keyring(now).len() <= 3,
                "garbage costs that many exchanges"
            );
        }
    }

    #[test]
    fn stored_and_read() {
        let mut keys = keys();
        let now = UnixTime(10 * HOUR);
        keys.advance(now, &mut OsRandom::new());
        let bytes = keys.encode();
        let read = OnionKeys::decode(&bytes).unwrap();
        assert_eq!(read.published(now), keys.published(now));
        assert_eq!(read.encode(), bytes);
        assert_eq!(bytes.len(), HEAD + 4 * 36);
        for length in 0..bytes.len() {
            assert!(OnionKeys::decode(&bytes[..length]).is_err());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(OnionKeys::decode(&longer).is_err());
    }
}
