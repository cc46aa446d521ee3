//! What a directory says before a round, and who passes it on.

use arrayvec::ArrayVec;

use super::format::{begin, open, read_nested, write_nested};
use super::listing::RelayFlags;
use super::online_key::OnlineKey;
use super::roster::MAX_DIRECTORIES;
use super::service::ServiceDescriptor;
use super::signatures::Signatures;
use super::snapshot::{MAX_ONLINE_KEYS, MAX_RELAYS, Parameters};
use crate::identity::{Digest, IdentityKey, NetworkId, RelayId, SIGNATURE, verify};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

const KIND: u8 = 9;
const WHAT: &str = "vote";
const DOMAIN: &str = "mixline/v2/vote";
const ENDORSEMENT: &str = "endorsement";
const ENDORSED: &str = "mixline/v2/endorsement";

/// The most bytes of an encoded vote.
pub const MAX_VOTE: usize = 2
    + 32
    + 4
    + 1
    + 8
    + 40
    + 21
    + 1
    + MAX_ONLINE_KEYS * OnlineKey::ENCODED
    + 2 * 33
    + 2
    + ServiceDescriptor::MAX_ENCODED
    + 2
    + MAX_RELAYS * VotedRelay::ENCODED;

/// A relay in a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VotedRelay {
    /// Which relay.
    pub id: RelayId,
    /// The newest of its records that this directory has.
    pub record: Digest,
    /// What the directory says of it.
    pub flags: RelayFlags,
    /// Datagrams a second that this directory believes it to be able to relay.
    pub capacity: u32,
}

impl VotedRelay {
    /// Bytes of an entry.
    pub const ENCODED: usize = 32 + 32 + 1 + 4;
}

/// What one directory would put into the snapshot of a round.
///
/// ```text
/// 9 | 1 | network 32 | roster version 4 | voter 1 | round 8 | previous: issued 8, digest 32
///   | parameters 21 | count 1, online key * count | flag 1 [commitment 32] | flag 1 [revealed 32]
///   | length 2, service descriptor     length 0: none
///   | relays: count 2, (relay ID 32 | digest of its record 32 | flags 1 | capacity 4)*    by ID, ascending
/// ```
///
/// It has no signature: [`Endorsement`]s have, of its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// In which network.
    pub network: NetworkId,
    /// Of which version of the roster.
    pub roster: u32,
    /// The directory's index.
    pub voter: u8,
    /// The round: when its snapshot is to be published.
    pub round: UnixTime,
    /// The newest snapshot that the directory has: when it was made, and its digest.
    pub previous: (UnixTime, Digest),
    /// The parameters that it is for.
    pub parameters: Parameters,
    /// Its online keys, the newest first.
    pub keys: ArrayVec<OnlineKey, MAX_ONLINE_KEYS>,
    /// The hash of the part that it will reveal next.
    pub commitment: Option<Digest>,
    /// What it has committed to in the snapshot before.
    pub revealed: Option<[u8; 32]>,
    /// How it is reached through relays.
    pub service: Option<ServiceDescriptor>,
    /// The relays, by ID, ascending.
    pub relays: Vec<VotedRelay>,
}

impl Vote {
    /// The hash of its bytes, which is what is endorsed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Self::digest_of(&self.encode())
    }

    /// What a vote with these bytes is called by.
    #[must_use]
    pub fn digest_of(encoded: &[u8]) -> Digest {
        Digest::of(DOMAIN, &[encoded])
    }

    /// What a directory commits to with a value.
    #[must_use]
    pub fn commitment_of(value: &[u8; 32]) -> Digest {
        Digest::of("mixline/v2/commitment", &[value])
    }

    /// The bytes of the vote.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(KIND);
        writer
            .bytes(&self.network.0)
            .u32(self.roster)
            .u8(self.voter)
            .u64(self.round.0)
            .u64(self.previous.0.0)
            .bytes(&self.previous.1.0);
        self.parameters.write(&mut writer);
        writer.u8(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for key in &self.keys {
            writer.bytes(&key.encode());
        }
        let commitment = self.commitment.as_ref().map(|digest| &digest.0);
        for value in [commitment, self.revealed.as_ref()] {
            writer.flag(value.is_some());
            if let Some(value) = value {
                writer.bytes(value);
            }
        }
        let service = self.service.as_ref().map(ServiceDescriptor::encode);
        write_nested(&mut writer, service.as_deref().unwrap_or_default());
        writer.u16(u16::try_from(self.relays.len()).unwrap_or(u16::MAX));
        for relay in &self.relays {
            writer
                .bytes(&relay.id.0)
                .bytes(&relay.record.0)
                .u8(relay.flags.bits())
                .u32(relay.capacity);
        }
        writer.into_bytes()
    }

    /// Reads a vote, and checks every signature inside: that of the service, and those of the online keys, which
    /// are of the vote's network and of one directory. Which one that is, and who made the vote, endorsements
    /// say.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`],
    /// [`Error::Authentication`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_VOTE {
            return Err(Error::Limit { what: WHAT });
        }
        let mut reader = open(bytes, KIND, WHAT)?;
        let (network, roster) = (NetworkId(reader.array()?), reader.u32()?);
        let (voter, round) = (reader.u8()?, UnixTime(reader.u64()?));
        let previous = (UnixTime(reader.u64()?), Digest(reader.array()?));
        let parameters = Parameters::read(&mut reader)?;
        let mut keys = ArrayVec::new();
        for _ in 0..reader.u8()? {
            let key = OnlineKey::decode(reader.take(OnlineKey::ENCODED)?)?;
            keys.try_push(key)
                .map_err(|_| Error::Limit { what: WHAT })?;
        }
        let commitment = value(&mut reader)?.map(Digest);
        let revealed = value(&mut reader)?;
        let service = match read_nested(&mut reader)? {
            [] => None,
            record => Some(ServiceDescriptor::decode(record)?),
        };
        let count = usize::from(reader.u16()?);
        if count > MAX_RELAYS {
            return Err(Error::Limit { what: WHAT });
        }
        let relays: Vec<_> = (0..count)
            .map(|_| voted(&mut reader))
            .collect::<Result<_>>()?;
        if usize::from(voter) >= MAX_DIRECTORIES || !relays.is_sorted_by(|a, b| a.id < b.id) {
            return Err(reader.malformed());
        }
        reader.finish()?;
        if let Some(service) = &service {
            service.verify_signature()?;
        }
        check_keys(&keys, network)?;
        Ok(Self {
            network,
            roster,
            voter,
            round,
            previous,
            parameters,
            keys,
            commitment,
            revealed,
            service,
            relays,
        })
    }
}

fn check_keys(keys: &[OnlineKey], network: NetworkId) -> Result<()> {
    for key in keys {
        let one_directory = keys.iter().all(|other| other.directory == key.directory);
        if key.network != network || !one_directory {
            return Err(Error::Malformed { what: WHAT });
        }
        key.verify_signature()?;
    }
    Ok(())
}

fn value(reader: &mut Reader<'_>) -> Result<Option<[u8; 32]>> {
    Ok(if reader.flag()? {
        Some(reader.array()?)
    } else {
        None
    })
}

fn voted(reader: &mut Reader<'_>) -> Result<VotedRelay> {
    Ok(VotedRelay {
        id: RelayId(reader.array()?),
        record: Digest(reader.array()?),
        flags: RelayFlags::of_bits(reader.u8()?).ok_or_else(|| reader.malformed())?,
        capacity: reader.u32()?,
    })
}

/// That a directory has voted so: signed by itself, and by all who have passed it on (Dolev and Strong,
/// "Authenticated Algorithms for Byzantine Agreement", 1983).
///
/// ```text
/// voter 1 | round 8 | digest of the vote 32 | signatures
/// ```
///
/// Each signature is over `network 32 | round 8 | voter's identity 32 | digest 32`. The identity, because an index
/// is another directory's when the next version of the roster has another order: a signature under another's
/// vote would then be one under an own vote, and two of them a [`super::Contradiction`] of who has told no lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    /// Whose vote it is.
    pub voter: u8,
    /// For which round.
    pub round: UnixTime,
    /// The vote's digest.
    pub vote: Digest,
    /// Of the voter, and of those who have passed it on.
    pub signatures: Signatures,
}

impl Endorsement {
    /// The most bytes of an encoded endorsement.
    pub const MAX_ENCODED: usize = 1 + 8 + 32 + Signatures::MAX_ENCODED;

    /// A directory's signature under a vote, its own or another's. `voter`: the identity of the directory whose
    /// vote it is; `key`: the online key of the one that signs.
    #[must_use]
    pub fn signature(
        network: &NetworkId,
        (voter, round, vote): (&[u8; 32], UnixTime, &Digest),
        key: &IdentityKey,
    ) -> [u8; SIGNATURE] {
        key.sign(ENDORSED, &endorsed(network, voter, round, vote))
    }

    /// Checks what [`Endorsement::signature`] makes; `key`: the online key.
    ///
    /// # Errors
    /// [`Error::Authentication`].
    pub fn verify_signature(
        network: &NetworkId,
        (voter, round, vote): (&[u8; 32], UnixTime, &Digest),
        key: &[u8; 32],
        signature: &[u8; SIGNATURE],
    ) -> Result<()> {
        verify(
            key,
            ENDORSED,
            &endorsed(network, voter, round, vote),
            signature,
        )
    }

    /// Appends the encoding.
    pub fn write(&self, writer: &mut Writer) {
        writer.u8(self.voter).u64(self.round.0).bytes(&self.vote.0);
        self.signatures.write(writer);
    }

    /// Reads what [`Endorsement::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let read = Self {
            voter: reader.u8()?,
            round: UnixTime(reader.u64()?),
            vote: Digest(reader.array()?),
            signatures: Signatures::read(reader)?,
        };
        if usize::from(read.voter) >= MAX_DIRECTORIES {
            return Err(Error::Malformed { what: ENDORSEMENT });
        }
        Ok(read)
    }
}

fn endorsed(network: &NetworkId, voter: &[u8; 32], round: UnixTime, vote: &Digest) -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .bytes(&network.0)
        .u64(round.0)
        .bytes(voter)
        .bytes(&vote.0);
    writer.into_bytes()
}
