//! What a relay says of itself.

use std::net::{IpAddr, SocketAddr};

use super::format::{MAX_TEXT, begin_as, check_now, check_span, close, open_as, sealed};
use crate::identity::{IdentityKey, RelayId, SIGNATURE, ShortId, X25519Public, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most addresses of a relay.
pub const MAX_ADDRESSES: usize = 4;

const KIND: u8 = 1;
const FORMAT: u8 = 2;
const WHAT: &str = "relay descriptor";
const DOMAIN: &str = "mixline/v1/relay descriptor";

/// A relay, signed by itself: what changes seldom. Its onion keys are apart ([`super::RelayRecord`]), so that
/// an epoch costs a reader of snapshots 32 bytes a relay.
///
/// ```text
/// 1 | 2 | id 32 | version 8 | issued 8 | expires 8 | link 32
///   | addresses: count 1, (4 or 6: 1, address 4 or 16, port 2)*
///   | capacity 4 | family text | name text | software text | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayDescriptor {
    /// Whose it is.
    pub id: RelayId,
    /// Grows with each descriptor: the time of making it, in milliseconds.
    pub version: u64,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends: at most [`RelayDescriptor::MAX_LIFETIME`] after `issued`.
    pub expires: UnixTime,
    /// The key that a neighbour's link handshake is for.
    pub link: X25519Public,
    /// One to four addresses where its UDP socket is reached.
    pub addresses: Vec<SocketAddr>,
    /// Datagrams a second that it is willing to relay.
    pub capacity: u32,
    /// Relays of one operator name one family: 1 to 32 of `a-z A-Z 0-9 -`.
    pub family: Option<String>,
    /// What people call it: 1 to 32 of `a-z A-Z 0-9 -`. Proves nothing.
    pub name: String,
    /// What it runs: up to 32 printable ASCII characters.
    pub software: String,
    /// The relay's signature; [`RelayDescriptor::sign`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl RelayDescriptor {
    /// The longest that a descriptor may live, in seconds.
    pub const MAX_LIFETIME: u64 = 24 * 3600;
    /// The most bytes of an encoded descriptor.
    pub const MAX_ENCODED: usize =
        2 + 32 + 3 * 8 + 32 + 1 + MAX_ADDRESSES * 19 + 4 + 3 * (1 + MAX_TEXT) + SIGNATURE;

    /// The relay's short ID.
    #[must_use]
    pub fn short_id(&self) -> ShortId {
        self.id.short()
    }

    /// Whether it can be used at `now`.
    #[must_use]
    pub fn alive(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// The descriptor with the relay's signature in place of the one that it has.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the key is not `id`'s; [`Error::Malformed`] or
    /// [`Error::Limit`] if a field is not as documented.
    pub fn sign(mut self, key: &IdentityKey) -> Result<Self> {
        if key.relay_id() != self.id {
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

    /// Reads the form. Nothing is known of who made it before [`RelayDescriptor::verify`].
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open_as(bytes, KIND, FORMAT, WHAT)?;
        let descriptor = Self {
            id: RelayId(reader.array()?),
            version: reader.u64()?,
            issued: UnixTime(reader.u64()?),
            expires: UnixTime(reader.u64()?),
            link: X25519Public(reader.array()?),
            addresses: read_addresses(&mut reader)?,
            capacity: reader.u32()?,
            family: Some(reader.text(MAX_TEXT)?)
                .filter(|f| !f.is_empty())
                .map(String::from),
            name: reader.text(MAX_TEXT)?.into(),
            software: reader.text(MAX_TEXT)?.into(),
            signature: close(reader)?,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Checks the relay's signature, then that `now` is in the descriptor's life.
    ///
    /// # Errors
    /// [`Error::Authentication`], [`Error::NotYetValid`], [`Error::Expired`].
    pub fn verify(&self, now: UnixTime) -> Result<()> {
        self.verify_signature()?;
        check_now(WHAT, self.issued, self.expires, now)
    }

    /// [`RelayDescriptor::decode`] and [`RelayDescriptor::verify`].
    ///
    /// # Errors
    /// Those of both.
    pub fn decode_and_verify(bytes: &[u8], now: UnixTime) -> Result<Self> {
        let descriptor = Self::decode(bytes)?;
        descriptor.verify(now)?;
        Ok(descriptor)
    }

    pub(super) fn verify_signature(&self) -> Result<()> {
        verify(&self.id.0, DOMAIN, self.body().written(), &self.signature)
    }

    fn check(&self) -> Result<()> {
        let malformed = Err(Error::Malformed { what: WHAT });
        check_span(WHAT, self.issued, self.expires, Self::MAX_LIFETIME)?;
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(Error::Limit { what: WHAT });
        }
        if self.addresses.is_empty() || !self.addresses.iter().all(plausible) {
            return malformed;
        }
        let word = |text: &str| {
            (1..=MAX_TEXT).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !word(&self.name) || !self.family.as_deref().is_none_or(word) {
            return malformed;
        }
        if self.software.len() > MAX_TEXT
            || !self
                .software
                .bytes()
                .all(|b| b.is_ascii_graphic() || b == b' ')
        {
            return malformed;
        }
        Ok(())
    }

    fn body(&self) -> Writer {
        let mut writer = begin_as(KIND, FORMAT);
        writer
            .bytes(&self.id.0)
            .u64(self.version)
            .u64(self.issued.0)
            .u64(self.expires.0);
        writer.bytes(&self.link.0);
        writer.u8(u8::try_from(self.addresses.len()).unwrap_or(u8::MAX));
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => writer.u8(4).bytes(&ip.octets()),
                IpAddr::V6(ip) => writer.u8(6).bytes(&ip.octets()),
            };
            writer.u16(address.port());
        }
        writer.u32(self.capacity);
        writer.text(self.family.as_deref().unwrap_or_default());
        writer.text(&self.name).text(&self.software);
        writer
    }
}

/// Can be sent to at all. Which networks are welcome is the directory's to say.
fn plausible(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let one_host = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast() && ip.octets()[0] != 0,
        // One address has one form (RFC 4291, section 2.5.5.2).
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none(),
    };
    // Flow label and scope are not on the wire.
    let encodable =
        !matches!(address, SocketAddr::V6(v6) if v6.flowinfo() != 0 || v6.scope_id() != 0);
    one_host && encodable && address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

fn read_addresses(reader: &mut Reader<'_>) -> Result<Vec<SocketAddr>> {
    let count = usize::from(reader.u8()?);
    if count > MAX_ADDRESSES {
        return Err(Error::Limit { what: WHAT });
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let ip: IpAddr = match reader.u8()? {
            4 => reader.array::<4>()?.into(),
            6 => reader.array::<16>()?.into(),
            _ => return Err(reader.malformed()),
        };
        addresses.push(SocketAddr::new(ip, reader.u16()?));
    }
    Ok(addresses)
}
