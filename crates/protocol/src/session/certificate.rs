//! What tells a responder who the initiator is.

use crate::identity::{AnonymousId, IdentityKey, SIGNATURE, X25519Public, verify};
use crate::records::Lease;
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The domain of a certificate's signature.
pub const CERTIFICATE_DOMAIN: &str = "mixline/v1/certificate";

/// An ID's word that a session key is its own, and the lease of its IPv4 address if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Who speaks.
    pub id: AnonymousId,
    /// Its session key.
    pub session: X25519Public,
    /// Until when.
    pub expires: UnixTime,
    signature: [u8; SIGNATURE],
    /// The directory's word that an IPv4 address is the ID's.
    pub lease: Option<Lease>,
}

impl Certificate {
    /// Signs for `session`, of which the holder of `key` has the secret.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lease is another ID's.
    pub fn sign(
        key: &IdentityKey,
        session: &X25519Public,
        expires: UnixTime,
        lease: Option<Lease>,
    ) -> Result<Self> {
        let id = key.anonymous_id();
        if lease.as_ref().is_some_and(|lease| lease.id != id) {
            return Err(Error::Malformed {
                what: "lease of another ID",
            });
        }
        let signature = key.sign(CERTIFICATE_DOMAIN, &signed(&id, session, expires));
        Ok(Self {
            id,
            session: *session,
            expires,
            signature,
            lease,
        })
    }

    /// Checks signatures and times: the ID's own, and the directory's under the lease.
    ///
    /// # Errors
    /// [`Error::Authentication`] or [`Error::Expired`].
    pub fn verify(&self, now: UnixTime, directory: &AnonymousId) -> Result<()> {
        let bytes = signed(&self.id, &self.session, self.expires);
        verify(&self.id.0, CERTIFICATE_DOMAIN, &bytes, &self.signature)?;
        if now >= self.expires {
            return Err(Error::Expired {
                what: "certificate",
                at: self.expires.0,
            });
        }
        self.lease
            .as_ref()
            .map_or(Ok(()), |lease| lease.verify(directory, now))
    }

    /// `ID 32 | session key 32 | expires 8 | signature 64 | flag 1 [| lease 76]`.
    pub fn write(&self, to: &mut Writer) {
        to.bytes(&signed(&self.id, &self.session, self.expires))
            .bytes(&self.signature);
        to.flag(self.lease.is_some());
        if let Some(lease) = &self.lease {
            lease.write_grant(to);
        }
    }

    /// Reads what [`Self::write`] wrote. Nothing of it holds before [`Self::verify`].
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Malformed`].
    pub fn read(from: &mut Reader<'_>) -> Result<Self> {
        let id = AnonymousId(from.array()?);
        Ok(Self {
            id,
            session: X25519Public(from.array()?),
            expires: UnixTime(from.u64()?),
            signature: from.array()?,
            // The lease's ID is not written: it can only be the one that the certificate is for.
            lease: if from.flag()? {
                Some(Lease::read_grant(id, from)?)
            } else {
                None
            },
        })
    }
}

fn signed(id: &AnonymousId, session: &X25519Public, expires: UnixTime) -> Vec<u8> {
    let mut to = Writer::new();
    to.bytes(&id.0).bytes(&session.0).u64(expires.0);
    to.into_bytes()
}
