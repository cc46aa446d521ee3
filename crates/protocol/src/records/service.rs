//! How an anonymous ID is reached.

use super::format::{begin, check_now, check_span, close, open, sealed};
use super::lease::Lease;
use super::tail_offer::TailOffer;
use crate::authorisation::{ENTRIES, Entry, LookupToken, TOKEN};
use crate::effort::{EFFORT, EffortTerms, SEED};
use crate::identity::{AnonymousId, IdentityKey, SIGNATURE, X25519Public, verify};
use crate::time::UnixTime;
use crate::wire::Writer;
use crate::{Error, Result};

/// The most tails that an ID publishes.
pub const MAX_TAILS: usize = 8;

const KIND: u8 = 2;
const WHAT: &str = "service descriptor";
const DOMAIN: &str = "mixline/v1/service descriptor";

/// An anonymous ID that can be reached, signed by itself.
///
/// ```text
/// 2 | 1 | id 32 | version 8 | issued 8 | expires 8 | session 32 | seed 16 | suggested effort 4
///   | lease? 1 [ipv4 4 | expires 8 | directory's signature 64]
///   | tails: count 1, (tail 172, expires 4)*
///   | restricted? 1 [entry 16 * 64, ascending] | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDescriptor {
    /// Whose it is.
    pub id: AnonymousId,
    /// Grows with each descriptor: the time of making it, in milliseconds.
    pub version: u64,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends: at most [`ServiceDescriptor::MAX_LIFETIME`] after `issued`.
    pub expires: UnixTime,
    /// The key that session handshakes are for.
    pub session: X25519Public,
    /// What is to be spent on an initiation. The seed is good as long as the descriptor.
    pub effort: EffortTerms,
    /// The virtual IPv4 address, if it has one. Its signature is the directory's, and
    /// checked apart: [`Lease::verify`].
    pub lease: Option<Lease>,
    /// Up to eight tails that take session initiations.
    pub tails: Vec<TailOffer>,
    /// Who is told of it: everybody, or who knows a token of one of these [`ENTRIES`], which ascend. What is
    /// not a client's is random.
    pub clients: Option<Vec<Entry>>,
    /// The ID's signature; [`ServiceDescriptor::sign`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl ServiceDescriptor {
    /// The longest that a descriptor may live, in seconds.
    pub const MAX_LIFETIME: u64 = 24 * 3600;
    /// The most bytes of an encoded descriptor.
    pub const MAX_ENCODED: usize = 2
        + 32
        + 3 * 8
        + 32
        + SEED
        + EFFORT
        + 1
        + super::LEASE_GRANT
        + 1
        + MAX_TAILS * super::TAIL_OFFER
        + 1
        + ENTRIES * TOKEN
        + SIGNATURE;

    /// The descriptor with the ID's signature in place of the one that it has.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the key is not `id`'s; [`Error::Malformed`] or
    /// [`Error::Limit`] if a field is not as documented.
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

    /// Reads the form. Nothing is known of who made it before [`ServiceDescriptor::verify`].
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, KIND, WHAT)?;
        let id = AnonymousId(reader.array()?);
        let version = reader.u64()?;
        let issued = UnixTime(reader.u64()?);
        let expires = UnixTime(reader.u64()?);
        let session = X25519Public(reader.array()?);
        let effort = EffortTerms {
            seed: reader.array()?,
            suggested: reader.u32()?,
        };
        let lease = if reader.flag()? {
            Some(Lease::read_grant(id, &mut reader)?)
        } else {
            None
        };
        let count = usize::from(reader.u8()?);
        if count > MAX_TAILS {
            return Err(Error::Limit { what: WHAT });
        }
        let tails = (0..count)
            .map(|_| TailOffer::read(&mut reader))
            .collect::<Result<_>>()?;
        let clients = if reader.flag()? {
            let entry = |_| Ok(Entry(reader.array()?));
            Some((0..ENTRIES).map(entry).collect::<Result<Vec<_>>>()?)
        } else {
            None
        };
        let signature = close(reader)?;
        let descriptor = Self {
            id,
            version,
            issued,
            expires,
            session,
            effort,
            lease,
            tails,
            clients,
            signature,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Checks the ID's signature, then that `now` is in the descriptor's life. The
    /// lease's signature is the directory's: [`Lease::verify`].
    ///
    /// # Errors
    /// [`Error::Authentication`], [`Error::NotYetValid`], [`Error::Expired`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        self.verify_signature()?;
        check_now(WHAT, self.issued, self.expires, now)
    }

    pub(super) fn verify_signature(&self) -> Result<()> {
        verify(&self.id.0, DOMAIN, self.body().written(), &self.signature)
    }

    /// [`ServiceDescriptor::decode`] and [`ServiceDescriptor::verify`].
    ///
    /// # Errors
    /// Those of both.
    pub fn decode_and_verify(bytes: &[u8], now: UnixTime) -> Result<Self> {
        let descriptor = Self::decode(bytes)?;
        descriptor.verify(now)?;
        Ok(descriptor)
    }

    fn check(&self) -> Result<()> {
        check_span(WHAT, self.issued, self.expires, Self::MAX_LIFETIME)?;
        if self.tails.len() > MAX_TAILS {
            return Err(Error::Limit { what: WHAT });
        }
        if !self.effort.are_coarse() || self.lease.is_some_and(|lease| lease.id != self.id) {
            return Err(Error::Malformed { what: WHAT });
        }
        if self
            .clients
            .as_ref()
            .is_some_and(|entries| entries.len() != ENTRIES || !entries.is_sorted_by(|a, b| a < b))
        {
            return Err(Error::Malformed { what: WHAT });
        }
        // The wire has 32 bits for the end of a tail.
        if self
            .tails
            .iter()
            .any(|offer| u32::try_from(offer.expires.0).is_err())
        {
            return Err(Error::Malformed { what: WHAT });
        }
        Ok(())
    }

    fn body(&self) -> Writer {
        let mut writer = begin(KIND);
        writer
            .bytes(&self.id.0)
            .u64(self.version)
            .u64(self.issued.0)
            .u64(self.expires.0);
        writer
            .bytes(&self.session.0)
            .bytes(&self.effort.seed)
            .u32(self.effort.suggested)
            .flag(self.lease.is_some());
        if let Some(lease) = &self.lease {
            lease.write_grant(&mut writer);
        }
        writer.u8(u8::try_from(self.tails.len()).unwrap_or(u8::MAX));
        for offer in &self.tails {
            offer.write(&mut writer);
        }
        writer.flag(self.clients.is_some());
        for entry in self.clients.iter().flatten() {
            writer.bytes(&entry.0);
        }
        writer
    }

    /// Whether the directory tells of it whoever shows this.
    #[must_use]
    pub fn is_for(&self, token: Option<&LookupToken>) -> bool {
        self.clients.as_ref().is_none_or(|entries| {
            token.is_some_and(|token| entries.contains(&token.entry(&self.id)))
        })
    }
}
