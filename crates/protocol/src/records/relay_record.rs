//! What a relay registers: its descriptor, and the onion keys of the epochs to come.

use super::format::{read_nested, write_nested};
use super::onion_keys::{self, MAX_ONION_KEYS, OnionKeys};
use super::relay::RelayDescriptor;
use crate::Result;
use crate::identity::{Digest, IdentityKey, SIGNATURE, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};

const WHAT: &str = "relay record";
const DOMAIN: &str = "mixline/v2/relay record";

/// A relay's descriptor and onion keys, each signed by the relay.
///
/// ```text
/// length 2 | relay descriptor | version 8 | first epoch 4 | count 1 | key 32 * count | signature 64
/// ```
///
/// The second signature is over all that stands before it, so that nobody puts keys of one record beside the
/// descriptor of another. Directories check it, and vouch for the keys in the snapshot, which does not have it:
/// who could put another key in its place could leave the relay out as well, and learns nothing by either, since
/// the link to the relay is sealed for the link key, which the descriptor has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRecord {
    /// What changes seldom.
    pub descriptor: RelayDescriptor,
    /// Grows with each set of keys: the time of making it, in milliseconds.
    pub version: u64,
    /// The keys.
    pub onion: OnionKeys,
    /// The relay's signature of the keys; [`RelayRecord::sign`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl RelayRecord {
    /// The most bytes of an encoded record.
    pub const MAX_ENCODED: usize =
        2 + RelayDescriptor::MAX_ENCODED + 8 + 4 + 1 + MAX_ONION_KEYS * 32 + SIGNATURE;

    /// The record of a signed descriptor.
    ///
    /// # Errors
    /// [`crate::Error::Authentication`] if the key is not the relay's, [`crate::Error::Malformed`] if the
    /// keys are not of consecutive epochs.
    pub fn sign(
        descriptor: RelayDescriptor,
        version: u64,
        onion: OnionKeys,
        key: &IdentityKey,
    ) -> Result<Self> {
        if key.relay_id() != descriptor.id {
            return Err(crate::Error::Authentication { what: DOMAIN });
        }
        onion_keys::check(&onion, WHAT)?;
        let mut record = Self {
            descriptor,
            version,
            onion,
            signature: [0; SIGNATURE],
        };
        record.signature = key.sign(DOMAIN, record.body().written());
        Ok(record)
    }

    /// The bytes of the record, signatures included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.body();
        writer.bytes(&self.signature);
        writer.into_bytes()
    }

    /// Reads the form. Nothing is known of who made it before [`RelayRecord::verify`].
    ///
    /// # Errors
    /// [`crate::Error::Length`], [`crate::Error::Malformed`], [`crate::Error::Version`], [`crate::Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        let descriptor = RelayDescriptor::decode(read_nested(&mut reader)?)?;
        let version = reader.u64()?;
        let (first, count) = (reader.u32()?, reader.u8()?);
        let onion = onion_keys::read(&mut reader, first, count, WHAT)?;
        let signature = reader.array()?;
        reader.finish()?;
        Ok(Self {
            descriptor,
            version,
            onion,
            signature,
        })
    }

    /// Checks both signatures, then that `now` is in the descriptor's life.
    ///
    /// # Errors
    /// [`crate::Error::Authentication`], [`crate::Error::NotYetValid`], [`crate::Error::Expired`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        verify(
            &self.descriptor.id.0,
            DOMAIN,
            self.body().written(),
            &self.signature,
        )?;
        self.descriptor.verify(now)
    }

    /// What it is called by: the hash of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Self::digest_of(&self.encode())
    }

    /// What a record with these bytes is called by.
    #[must_use]
    pub fn digest_of(encoded: &[u8]) -> Digest {
        Digest::of(DOMAIN, &[encoded])
    }

    /// Which of two records of one relay is newer.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.descriptor.version, self.version)
    }

    fn body(&self) -> Writer {
        let mut writer = Writer::new();
        write_nested(&mut writer, &self.descriptor.encode());
        let first = self.onion.first().map_or(0, |(epoch, _)| *epoch);
        writer
            .u64(self.version)
            .u32(first)
            .u8(u8::try_from(self.onion.len()).unwrap_or(u8::MAX));
        onion_keys::write(&mut writer, &self.onion);
        writer
    }
}
