//! The right to a virtual IPv4 address.

use std::net::Ipv4Addr;

use super::format::{begin, check_now, close, open, sealed};
use crate::Result;
use crate::identity::{AnonymousId, IdentityKey, SIGNATURE, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};

/// How old a request may be, in seconds. What an endpoint says of the time may be a round of the directories and a minute
/// behind (docs/protocol.md, section 10).
const REQUEST_LIFE: u64 = 600;
/// Bytes of a lease without its ID: `ipv4 4 | expires 8 | signature 64`.
pub const LEASE_GRANT: usize = 4 + 8 + SIGNATURE;

const LEASE_KIND: u8 = 4;
const LEASE: &str = "lease";
const LEASE_DOMAIN: &str = "mixline/v1/lease";
const REQUEST_KIND: u8 = 5;
const REQUEST: &str = "lease request";
const REQUEST_DOMAIN: &str = "mixline/v1/lease request";

/// A virtual IPv4 address of an ID, until a time, signed by the directory.
///
/// ```text
/// 4 | 1 | id 32 | ipv4 4 | expires 8 | signature 64
/// ```
///
/// In a record that names the ID anyway it stands as the last three fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub ipv4: Ipv4Addr,
    /// Whose it is.
    pub id: AnonymousId,
    /// When it ends. A renewed lease ends later.
    pub expires: UnixTime,
    /// The directory's signature; [`Lease::grant`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl Lease {
    /// A lease that the directory grants.
    #[must_use]
    pub fn grant(ipv4: Ipv4Addr, id: AnonymousId, expires: UnixTime, key: &IdentityKey) -> Self {
        let mut lease = Self {
            ipv4,
            id,
            expires,
            signature: [0; SIGNATURE],
        };
        lease.signature = key.sign(LEASE_DOMAIN, lease.body().written());
        lease
    }

    /// The bytes of the record, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed(self.body(), &self.signature)
    }

    /// Reads the form; [`Lease::verify`] says whether it holds.
    ///
    /// # Errors
    /// [`crate::Error::Length`], [`crate::Error::Malformed`], [`crate::Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, LEASE_KIND, LEASE)?;
        let id = AnonymousId(reader.array()?);
        let lease = Self::read_grant(id, &mut reader)?;
        reader.finish()?;
        Ok(lease)
    }

    /// Checks the directory's signature, then that the lease has not ended.
    ///
    /// # Errors
    /// [`crate::Error::Authentication`], [`crate::Error::Expired`].
    pub fn verify(&self, directory: &AnonymousId, now: UnixTime) -> Result<()> {
        verify(
            &directory.0,
            LEASE_DOMAIN,
            self.body().written(),
            &self.signature,
        )?;
        check_now(LEASE, UnixTime(0), self.expires, now)
    }

    /// [`Lease::decode`] and [`Lease::verify`].
    ///
    /// # Errors
    /// Those of both.
    pub fn decode_and_verify(bytes: &[u8], directory: &AnonymousId, now: UnixTime) -> Result<Self> {
        let lease = Self::decode(bytes)?;
        lease.verify(directory, now)?;
        Ok(lease)
    }

    /// Appends `ipv4 4 | expires 8 | signature 64`: the lease where its ID is known.
    pub fn write_grant(&self, writer: &mut Writer) {
        writer
            .bytes(&self.ipv4.octets())
            .u64(self.expires.0)
            .bytes(&self.signature);
    }

    /// Reads what [`Lease::write_grant`] wrote, for the ID that it stands with.
    ///
    /// # Errors
    /// [`crate::Error::Length`].
    pub fn read_grant(id: AnonymousId, reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            ipv4: reader.array::<4>()?.into(),
            id,
            expires: UnixTime(reader.u64()?),
            signature: reader.array()?,
        })
    }

    fn body(&self) -> Writer {
        let mut writer = begin(LEASE_KIND);
        writer
            .bytes(&self.id.0)
            .bytes(&self.ipv4.octets())
            .u64(self.expires.0);
        writer
    }
}

/// An ID asks for an address, or for its lease to be renewed.
///
/// ```text
/// 5 | 1 | id 32 | timestamp 8 | wanted? 1 [ipv4 4] | signature 64
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The asker.
    pub id: AnonymousId,
    /// When, by the asker's clock.
    pub timestamp: UnixTime,
    /// The address that it would like to have: one that it had before.
    pub wanted: Option<Ipv4Addr>,
    /// The ID's signature; [`LeaseRequest::new`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl LeaseRequest {
    /// A request of the key's ID.
    #[must_use]
    pub fn new(timestamp: UnixTime, wanted: Option<Ipv4Addr>, key: &IdentityKey) -> Self {
        let id = key.anonymous_id();
        let mut request = Self {
            id,
            timestamp,
            wanted,
            signature: [0; SIGNATURE],
        };
        request.signature = key.sign(REQUEST_DOMAIN, request.body().written());
        request
    }

    /// The bytes of the record, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed(self.body(), &self.signature)
    }

    /// Reads the form. Nothing is known of who made it before [`LeaseRequest::verify`].
    ///
    /// # Errors
    /// [`crate::Error::Length`], [`crate::Error::Malformed`], [`crate::Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, REQUEST_KIND, REQUEST)?;
        Ok(Self {
            id: AnonymousId(reader.array()?),
            timestamp: UnixTime(reader.u64()?),
            wanted: if reader.flag()? {
                Some(reader.array::<4>()?.into())
            } else {
                None
            },
            signature: close(reader)?,
        })
    }

    /// Checks the ID's signature, then that the request is not older than ten minutes, and not newer than
    /// [`super::CLOCK_SKEW`].
    ///
    /// # Errors
    /// [`crate::Error::Authentication`], [`crate::Error::NotYetValid`], [`crate::Error::Expired`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        verify(
            &self.id.0,
            REQUEST_DOMAIN,
            self.body().written(),
            &self.signature,
        )?;
        check_now(
            REQUEST,
            self.timestamp,
            self.timestamp.plus(REQUEST_LIFE),
            now,
        )
    }

    /// [`LeaseRequest::decode`] and [`LeaseRequest::verify`].
    ///
    /// # Errors
    /// Those of both.
    pub fn decode_and_verify(bytes: &[u8], now: UnixTime) -> Result<Self> {
        let request = Self::decode(bytes)?;
        request.verify(now)?;
        Ok(request)
    }

    fn body(&self) -> Writer {
        let mut writer = begin(REQUEST_KIND);
        writer
            .bytes(&self.id.0)
            .u64(self.timestamp.0)
            .flag(self.wanted.is_some());
        if let Some(wanted) = self.wanted {
            writer.bytes(&wanted.octets());
        }
        writer
    }
}
