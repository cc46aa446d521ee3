//! The network as the directory sees it.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::format::{begin, check_now, check_span, close, open, sealed};
use super::relay::RelayDescriptor;
use super::service::ServiceDescriptor;
use crate::address::VirtualNetwork;
use crate::identity::{AnonymousId, IdentityKey, SIGNATURE, ShortId, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most relays in a snapshot, and so in a network.
pub const MAX_RELAYS: usize = 4096;
/// The most bytes of an encoded snapshot.
pub const MAX_SNAPSHOT: usize = 2
    + 32
    + 2 * 8
    + 17
    + 2
    + ServiceDescriptor::MAX_ENCODED
    + 2
    + MAX_RELAYS * (2 + RelayDescriptor::MAX_ENCODED)
    + SIGNATURE;

const KIND: u8 = 6;
const WHAT: &str = "snapshot";
const DOMAIN: &str = "mixline/v1/snapshot";

/// What everybody in a network must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// How long an epoch of onion keys is, in seconds; not zero.
    pub epoch_seconds: u32,
    /// How long the keys of a past epoch are honoured, in seconds.
    pub grace_seconds: u32,
    /// Where virtual IPv4 addresses are.
    pub network: VirtualNetwork,
    /// After how many seconds without a word a relay leaves the snapshot.
    pub relay_timeout_s: u32,
}

impl Default for Parameters {
    /// An hour, five minutes, `10.0.0.0/8`, a minute.
    fn default() -> Self {
        Self {
            epoch_seconds: 3600,
            grace_seconds: 300,
            network: VirtualNetwork::default(),
            relay_timeout_s: 60,
        }
    }
}

/// All live relays, the network's parameters and how the directory itself is reached,
/// signed by the directory.
///
/// ```text
/// 6 | 1 | directory 32 | issued 8 | valid until 8
///   | epoch seconds 4 | grace seconds 4 | network 4, its length 1 | relay timeout 4
///   | the directory's service descriptor: length 2, record
///   | relays: count 2, (length 2, descriptor)*, by short ID, ascending | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Who signs.
    pub directory: AnonymousId,
    /// When it was made.
    pub issued: UnixTime,
    /// When it must not be used any more: at most [`Snapshot::MAX_LIFETIME`] after `issued`.
    pub valid_until: UnixTime,
    /// The network's parameters.
    pub parameters: Parameters,
    /// The relays, by short ID, each with a short ID of its own. Their signatures have been
    /// checked; each has an end of its own too ([`RelayDescriptor::alive`]).
    pub relays: Vec<RelayDescriptor>,
    /// Where private requests go. It has no tails while the network has too few relays.
    pub directory_service: ServiceDescriptor,
    /// The directory's signature; [`Snapshot::sign`] makes it.
    pub signature: [u8; SIGNATURE],
}

impl Snapshot {
    /// The longest that a snapshot may live, in seconds.
    pub const MAX_LIFETIME: u64 = 24 * 3600;

    /// The relay with a short ID. Looks at all of them.
    #[must_use]
    pub fn relay(&self, short: &ShortId) -> Option<&RelayDescriptor> {
        self.relays.iter().find(|relay| relay.short_id() == *short)
    }

    /// The snapshot with its relays in order, and the directory's signature in place of
    /// the one that it has.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the key is not `directory`'s; [`Error::Malformed`] or
    /// [`Error::Limit`] if a field is not as documented.
    pub fn sign(mut self, key: &IdentityKey) -> Result<Self> {
        if key.anonymous_id() != self.directory {
            return Err(Error::Authentication { what: DOMAIN });
        }
        self.relays.sort_by_cached_key(RelayDescriptor::short_id);
        self.check()?;
        self.signature = key.sign(DOMAIN, self.body().written());
        Ok(self)
    }

    /// The bytes of the record, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed(self.body(), &self.signature)
    }

    /// Reads a snapshot that `expected` has signed, and checks its time and every
    /// signature inside.
    ///
    /// # Errors
    /// [`Error::Authentication`] if another directory signed it or bytes have changed,
    /// [`Error::NotYetValid`] (a clock is wrong) and [`Error::Expired`] for the time,
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`] for the
    /// form.
    pub fn decode_and_verify(bytes: &[u8], expected: &AnonymousId, now: UnixTime) -> Result<Self> {
        if bytes.len() > MAX_SNAPSHOT {
            return Err(Error::Limit { what: WHAT });
        }
        let mut reader = open(bytes, KIND, WHAT)?;
        // The signature first: nothing below is read from anybody but the directory.
        if reader.array()? != expected.0 {
            return Err(Error::Authentication { what: DOMAIN });
        }
        let Some((body, signature)) = bytes.split_last_chunk::<SIGNATURE>() else {
            return Err(Error::Length {
                what: WHAT,
                expected: SIGNATURE,
                got: bytes.len(),
            });
        };
        verify(&expected.0, DOMAIN, body, signature)?;
        let issued = UnixTime(reader.u64()?);
        let valid_until = UnixTime(reader.u64()?);
        check_now(WHAT, issued, valid_until, now)?;
        let snapshot = Self {
            directory: *expected,
            issued,
            valid_until,
            parameters: read_parameters(&mut reader)?,
            directory_service: ServiceDescriptor::decode_and_verify(nested(&mut reader)?, now)?,
            relays: read_relays(&mut reader)?,
            signature: close(reader)?,
        };
        snapshot.check()?;
        for relay in &snapshot.relays {
            relay.verify_signature()?;
        }
        Ok(snapshot)
    }

    /// The entity tag of an encoded snapshot (RFC 9110, section 8.8.3), quotes included: whoever has the
    /// bytes has it, so that a directory cannot have a word of its own repeated by those who ask.
    #[must_use]
    pub fn entity_tag(encoded: &[u8]) -> String {
        let hash = digest(&SHA256, encoded);
        let half = hash.as_ref().get(..16).unwrap_or_default();
        format!("\"{}\"", HEXLOWER.encode(half))
    }

    fn check(&self) -> Result<()> {
        let malformed = Err(Error::Malformed { what: WHAT });
        check_span(WHAT, self.issued, self.valid_until, Self::MAX_LIFETIME)?;
        if self.relays.len() > MAX_RELAYS {
            return Err(Error::Limit { what: WHAT });
        }
        let shorts: Vec<_> = self.relays.iter().map(RelayDescriptor::short_id).collect();
        if !shorts.is_sorted_by(|a, b| a < b) {
            return malformed;
        }
        if self.parameters.epoch_seconds == 0 || self.directory_service.id != self.directory {
            return malformed;
        }
        let VirtualNetwork { prefix, length } = self.parameters.network;
        VirtualNetwork::new(prefix, length).map(|_| ())
    }

    fn body(&self) -> Writer {
        let mut writer = begin(KIND);
        writer
            .bytes(&self.directory.0)
            .u64(self.issued.0)
            .u64(self.valid_until.0);
        let Parameters {
            epoch_seconds,
            grace_seconds,
            network,
            relay_timeout_s,
        } = self.parameters;
        writer.u32(epoch_seconds).u32(grace_seconds);
        writer
            .bytes(&network.prefix.octets())
            .u8(network.length)
            .u32(relay_timeout_s);
        write_nested(&mut writer, &self.directory_service.encode());
        writer.u16(u16::try_from(self.relays.len()).unwrap_or(u16::MAX));
        for relay in &self.relays {
            write_nested(&mut writer, &relay.encode());
        }
        writer
    }
}

fn read_parameters(reader: &mut Reader<'_>) -> Result<Parameters> {
    Ok(Parameters {
        epoch_seconds: reader.u32()?,
        grace_seconds: reader.u32()?,
        network: VirtualNetwork::new(reader.array::<4>()?.into(), reader.u8()?)?,
        relay_timeout_s: reader.u32()?,
    })
}

fn read_relays(reader: &mut Reader<'_>) -> Result<Vec<RelayDescriptor>> {
    let count = usize::from(reader.u16()?);
    if count > MAX_RELAYS {
        return Err(Error::Limit { what: WHAT });
    }
    (0..count)
        .map(|_| RelayDescriptor::decode(nested(reader)?))
        .collect()
}

fn nested<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let length = usize::from(reader.u16()?);
    reader.take(length)
}

/// Records inside are far shorter than 64 KiB ([`RelayDescriptor::MAX_ENCODED`],
/// [`ServiceDescriptor::MAX_ENCODED`]).
fn write_nested(writer: &mut Writer, record: &[u8]) {
    writer
        .u16(u16::try_from(record.len()).unwrap_or(u16::MAX))
        .bytes(record);
}
