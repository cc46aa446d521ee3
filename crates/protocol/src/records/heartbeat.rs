//! What a relay says to each directory again and again: that it is there, and what it has registered.
//!
//! A descriptor is signed by the relay's identity, and anybody can sign one with another relay's link key
//! in it, which is in every snapshot. Others would look for that relay at the signer's addresses. So
//! a directory asks for a MAC that takes one of two secrets to make: that of the link key, or that of the
//! directory's own session key, whose public part the snapshot has. Only that directory has to be
//! convinced: the snapshot stays as small as it is. No heartbeat is kept on a disk, none takes a signature.

use ring::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::relay_record::RelayRecord;
use crate::identity::{Digest, RelayId, X25519Public, X25519Secret};
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// Bytes of the proof.
const PROOF: usize = 16;
const WHAT: &str = "heartbeat";
const LABEL: &[u8] = b"mixline/v2/heartbeat";

/// A relay is there.
///
/// ```text
/// relay ID 32 | version 8 | load 4 | leaving 1 | digest of the relay record 32 | proof 16
///
/// proof = HMAC16(SHA-256("mixline/v2/heartbeat" | X25519(link key, directory's session key)), what stands before)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which relay.
    pub relay: RelayId,
    /// Grows with each one that a relay sends: the time of making it, in milliseconds.
    pub version: u64,
    /// Datagrams a second that it relays at present.
    pub load: u32,
    /// Whether it leaves, and is to be listed no more.
    pub leaving: bool,
    /// Of its newest record.
    pub record: Digest,
    proof: [u8; PROOF],
}

impl Heartbeat {
    /// Bytes of an encoded heartbeat.
    pub const ENCODED: usize = 32 + 8 + 4 + 1 + 32 + PROOF;

    /// A heartbeat for the directory that has this session key. `link`: the secret of the relay's link key.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the directory's key is bad.
    pub fn new(
        relay: RelayId,
        version: u64,
        (load, leaving): (u32, bool),
        record: Digest,
        (link, directory): (&X25519Secret, &X25519Public),
    ) -> Result<Self> {
        let mut heartbeat = Self {
            relay,
            version,
            load,
            leaving,
            record,
            proof: [0; PROOF],
        };
        heartbeat.proof = heartbeat.mac(&link.exchange(directory)?);
        Ok(heartbeat)
    }

    /// The bytes that are sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.body();
        writer.bytes(&self.proof);
        writer.into_bytes()
    }

    /// Reads the form. Nothing is known of who made it before [`Heartbeat::verify`].
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        let read = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(read)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            relay: RelayId(reader.array()?),
            version: reader.u64()?,
            load: reader.u32()?,
            leaving: reader.flag()?,
            record: Digest(reader.array()?),
            proof: reader.array()?,
        })
    }

    /// Checks that who sends it has the relay's link key. `directory`: the secret of the directory's session
    /// key.
    ///
    /// # Errors
    /// [`Error::Authentication`]; [`Error::LowOrder`] if the link key is one whose secret everybody has.
    pub fn verify(&self, link: &X25519Public, directory: &X25519Secret) -> Result<()> {
        let expected = self.mac(&directory.exchange(link)?);
        if expected.ct_eq(&self.proof).into() {
            Ok(())
        } else {
            Err(Error::Authentication { what: WHAT })
        }
    }

    fn mac(&self, shared: &Zeroizing<[u8; 32]>) -> [u8; PROOF] {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(LABEL);
        hash.update(shared.as_ref());
        let key = hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref());
        let mut out = [0; PROOF];
        out.copy_from_slice(&hmac::sign(&key, self.body().written()).as_ref()[..PROOF]);
        out
    }

    fn body(&self) -> Writer {
        let mut writer = Writer::new();
        writer
            .bytes(&self.relay.0)
            .u64(self.version)
            .u32(self.load)
            .flag(self.leaving)
            .bytes(&self.record.0);
        writer
    }
}

/// A heartbeat and the record that it names, for a directory that may not have it.
///
/// ```text
/// heartbeat 93 | relay record
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// That the relay is there.
    pub heartbeat: Heartbeat,
    /// What it says of itself.
    pub record: RelayRecord,
}

impl Registration {
    /// The most bytes of an encoded registration.
    pub const MAX_ENCODED: usize = Heartbeat::ENCODED + RelayRecord::MAX_ENCODED;

    /// The bytes that are sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.heartbeat.encode();
        bytes.extend_from_slice(&self.record.encode());
        bytes
    }

    /// Reads the form, and that one is about the other. Nothing is known of who made it before
    /// [`Heartbeat::verify`] and [`RelayRecord::verify`].
    ///
    /// # Errors
    /// Those of [`Heartbeat::decode`] and [`RelayRecord::decode`]; [`Error::Malformed`] if they are not about
    /// the same record of the same relay.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        let heartbeat = Heartbeat::read(&mut reader)?;
        let left = reader.left();
        let record = RelayRecord::decode(reader.take(left)?)?;
        if heartbeat.relay != record.descriptor.id || heartbeat.record != record.digest() {
            return Err(reader.malformed());
        }
        Ok(Self { heartbeat, record })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::identity::IdentityKey;
    use crate::random::OsRandom;
    use crate::records::RelayDescriptor;
    use crate::time::UnixTime;

    fn record(identity: &IdentityKey, link: X25519Public) -> RelayRecord {
        let descriptor = RelayDescriptor {
            id: identity.relay_id(),
            version: 1,
            issued: UnixTime(1000),
            expires: UnixTime(1600),
            link,
            addresses: vec![SocketAddr::from(([192, 0, 2, 1], 7000))],
            capacity: 1,
            family: None,
            name: "relay".into(),
            software: String::new(),
            signature: [0; 64],
        };
        let onion = [(1, X25519Public([1; 32]))].into_iter().collect();
        RelayRecord::sign(descriptor.sign(identity).unwrap(), 1, onion, identity).unwrap()
    }

    fn registration(
        record: RelayRecord,
        link: &X25519Secret,
        directory: &X25519Public,
    ) -> Registration {
        let (relay, digest) = (record.descriptor.id, record.digest());
        let keys = (link, directory);
        let heartbeat = Heartbeat::new(relay, 7, (3, false), digest, keys).unwrap();
        Registration { heartbeat, record }
    }

    #[test]
    fn only_who_has_the_link_key_registers_it() {
        let rng = &mut OsRandom::new();
        let directory = X25519Secret::generate(rng);
        let (honest, bad) = (IdentityKey::generate(rng), IdentityKey::generate(rng));
        let link = X25519Secret::generate(rng);
        let right = registration(record(&honest, link.public()), &link, &directory.public());
        let read = Registration::decode(&right.encode()).unwrap();
        assert_eq!(read, right);
        read.heartbeat.verify(&link.public(), &directory).unwrap();
        read.record.verify(UnixTime(1000)).unwrap();
        assert!(right.encode().len() <= Registration::MAX_ENCODED);
        assert_eq!(right.heartbeat.encode().len(), Heartbeat::ENCODED);

        // Another one with the same link key, and a link key of its own to make proofs with.
        let refused = |heartbeat: &Heartbeat| {
            let error = heartbeat.verify(&link.public(), &directory).unwrap_err();
            assert_eq!(error, Error::Authentication { what: WHAT });
        };
        let stolen = record(&bad, link.public());
        let own = X25519Secret::generate(rng);
        refused(&registration(stolen.clone(), &own, &directory.public()).heartbeat);
        // The proof of the honest one's is of no use for another.
        refused(&Heartbeat {
            relay: bad.relay_id(),
            record: stolen.digest(),
            ..right.heartbeat.clone()
        });
        // Nor is one that was made for another directory, or one that was bent.
        let other = X25519Secret::generate(rng).public();
        refused(&registration(right.record.clone(), &link, &other).heartbeat);
        refused(&Heartbeat {
            leaving: true,
            ..right.heartbeat.clone()
        });
        // What everybody can compute proves nothing.
        let low = right.heartbeat.verify(&X25519Public([0; 32]), &directory);
        assert_eq!(low, Err(Error::LowOrder));
    }

    #[test]
    fn a_heartbeat_is_about_the_record_beside_it() {
        let rng = &mut OsRandom::new();
        let (link, identity) = (X25519Secret::generate(rng), IdentityKey::generate(rng));
        let directory = X25519Secret::generate(rng).public();
        let right = registration(record(&identity, link.public()), &link, &directory);
        let other = record(&IdentityKey::generate(rng), link.public());
        let wrong = [right.heartbeat.encode(), other.encode()].concat();
        assert!(Registration::decode(&wrong).is_err());
        let bytes = right.encode();
        for length in 0..bytes.len() {
            assert!(Registration::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Registration::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn keys_are_the_relays_and_of_consecutive_epochs() {
        let rng = &mut OsRandom::new();
        let (identity, other) = (IdentityKey::generate(rng), IdentityKey::generate(rng));
        let link = X25519Secret::generate(rng).public();
        let right = record(&identity, link);
        let foreign = RelayRecord {
            signature: record(&other, link).signature,
            ..right.clone()
        };
        assert!(foreign.verify(UnixTime(1000)).is_err());
        let key = X25519Public([1; 32]);
        let sign = |epochs: &[u32]| {
            let onion = epochs.iter().map(|epoch| (*epoch, key)).collect();
            RelayRecord::sign(right.descriptor.clone(), 2, onion, &identity)
        };
        assert!(sign(&[5, 6, 7, 8]).is_ok());
        assert!(sign(&[]).is_err() && sign(&[5, 7]).is_err() && sign(&[6, 5]).is_err());
    }
}
