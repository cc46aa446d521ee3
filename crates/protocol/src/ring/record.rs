//! Records: what a relay of the ring keeps of a service.
//!
//! ```text
//! record 3072 = head 72 | sealed 2920 + 16 | signature 64
//! head 72     = blinded ID 32 | period 8 | revision 8 | expires 8 | salt 16
//! sealed      = AES-256-GCM(key, nonce zero 12, aad = head) { length 2 | content | zeros }
//! key         = HKDF-SHA256(salt, ikm = credential 32, info = "mixline/v2/ring record" | head[..56], 32 bytes)
//! signature   = by the blinded key over all before it, domain "mixline/v2/ring record"
//! ```
//!
//! The content is a service descriptor, without a list of clients: who may read it is decided by whose the record
//! is ([`super::credential`]). The end is a multiple of a quarter of an hour and three hours off at most.

use std::fmt;

use rand_core::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::blinding::{BlindedId, BlindedKey, Terms};
use super::credential::Credential;
use crate::authorisation::{ENTRIES, TOKEN};
use crate::identity::{SIGNATURE, first_bytes, verify};
use crate::records::{CLOCK_SKEW, ServiceDescriptor};
use crate::size::TAG;
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// Bytes of every record.
pub const RECORD: usize = 3072;
/// The longest that a record may live, in seconds.
pub const LIFE: u64 = 3 * 3600;
/// Ends are multiples of this, in seconds: they tell nothing of a clock.
pub const STEP: u64 = 900;
/// Bytes of a salt.
const SALT: usize = 16;
/// What the salt stands behind.
const TERMS: usize = 32 + 3 * 8;
const HEAD: usize = TERMS + SALT;
const SEALED: usize = RECORD - HEAD - TAG - SIGNATURE;
/// The most bytes of content.
pub const CONTENT: usize = SEALED - 2;

const WHAT: &str = "ring record";
const DOMAIN: &str = "mixline/v2/ring record";
const FAILED: Error = Error::Authentication { what: DOMAIN };

// A descriptor without a list of clients fits.
const _: () = assert!(ServiceDescriptor::MAX_ENCODED - ENTRIES * TOKEN <= CONTENT);

/// A record in its one encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Box<[u8; RECORD]>);

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("blinded", &self.blinded())
            .field("period", &self.period())
            .field("revision", &self.revision())
            .field("expires", &self.expires())
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Reads the form. Nothing is known of who made it before [`Record::verify`].
    ///
    /// # Errors
    /// [`Error::Length`], or [`Error::Malformed`] if the end is no multiple of [`STEP`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        let record = Self(Box::new(reader.array()?));
        reader.finish()?;
        if record.expires().0.is_multiple_of(STEP) {
            Ok(record)
        } else {
            Err(Error::Malformed { what: WHAT })
        }
    }

    /// The bytes of the record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; RECORD] {
        &self.0
    }

    /// The key that it is signed by and kept under.
    #[must_use]
    pub fn blinded(&self) -> BlindedId {
        BlindedId(first_bytes(&self.0[..32]))
    }

    /// The period that it is for.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.number(32)
    }

    /// Grows with each record under one key.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.number(40)
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        UnixTime(self.number(48))
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_be_bytes(first_bytes(&self.0[at..]))
    }

    /// Seals a descriptor that its ID has signed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it has a list of clients.
    pub fn seal(
        key: &BlindedKey,
        terms: Terms,
        descriptor: &ServiceDescriptor,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self> {
        if descriptor.clients.is_some() {
            return Err(Error::Malformed { what: WHAT });
        }
        let mut salt = [0; SALT];
        rng.fill_bytes(&mut salt);
        Self::seal_content(key, terms, salt, &descriptor.encode())
    }

    /// Seals bytes under a salt, which is never used twice.
    ///
    /// # Errors
    /// [`Error::Limit`] if they are more than [`CONTENT`]; [`Error::Malformed`] if the end is no multiple of
    /// [`STEP`].
    pub fn seal_content(
        key: &BlindedKey,
        terms: Terms,
        salt: [u8; SALT],
        content: &[u8],
    ) -> Result<Self> {
        if content.len() > CONTENT {
            return Err(Error::Limit { what: WHAT });
        }
        let length = u16::try_from(content.len()).map_err(|_| Error::Limit { what: WHAT })?;
        let mut writer = Writer::with_capacity(RECORD);
        writer.bytes(&key.id().0).u64(key.period);
        writer.u64(terms.revision).u64(terms.expires.0).bytes(&salt);
        let mut sealed = Zeroizing::new([0; SEALED]);
        sealed[..2].copy_from_slice(&length.to_be_bytes());
        sealed[2..2 + content.len()].copy_from_slice(content);
        let tag = sealing_key(&key.credential, first(writer.written())?)?
            .seal_in_place_separate_tag(nonce(), Aad::from(writer.written()), sealed.as_mut())
            .map_err(|_| FAILED)?;
        writer.bytes(sealed.as_ref()).bytes(tag.as_ref());
        let signature = key.sign(DOMAIN, writer.written());
        writer.bytes(&signature);
        Self::parse(&writer.into_bytes())
    }

    /// Checks that it is in its life, then the signature: what a relay asks before it keeps one, and a reader
    /// before it opens one.
    ///
    /// # Errors
    /// [`Error::Expired`]; [`Error::Limit`] if it would live for longer than [`LIFE`]; [`Error::Authentication`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        self.check_life(now)?;
        let (signed, signature) = self.0.split_last_chunk().ok_or(FAILED)?;
        verify(&self.blinded().0, DOMAIN, signed, signature)
    }

    /// The part of [`Record::verify`] that costs nothing.
    pub(super) fn check_life(&self, now: UnixTime) -> Result<()> {
        let expires = self.expires();
        if now >= expires {
            return Err(Error::Expired {
                what: WHAT,
                at: expires.0,
            });
        }
        if expires > now.plus(LIFE + CLOCK_SKEW) {
            return Err(Error::Limit { what: WHAT });
        }
        Ok(())
    }

    /// The descriptor in a record for a period that was asked for, verified: it is the service's, and holds now.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the record is another service's, another period's or for another client;
    /// those of [`Record::verify`]; those of [`ServiceDescriptor::decode_and_verify`]; [`Error::Malformed`] if the
    /// descriptor is another ID's, or has a list of clients.
    pub fn open(
        &self,
        credential: &Credential,
        period: u64,
        now: UnixTime,
    ) -> Result<ServiceDescriptor> {
        let content = self.open_content(credential, period, now)?;
        let descriptor = ServiceDescriptor::decode_and_verify(&content, now)?;
        if descriptor.id != credential.id() || descriptor.clients.is_some() {
            return Err(Error::Malformed { what: WHAT });
        }
        Ok(descriptor)
    }

    /// The bytes in a record for a period that was asked for.
    ///
    /// # Errors
    /// As [`Record::open`], but for those of descriptors; [`Error::Malformed`] if what is left of the room is not
    /// zeros.
    pub fn open_content(
        &self,
        credential: &Credential,
        period: u64,
        now: UnixTime,
    ) -> Result<Zeroizing<Vec<u8>>> {
        if self.period() != period || self.blinded() != credential.blinded_id(period)? {
            return Err(FAILED);
        }
        self.verify(now)?;
        let (head, sealed) = self.0.split_at(HEAD);
        let tag = first_bytes::<TAG>(&sealed[SEALED..]).into();
        let mut plain = Zeroizing::new(sealed[..SEALED].to_vec());
        sealing_key(&credential.digest(), first(head)?)?
            .open_in_place_separate_tag(nonce(), Aad::from(head), tag, &mut plain, 0..)
            .map_err(|_| FAILED)?;
        let mut reader = Reader::new(&plain, WHAT);
        let length = usize::from(reader.u16()?);
        let content = Zeroizing::new(reader.take(length)?.to_vec());
        reader.zeros()?;
        Ok(content)
    }
}

fn first(head: &[u8]) -> Result<&[u8; HEAD]> {
    head.first_chunk().ok_or(FAILED)
}

/// The key of a record. It is another one for each salt, and each revision too, so that one nonce will do.
fn sealing_key(credential: &[u8; 32], head: &[u8; HEAD]) -> Result<LessSafeKey> {
    let (terms, salt) = head.split_at(TERMS);
    let info = [DOMAIN.as_bytes(), terms];
    Salt::new(HKDF_SHA256, salt)
        .extract(credential)
        .expand(&info, &AES_256_GCM)
        .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
        .map_err(|_| FAILED)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::authorisation::{Authorisation, Entry};
    use crate::effort::EffortTerms;
    use crate::identity::{IdentityKey, X25519Public, X25519Secret};
    use crate::path::PublishedTail;
    use crate::random::OsRandom;
    use crate::records::{Lease, MAX_TAILS, TailOffer};

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const PERIOD: u64 = NOW.0 / 86_400;

    fn service() -> IdentityKey {
        IdentityKey::from_seed([1; 32])
    }

    fn all() -> Credential {
        Credential::of(service().anonymous_id())
    }

    fn terms() -> Terms {
        Terms {
            revision: 5,
            expires: NOW.plus(STEP),
        }
    }

    fn key() -> BlindedKey {
        all().blinded_key(&service(), PERIOD).unwrap()
    }

    fn sealed(content: &[u8]) -> Record {
        Record::seal_content(&key(), terms(), [9; SALT], content).unwrap()
    }

    /// The longest there is.
    fn descriptor(clients: bool) -> ServiceDescriptor {
        let key = service();
        let tail = PublishedTail {
            first: crate::identity::ShortId([7; 8]),
            alpha: [8; 32],
            gamma: [9; 16],
            beta: [10; 100],
            seed: [11; 16],
        };
        let tail = TailOffer {
            tail,
            expires: NOW.plus(300),
        };
        let directory = IdentityKey::from_seed([3; 32]);
        let id = key.anonymous_id();
        ServiceDescriptor {
            id,
            version: 1,
            issued: NOW,
            expires: NOW.plus(600),
            session: X25519Public([12; 32]),
            effort: EffortTerms::default(),
            lease: Some(Lease::grant(
                [10, 1, 2, 3].into(),
                id,
                NOW.plus(600),
                &directory,
            )),
            tails: vec![tail; MAX_TAILS],
            clients: clients.then(|| (0..ENTRIES as u8).map(|n| Entry([n; TOKEN])).collect()),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }

    #[test]
    fn the_longest_descriptor_goes_there_and_back() {
        let descriptor = descriptor(false);
        let longest = ServiceDescriptor::MAX_ENCODED - ENTRIES * TOKEN;
        assert_eq!(descriptor.encode().len(), longest);
        let rng = &mut OsRandom::new();
        let record = Record::seal(&key(), terms(), &descriptor, rng).unwrap();
        assert_eq!(record.verify(NOW), Ok(()));
        assert_eq!(record.open(&all(), PERIOD, NOW), Ok(descriptor.clone()));
        let again = Record::seal(&key(), terms(), &descriptor, rng).unwrap();
        assert_ne!(
            again.as_bytes()[HEAD..HEAD + 32],
            record.as_bytes()[HEAD..HEAD + 32]
        );
        assert_eq!(Record::parse(record.as_bytes()), Ok(record.clone()));
        assert_eq!(record.as_bytes().len(), RECORD);
        let head = (
            record.blinded(),
            record.period(),
            record.revision(),
            record.expires(),
        );
        assert_eq!(head, (key().id(), PERIOD, 5, NOW.plus(STEP)));
    }

    #[test]
    fn a_list_of_clients_stays_out() {
        let listed = descriptor(true);
        assert!(Record::seal(&key(), terms(), &listed, &mut OsRandom::new()).is_err());
        let record = sealed(&listed.encode());
        assert!(record.open(&all(), PERIOD, NOW).is_err());
    }

    #[test]
    fn a_descriptor_of_somebody_else_is_none() {
        let mut other = descriptor(false);
        let key = IdentityKey::from_seed([2; 32]);
        other.id = key.anonymous_id();
        other.lease = None;
        let record = sealed(&other.sign(&key).unwrap().encode());
        assert_eq!(
            record.open(&all(), PERIOD, NOW),
            Err(Error::Malformed { what: WHAT })
        );
    }

    /// Neither other clients of the service, nor who knows its ID, nor who knows another ID.
    #[test]
    fn a_clients_record_is_nobody_elses() {
        let id = service().anonymous_id();
        let of = |n: u8| {
            let client = X25519Secret::from_bytes([n; 32]);
            let theirs = Authorisation::of_client(&client, &id).unwrap();
            let ours = Authorisation::of_service(&service(), &client.public()).unwrap();
            (
                Credential::of_client(id, &theirs),
                Credential::of_client(id, &ours),
            )
        };
        let (theirs, ours) = of(1);
        let key = ours.blinded_key(&service(), PERIOD).unwrap();
        let record = Record::seal_content(&key, terms(), [9; SALT], b"text").unwrap();
        assert_eq!(record.verify(NOW), Ok(()));
        let opened = theirs.open_content(&record).unwrap();
        assert_eq!(&opened[..], b"text");
        let another = Credential::of(IdentityKey::from_seed([2; 32]).anonymous_id());
        for other in [of(2).0, all(), another] {
            assert_eq!(other.open_content(&record).unwrap_err(), FAILED);
            // Nor does it help to be told where it is.
            assert!(
                sealing_key(&other.digest(), first(&record.0[..HEAD]).unwrap()).is_ok_and(|key| {
                    let mut bytes = record.0[HEAD..HEAD + SEALED + TAG].to_vec();
                    let aad = Aad::from(&record.0[..HEAD]);
                    key.open_in_place(nonce(), aad, &mut bytes).is_err()
                })
            );
        }
    }

    impl Credential {
        fn open_content(&self, record: &Record) -> Result<Zeroizing<Vec<u8>>> {
            record.open_content(self, PERIOD, NOW)
        }
    }

    #[test]
    fn only_one_end_and_one_period_will_do() {
        let key = key();
        for (expires, verified) in [
            (NOW.0, false),
            (NOW.0 + STEP, true),
            (NOW.0 + LIFE, true),
            (NOW.0 + LIFE + STEP, false),
            (u64::MAX / STEP * STEP, false),
        ] {
            let terms = Terms {
                expires: UnixTime(expires),
                ..terms()
            };
            let record = Record::seal_content(&key, terms, [9; SALT], b"text").unwrap();
            assert_eq!(record.verify(NOW).is_ok(), verified, "{expires}");
        }
        let between = Terms {
            expires: NOW.plus(1),
            ..terms()
        };
        assert!(Record::seal_content(&key, between, [9; SALT], b"text").is_err());
        let record = sealed(b"text");
        assert!(record.open_content(&all(), PERIOD + 1, NOW).is_err());
        // Clocks may be apart.
        let long = Terms {
            expires: NOW.plus(LIFE),
            ..terms()
        };
        let record = Record::seal_content(&key, long, [9; SALT], b"text").unwrap();
        assert_eq!(record.verify(NOW.minus(CLOCK_SKEW)), Ok(()));
        assert!(record.verify(NOW.minus(CLOCK_SKEW + 1)).is_err());
    }

    /// A record with other sealed bytes under its key, which everybody can make who knows the ID, and no signature.
    fn resealed(record: &Record, plain: &[u8; SEALED]) -> [u8; RECORD] {
        let mut record = *record.0;
        let head: [u8; HEAD] = first_bytes(&record);
        let mut sealed = *plain;
        let tag = sealing_key(&all().digest(), &head)
            .unwrap()
            .seal_in_place_separate_tag(nonce(), Aad::from(&head), &mut sealed)
            .unwrap();
        record[HEAD..HEAD + SEALED].copy_from_slice(&sealed);
        record[HEAD + SEALED..][..TAG].copy_from_slice(tag.as_ref());
        record
    }

    /// Who knows the ID has the key of the content. The signature says whose it is.
    #[test]
    fn a_reader_takes_what_the_service_has_signed_and_only_in_its_life() {
        let record = sealed(b"text");
        let forged = Record::parse(&resealed(&record, &[0; SEALED])).unwrap();
        assert_eq!(all().open_content(&forged), Err(FAILED));
        let late = record.open_content(&all(), PERIOD, NOW.plus(STEP));
        assert!(matches!(late, Err(Error::Expired { .. })));
        let early = record.open_content(&all(), PERIOD, NOW.minus(LIFE));
        assert_eq!(early, Err(Error::Limit { what: WHAT }));
    }

    /// What is behind the content is zeros, also when the service itself has sealed something else.
    #[test]
    fn there_is_one_encoding() {
        let mut plain = [0; SEALED];
        (plain[1], plain[SEALED - 1]) = (4, 1);
        let mut record = resealed(&sealed(b"text"), &plain);
        let signature = key().sign(DOMAIN, &record[..RECORD - SIGNATURE]);
        record[RECORD - SIGNATURE..].copy_from_slice(&signature);
        let record = Record::parse(&record).unwrap();
        assert_eq!(record.verify(NOW), Ok(()));
        let error = all().open_content(&record).unwrap_err();
        assert_eq!(error, Error::Malformed { what: WHAT });
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let record = sealed(b"text");
        for at in (0..RECORD).step_by(7).chain(RECORD - SIGNATURE..RECORD) {
            let mut bytes = *record.0;
            bytes[at] ^= 1 << (at % 8);
            let changed = Record::parse(&bytes);
            assert!(
                changed.is_err() || changed.unwrap().verify(NOW).is_err(),
                "{at}"
            );
        }
        for length in [0, 1, RECORD - 1] {
            assert!(Record::parse(&record.0[..length]).is_err());
        }
        let long = [&record.0[..], &[0]].concat();
        assert!(Record::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(content in proptest::collection::vec(any::<u8>(), 0..=CONTENT)) {
            let opened = all().open_content(&sealed(&content)).unwrap();
            prop_assert_eq!(&opened[..], &content[..]);
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        assert!(Record::seal_content(&key(), terms(), [9; SALT], &[1; CONTENT]).is_ok());
        let error = Record::seal_content(&key(), terms(), [9; SALT], &[1; CONTENT + 1]);
        assert_eq!(error, Err(Error::Limit { what: WHAT }));
    }
}
