//! The right to a name.

use super::format::{begin, check_now, check_span, close, open, sealed};
use crate::identity::{AnonymousId, IdentityKey, SIGNATURE, verify};
use crate::name::{Label, MAX_LABEL};
use crate::time::UnixTime;
use crate::wire::Writer;
use crate::{Error, Result};

const KIND: u8 = 3;
const WHAT: &str = "name record";
const DOMAIN: &str = "mixline/v1/name record";

/// `label.anon` is this ID, says the ID. The directory gives a name to the first who asks.
///
/// ```text
/// 3 | 1 | label text | id 32 | version 8 | issued 8 | expires 8 | signature 64
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameRecord {
    /// The name, without `.anon`. Lower case on the wire.
    pub label: Label,
    /// What it stands for.
    pub id: AnonymousId,
    /// Grows with each record: the time of making it, in milliseconds.
    pub version: u64,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends, if it is not renewed: at most [`NameRecord::MAX_LIFETIME`] after `issued`.
    pub expires: UnixTime,
    /// The ID's signature; [`NameRecord::sign`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl NameRecord {
    /// The longest that a record may live, in seconds.
    pub const MAX_LIFETIME: u64 = 30 * 24 * 3600;

    /// The record with the ID's signature in place of the one that it has.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the key is not `id`'s; [`Error::Malformed`] if the
    /// record would live too long.
    pub fn sign(mut self, key: &IdentityKey) -> Result<Self> {
        if key.anonymous_id() != self.id {
            return Err(Error::Authentication { what: DOMAIN });
        }
        self.check()?;
        self.signature = key.sign(DOMAIN, self.body().written());
        Ok(self)
    }

    /// The bytes of the record, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed(self.body(), &self.signature)
    }

    /// Reads the form. Nothing is known of who made it before [`NameRecord::verify`].
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, KIND, WHAT)?;
        let text = reader.text(MAX_LABEL)?;
        let label = Label::new(text)?;
        if label.as_str() != text {
            return Err(reader.malformed());
        }
        let record = Self {
            label,
            id: AnonymousId(reader.array()?),
            version: reader.u64()?,
            issued: UnixTime(reader.u64()?),
            expires: UnixTime(reader.u64()?),
            signature: close(reader)?,
        };
        record.check()?;
        Ok(record)
    }

    /// Checks the ID's signature, then that `now` is in the record's life.
    ///
    /// # Errors
    /// [`Error::Authentication`], [`Error::NotYetValid`], [`Error::Expired`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        verify(&self.id.0, DOMAIN, self.body().written(), &self.signature)?;
        check_now(WHAT, self.issued, self.expires, now)
    }

    /// [`NameRecord::decode`] and [`NameRecord::verify`].
    ///
    /// # Errors
    /// Those of both.
    pub fn decode_and_verify(bytes: &[u8], now: UnixTime) -> Result<Self> {
        let record = Self::decode(bytes)?;
        record.verify(now)?;
        Ok(record)
    }

    fn check(&self) -> Result<()> {
        check_span(WHAT, self.issued, self.expires, Self::MAX_LIFETIME)
    }

    fn body(&self) -> Writer {
        let mut writer = begin(KIND);
        writer.text(self.label.as_str()).bytes(&self.id.0);
        writer
            .u64(self.version)
            .u64(self.issued.0)
            .u64(self.expires.0);
        writer
    }
}
