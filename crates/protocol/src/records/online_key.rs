//! The keys that directories sign with from day to day.

use super::format::{begin, check_now, check_span, close, open, sealed};
use super::roster::Roster;
use crate::identity::{IdentityKey, NetworkId, SIGNATURE, verify};
use crate::time::UnixTime;
use crate::wire::Writer;
use crate::{Error, Result};

const KIND: u8 = 8;
const WHAT: &str = "online key";
const DOMAIN: &str = "mixline/v2/online key";

/// A directory's identity says which key signs for it, and for how long. The identity itself is needed a
/// few times in a year only, and is kept where no network leads.
///
/// ```text
/// 8 | 1 | network 32 | directory's identity 32 | online key 32 | issued 8 | expires 8 | signature 64
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlineKey {
    /// In which network.
    pub network: NetworkId,
    /// The identity of the directory, which signs.
    pub directory: [u8; 32],
    /// The key that signs for it.
    pub key: [u8; 32],
    /// From when on.
    pub issued: UnixTime,
    /// Until when: at most [`OnlineKey::MAX_LIFETIME`] after `issued`.
    pub expires: UnixTime,
    /// The identity's signature; [`OnlineKey::certify`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl OnlineKey {
    /// The longest that a key may be used, in seconds.
    pub const MAX_LIFETIME: u64 = 90 * 24 * 3600;
    /// Bytes of an encoded certificate.
    pub const ENCODED: usize = 2 + 3 * 32 + 2 * 8 + SIGNATURE;

    /// The certificate of `key` by a directory's identity.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key would be used for too long.
    pub fn certify(
        network: NetworkId,
        key: [u8; 32],
        (issued, expires): (UnixTime, UnixTime),
        identity: &IdentityKey,
    ) -> Result<Self> {
        check_span(WHAT, issued, expires, Self::MAX_LIFETIME)?;
        let mut made = Self {
            network,
            directory: identity.public(),
            key,
            issued,
            expires,
            signature: [0; SIGNATURE],
        };
        made.signature = identity.sign(DOMAIN, made.body().written());
        Ok(made)
    }

    /// The bytes of the record, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed(self.body(), &self.signature)
    }

    /// Reads the form; [`OnlineKey::verify`] says whether it holds.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, KIND, WHAT)?;
        let read = Self {
            network: NetworkId(reader.array()?),
            directory: reader.array()?,
            key: reader.array()?,
            issued: UnixTime(reader.u64()?),
            expires: UnixTime(reader.u64()?),
            signature: close(reader)?,
        };
        check_span(WHAT, read.issued, read.expires, Self::MAX_LIFETIME)?;
        Ok(read)
    }

    /// Checks that a directory of the roster has signed this, and that the key may be used at `now`; gives the
    /// directory's index.
    ///
    /// # Errors
    /// [`Error::Authentication`], [`Error::NotYetValid`], [`Error::Expired`].
    pub fn verify(&self, roster: &Roster, now: UnixTime) -> Result<u8> {
        let failed = Error::Authentication { what: DOMAIN };
        let index = roster.index_of(&self.directory);
        let index = index.filter(|_| self.network == roster.network());
        let index = index.ok_or(failed)?;
        self.verify_signature()?;
        check_now(WHAT, self.issued, self.expires, now)?;
        Ok(index)
    }

    /// Checks that the identity that it names has signed this.
    pub(super) fn verify_signature(&self) -> Result<()> {
        verify(
            &self.directory,
            DOMAIN,
            self.body().written(),
            &self.signature,
        )
    }

    fn body(&self) -> Writer {
        let mut writer = begin(KIND);
        writer
            .bytes(&self.network.0)
            .bytes(&self.directory)
            .bytes(&self.key)
            .u64(self.issued.0)
            .u64(self.expires.0);
        writer
    }
}
