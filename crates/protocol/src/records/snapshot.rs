//! The network as its directories see it.

use std::collections::HashMap;

use arrayvec::ArrayVec;
use data_encoding::HEXLOWER;

use super::format::{check_now, check_span, read_nested, write_nested};
use super::listing::ListedRelay;
use super::online_key::OnlineKey;
use super::relay::RelayDescriptor;
use super::roster::{MAX_DIRECTORIES, Roster};
use super::service::ServiceDescriptor;
use super::signatures::Signatures;
use crate::address::VirtualNetwork;
use crate::identity::{Digest, IdentityKey, NetworkId, RelayId, SIGNATURE, ShortId, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most relays in a snapshot, and so in a network.
pub const MAX_RELAYS: usize = 16_384;
/// The most online keys of one directory at a time: the one in use, and the one before, which has signed
/// what is valid still.
pub const MAX_ONLINE_KEYS: usize = 2;
/// The most bytes of an encoded snapshot.
pub const MAX_SNAPSHOT: usize = HEAD
    + MAX_DIRECTORIES
        * (1 + MAX_ONLINE_KEYS * OnlineKey::ENCODED + 33 + 2 + ServiceDescriptor::MAX_ENCODED)
    + 4
    + 2
    + MAX_RELAYS * ListedRelay::MAX_ENCODED;
/// Kind, format, signatures, and the fields of fixed length.
const HEAD: usize = 2 + Signatures::MAX_ENCODED + 32 + 4 + 8 + 8 + 40 + 40 + 104 + 21 + 1;

const KIND: u8 = 6;
const FORMAT: u8 = 2;
const WHAT: &str = "snapshot";
const DOMAIN: &str = "mixline/v2/snapshot";

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
    /// How long services and relays have one place on the ring, in seconds; not zero.
    pub period_seconds: u32,
}

impl Default for Parameters {
    /// An hour, five minutes, `10.0.0.0/8`, a minute, a day.
    fn default() -> Self {
        Self {
            epoch_seconds: 3600,
            grace_seconds: 300,
            network: VirtualNetwork::default(),
            relay_timeout_s: 60,
            period_seconds: 24 * 3600,
        }
    }
}

impl Parameters {
    /// `epoch seconds 4 | grace seconds 4 | network 4 | its length 1 | relay timeout 4 | period seconds 4`
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let read = Self {
            epoch_seconds: reader.u32()?,
            grace_seconds: reader.u32()?,
            network: VirtualNetwork::new(reader.array::<4>()?.into(), reader.u8()?)?,
            relay_timeout_s: reader.u32()?,
            period_seconds: reader.u32()?,
        };
        read.check()?;
        Ok(read)
    }

    /// Appends what [`Parameters::read`] reads.
    pub fn write(&self, writer: &mut Writer) {
        writer.u32(self.epoch_seconds).u32(self.grace_seconds);
        writer
            .bytes(&self.network.prefix.octets())
            .u8(self.network.length)
            .u32(self.relay_timeout_s)
            .u32(self.period_seconds);
    }

    fn check(&self) -> Result<()> {
        if self.epoch_seconds == 0 || self.period_seconds == 0 {
            return Err(Error::Malformed { what: WHAT });
        }
        let VirtualNetwork { prefix, length } = self.network;
        VirtualNetwork::new(prefix, length).map(|_| ())
    }
}

/// The log of all rounds up to a snapshot, without it: an RFC 6962 tree over `round 8 | digest 32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogHead {
    /// How many rounds there are in it.
    pub size: u64,
    /// The root of the tree.
    pub root: Digest,
}

/// Random values that nobody chose: the directories commit to their parts a round before they reveal them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedRandom {
    /// Which period it is: unix time by the length of a period.
    pub period: u64,
    /// The value of this period.
    pub current: Digest,
    /// The value of the next one.
    pub next: Digest,
    /// The hash of all that was revealed.
    pub chain: Digest,
}

/// What a snapshot says of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectoryEntry {
    /// The keys that it signs with, the newest first. None in a network of one, whose identity signs itself.
    pub keys: ArrayVec<OnlineKey, MAX_ONLINE_KEYS>,
    /// The hash of the part that it will reveal in the next round.
    pub commitment: Option<Digest>,
    /// How it is reached through relays. Has no tails while the network has too few of them.
    pub service: Option<ServiceDescriptor>,
}

/// All relays, the network's parameters and how the directories are reached, signed by the directories.
///
/// ```text
/// 6 | 2 | signatures | body
/// body = network 32 | roster version 4 | issued 8 | valid until 8
///      | previous: issued 8, digest 32 | log: size 8, root 32
///      | random: period 8, current 32, next 32, chain 32
///      | epoch seconds 4 | grace seconds 4 | network 4, its length 1 | relay timeout 4 | period seconds 4
///      | directories: count 1, (count 1, online key * count | flag 1 [commitment 32])*
///      | (length 2, service descriptor) * as many     length 0: none
///      | first epoch 4 | relays: count 2, relay *     by short ID, ascending
/// ```
///
/// `issued` is also the number of its round, which it is called by. Each signature is over `network 32 | issued 8 |
/// digest 32`, the digest being that of kind, format and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of which network.
    pub network: NetworkId,
    /// Which version of the roster has signed.
    pub roster: u32,
    /// When it was made.
    pub issued: UnixTime,
    /// When it must not be used any more: at most [`Snapshot::MAX_LIFETIME`] after `issued`.
    pub valid_until: UnixTime,
    /// When the one before was made, and its digest; zeros for the first.
    pub previous: (UnixTime, Digest),
    /// Those before.
    pub log: LogHead,
    /// Random values.
    pub random: SharedRandom,
    /// The network's parameters.
    pub parameters: Parameters,
    /// The directories, in the order of the roster.
    pub directories: Vec<DirectoryEntry>,
    /// The relays, by short ID, each with a short ID of its own. Their signatures have been
    /// checked; each has an end of its own too ([`super::RelayDescriptor::alive`]).
    pub relays: Vec<ListedRelay>,
    /// The directories' signatures.
    pub signatures: Signatures,
}

impl Snapshot {
    /// The longest that a snapshot may live, in seconds.
    pub const MAX_LIFETIME: u64 = 24 * 3600;

    /// The relay with a short ID.
    #[must_use]
    pub fn relay(&self, short: &ShortId) -> Option<&ListedRelay> {
        self.relays.iter().find(|relay| relay.short_id() == *short)
    }

    /// How the directories are reached, those that can be.
    pub fn services(&self) -> impl Iterator<Item = &ServiceDescriptor> {
        self.directories
            .iter()
            .filter_map(|entry| entry.service.as_ref())
    }

    /// The directory that is asked: the first that can be.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceDescriptor> {
        let with_tails = self.services().find(|service| !service.tails.is_empty());
        with_tails.or_else(|| self.services().next())
    }

    /// The hash of kind, format and body, which is what is signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Self::digest_of(self.body().written())
    }

    /// The hash of a snapshot with this encoded body.
    #[must_use]
    pub fn digest_of(body: &[u8]) -> Digest {
        Digest::of(DOMAIN, &[&[KIND, FORMAT], body])
    }

    /// The signature of a digest by a directory's online key.
    #[must_use]
    pub fn signature(
        network: &NetworkId,
        issued: UnixTime,
        digest: &Digest,
        key: &IdentityKey,
    ) -> [u8; SIGNATURE] {
        key.sign(DOMAIN, &signed(network, issued, digest))
    }

    /// Checks what [`Snapshot::signature`] makes; `key`: the online key.
    ///
    /// # Errors
    /// [`Error::Authentication`].
    pub fn verify_signature(
        network: &NetworkId,
        issued: UnixTime,
        digest: &Digest,
        key: &[u8; 32],
        signature: &[u8; SIGNATURE],
    ) -> Result<()> {
        verify(key, DOMAIN, &signed(network, issued, digest), signature)
    }

    /// The snapshot with its relays in order, and no signature.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Limit`] if a field is not as documented.
    pub fn ordered(mut self) -> Result<Self> {
        self.relays.sort_by_cached_key(ListedRelay::short_id);
        self.signatures = Signatures::default();
        self.check()?;
        Ok(self)
    }

    /// The snapshot with its relays in order, and the signature of a directory that is alone.
    ///
    /// # Errors
    /// As [`Snapshot::ordered`]; [`Error::Authentication`] if the key is not the network's.
    pub fn sign(self, key: &IdentityKey) -> Result<Self> {
        if NetworkId(key.public()) != self.network {
            return Err(Error::Authentication { what: DOMAIN });
        }
        if self.roster != 0 {
            return Err(Error::Malformed { what: WHAT });
        }
        let mut snapshot = self.ordered()?;
        let digest = snapshot.digest();
        let signature = Self::signature(&snapshot.network, snapshot.issued, &digest, key);
        snapshot.signatures.put(0, signature);
        Ok(snapshot)
    }

    /// The bytes of the record, signatures included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Self::with_signatures(&self.signatures, self.body().written())
    }

    /// The record of an encoded body.
    #[must_use]
    pub fn with_signatures(signatures: &Signatures, body: &[u8]) -> Vec<u8> {
        let mut writer = Writer::with_capacity(2 + Signatures::MAX_ENCODED + body.len());
        writer.u8(KIND).u8(FORMAT);
        signatures.write(&mut writer);
        writer.bytes(body);
        writer.into_bytes()
    }

    /// Which network an encoded snapshot says that it is of, which version of its roster has signed, and which
    /// round it is. Nothing is checked.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`].
    pub fn peek(bytes: &[u8]) -> Result<(NetworkId, u32, UnixTime)> {
        let (_, body) = split(bytes)?;
        let mut reader = Reader::new(body, WHAT);
        Ok((
            NetworkId(reader.array()?),
            reader.u32()?,
            UnixTime(reader.u64()?),
        ))
    }

    /// How many directories an encoded snapshot says have signed. Nothing is checked.
    ///
    /// # Errors
    /// As [`Snapshot::peek`].
    pub fn count_signatures(bytes: &[u8]) -> Result<usize> {
        split(bytes).map(|(signatures, _)| signatures.count())
    }

    /// Reads a snapshot that a quorum of the roster has signed, and checks its time and every
    /// signature inside.
    ///
    /// # Errors
    /// [`Error::Authentication`] if others signed it, or fewer, or bytes have changed, [`Error::Roster`] if
    /// another version of the roster did,
    /// [`Error::NotYetValid`] (a clock is wrong) and [`Error::Expired`] for the time,
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`] for the
    /// form.
    pub fn decode_and_verify(bytes: &[u8], roster: &Roster, now: UnixTime) -> Result<Self> {
        Self::decode_and_verify_after(bytes, roster, now, None)
    }

    /// [`Snapshot::decode_and_verify`], for who has verified an earlier snapshot, `held`, of whatever network.
    /// Descriptors that are in both are not checked again: most outlive a hundred rounds, and their signatures are
    /// what takes the time. The outcome is the same.
    ///
    /// # Errors
    /// Those of [`Snapshot::decode_and_verify`].
    pub fn decode_and_verify_after(
        bytes: &[u8],
        roster: &Roster,
        now: UnixTime,
        held: Option<&Self>,
    ) -> Result<Self> {
        if bytes.len() > MAX_SNAPSHOT {
            return Err(Error::Limit { what: WHAT });
        }
        let (signatures, body) = split(bytes)?;
        let mut reader = Reader::new(body, WHAT);
        let head = Head::read(&mut reader)?;
        // The signatures first: nothing below is believed of anybody but the directories.
        head.verify(&signatures, body, roster)?;
        check_now(WHAT, head.issued, head.valid_until, now)?;
        let snapshot = head.read_rest(reader, signatures)?;
        snapshot.verify_parts(held)?;
        Ok(snapshot)
    }

    /// Reads the body of a snapshot that nobody has signed yet, and checks every signature inside.
    ///
    /// # Errors
    /// As [`Snapshot::decode_and_verify`], but for those of time and of who has signed.
    pub fn decode_body(body: &[u8]) -> Result<Self> {
        if body.len() > MAX_SNAPSHOT {
            return Err(Error::Limit { what: WHAT });
        }
        let mut reader = Reader::new(body, WHAT);
        let head = Head::read(&mut reader)?;
        let snapshot = head.read_rest(reader, Signatures::default())?;
        snapshot.verify_parts(None)?;
        Ok(snapshot)
    }

    /// The entity tag of an encoded snapshot (RFC 9110, section 8.8.3), quotes included: the first half of its
    /// digest. Whoever has the bytes has it, so that a directory cannot have a word of its own repeated by those who
    /// ask; nor one that it says by which of many signatures it shows to whom.
    #[must_use]
    pub fn entity_tag(encoded: &[u8]) -> String {
        let body = split(encoded).map_or(encoded, |(_, body)| body);
        let digest = Self::digest_of(body).0;
        let half = digest.get(..16).unwrap_or_default();
        format!("\"{}\"", HEXLOWER.encode(half))
    }

    /// The encoded body.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        self.body().into_bytes()
    }

    fn verify_parts(&self, held: Option<&Self>) -> Result<()> {
        // Whose life is over is not asked; the others go on.
        for service in self.services() {
            service.verify_signature()?;
        }
        let held = held.iter().flat_map(|held| &held.relays);
        let verified: HashMap<RelayId, &RelayDescriptor> = held
            .map(|relay| (relay.descriptor.id, &relay.descriptor))
            .collect();
        for ListedRelay { descriptor, .. } in &self.relays {
            // Equal in all fields, the signature included.
            if verified.get(&descriptor.id) != Some(&descriptor) {
                descriptor.verify_signature()?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let malformed = Err(Error::Malformed { what: WHAT });
        check_span(WHAT, self.issued, self.valid_until, Self::MAX_LIFETIME)?;
        if self.relays.len() > MAX_RELAYS || self.directories.len() > MAX_DIRECTORIES {
            return Err(Error::Limit { what: WHAT });
        }
        let shorts: Vec<_> = self.relays.iter().map(ListedRelay::short_id).collect();
        if !shorts.is_sorted_by(|a, b| a < b) {
            return malformed;
        }
        // A directory that is alone signs with its identity.
        if self.roster == 0 && !matches!(&self.directories[..], [own] if own.keys.is_empty()) {
            return malformed;
        }
        let first = self.first_epoch();
        if !self.relays.iter().all(|relay| relay.fits(first)) {
            return malformed;
        }
        self.parameters.check()
    }

    /// The epoch that it was made in: earlier onion keys are not in it.
    #[must_use]
    pub fn first_epoch(&self) -> u32 {
        crate::epoch::current(self.issued, self.parameters.epoch_seconds)
    }

    fn body(&self) -> Writer {
        let mut writer = Writer::with_capacity(HEAD + self.relays.len() * 256);
        writer
            .bytes(&self.network.0)
            .u32(self.roster)
            .u64(self.issued.0)
            .u64(self.valid_until.0)
            .u64(self.previous.0.0)
            .bytes(&self.previous.1.0)
            .u64(self.log.size)
            .bytes(&self.log.root.0);
        let SharedRandom {
            period,
            current,
            next,
            chain,
        } = &self.random;
        writer
            .u64(*period)
            .bytes(&current.0)
            .bytes(&next.0)
            .bytes(&chain.0);
        self.parameters.write(&mut writer);
        writer.u8(u8::try_from(self.directories.len()).unwrap_or(u8::MAX));
        for entry in &self.directories {
            writer.u8(u8::try_from(entry.keys.len()).unwrap_or(u8::MAX));
            for key in &entry.keys {
                writer.bytes(&key.encode());
            }
            writer.flag(entry.commitment.is_some());
            if let Some(commitment) = &entry.commitment {
                writer.bytes(&commitment.0);
            }
        }
        for entry in &self.directories {
            let service = entry.service.as_ref().map(ServiceDescriptor::encode);
            write_nested(&mut writer, service.as_deref().unwrap_or_default());
        }
        let first = self.first_epoch();
        writer.u32(first);
        writer.u16(u16::try_from(self.relays.len()).unwrap_or(u16::MAX));
        for relay in &self.relays {
            relay.write(&mut writer, first);
        }
        writer
    }
}

/// What a body begins with, up to what is needed to check the signatures.
struct Head {
    network: NetworkId,
    roster: u32,
    issued: UnixTime,
    valid_until: UnixTime,
    previous: (UnixTime, Digest),
    log: LogHead,
    random: SharedRandom,
    parameters: Parameters,
    directories: Vec<DirectoryEntry>,
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            network: NetworkId(reader.array()?),
            roster: reader.u32()?,
            issued: UnixTime(reader.u64()?),
            valid_until: UnixTime(reader.u64()?),
            previous: (UnixTime(reader.u64()?), Digest(reader.array()?)),
            log: LogHead {
                size: reader.u64()?,
                root: Digest(reader.array()?),
            },
            random: SharedRandom {
                period: reader.u64()?,
                current: Digest(reader.array()?),
                next: Digest(reader.array()?),
                chain: Digest(reader.array()?),
            },
            parameters: Parameters::read(reader)?,
            directories: read_directories(reader)?,
        })
    }

    /// A quorum of the roster has signed, every signature that is there holds, and so does every online key, also of
    /// who has not signed.
    fn verify(&self, signatures: &Signatures, body: &[u8], roster: &Roster) -> Result<()> {
        let failed = || Error::Authentication { what: DOMAIN };
        if self.network != roster.network() {
            return Err(failed());
        }
        if self.roster != roster.version {
            return Err(Error::Roster {
                held: roster.version,
                said: self.roster,
            });
        }
        if self.directories.len() != roster.members.len() {
            return Err(failed());
        }
        // Online keys, even a quorum's, do not prolong what the offline keys have signed.
        let life = self.valid_until.since(self.issued);
        if !roster.is_alone() && life > u64::from(roster.validity_s) {
            return Err(Error::Malformed { what: WHAT });
        }
        self.verify_keys(roster)?;
        let digest = Snapshot::digest_of(body);
        for (index, signature) in signatures.iter() {
            let holds = |key: &[u8; 32]| {
                Snapshot::verify_signature(&self.network, self.issued, &digest, key, signature)
                    .is_ok()
            };
            let entry = self.directories.get(usize::from(index));
            let member = roster.member(index).ok_or_else(failed)?;
            let signed = if roster.is_alone() {
                holds(&member.key)
            } else {
                entry.is_some_and(|entry| entry.keys.iter().any(|key| holds(&key.key)))
            };
            if !signed {
                return Err(failed());
            }
        }
        if signatures.count() < roster.quorum() {
            return Err(failed());
        }
        Ok(())
    }

    /// Each online key is certified by the directory whose entry it stands in, and in use when this was made.
    fn verify_keys(&self, roster: &Roster) -> Result<()> {
        for (entry, index) in self.directories.iter().zip(0..) {
            for key in &entry.keys {
                if key.verify(roster, self.issued)? != index {
                    return Err(Error::Authentication { what: DOMAIN });
                }
            }
        }
        Ok(())
    }

    fn read_rest(self, mut reader: Reader<'_>, signatures: Signatures) -> Result<Snapshot> {
        let mut directories = self.directories;
        for entry in &mut directories {
            entry.service = match read_nested(&mut reader)? {
                [] => None,
                record => Some(ServiceDescriptor::decode(record)?),
            };
        }
        let first = crate::epoch::current(self.issued, self.parameters.epoch_seconds);
        if reader.u32()? != first {
            return Err(reader.malformed());
        }
        let count = usize::from(reader.u16()?);
        if count > MAX_RELAYS {
            return Err(Error::Limit { what: WHAT });
        }
        let relays = (0..count)
            .map(|_| ListedRelay::read(&mut reader, first, WHAT))
            .collect::<Result<_>>()?;
        reader.finish()?;
        let snapshot = Snapshot {
            network: self.network,
            roster: self.roster,
            issued: self.issued,
            valid_until: self.valid_until,
            previous: self.previous,
            log: self.log,
            random: self.random,
            parameters: self.parameters,
            directories,
            relays,
            signatures,
        };
        snapshot.check()?;
        Ok(snapshot)
    }
}

fn read_directories(reader: &mut Reader<'_>) -> Result<Vec<DirectoryEntry>> {
    let count = usize::from(reader.u8()?);
    if count > MAX_DIRECTORIES {
        return Err(Error::Limit { what: WHAT });
    }
    let mut directories = Vec::with_capacity(count);
    for _ in 0..count {
        let mut entry = DirectoryEntry::default();
        for _ in 0..reader.u8()? {
            let key = OnlineKey::decode(reader.take(OnlineKey::ENCODED)?)?;
            entry
                .keys
                .try_push(key)
                .map_err(|_| Error::Limit { what: WHAT })?;
        }
        if reader.flag()? {
            entry.commitment = Some(Digest(reader.array()?));
        }
        directories.push(entry);
    }
    Ok(directories)
}

fn split(bytes: &[u8]) -> Result<(Signatures, &[u8])> {
    let mut reader = super::format::open_as(bytes, KIND, FORMAT, WHAT)?;
    let signatures = Signatures::read(&mut reader)?;
    let left = reader.left();
    Ok((signatures, reader.take(left)?))
}

fn signed(network: &NetworkId, issued: UnixTime, digest: &Digest) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(&network.0).u64(issued.0).bytes(&digest.0);
    writer.into_bytes()
}
