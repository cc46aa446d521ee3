//! Who the directories of a network are, and how many of them it takes.

use arrayvec::ArrayVec;

use super::format::{MAX_TEXT, begin, open};
use super::signatures::Signatures;
use crate::identity::{AnonymousId, Digest, IdentityKey, NetworkId, verify};
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most directories of a network: what a certificate has room for in an initiation.
pub const MAX_DIRECTORIES: usize = 10;
/// The most bytes of a directory's address in a roster.
pub const MAX_URL: usize = 200;
/// Rounds of a network with several directories are this long, in seconds.
pub const ROUND_SECONDS: std::ops::RangeInclusive<u32> = 10..=3600;

const KIND: u8 = 7;
const WHAT: &str = "roster";
const DOMAIN: &str = "mixline/v2/roster";

/// One directory in a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity: an Ed25519 key that is kept offline and certifies the keys that sign
    /// ([`super::OnlineKey`]).
    pub key: [u8; 32],
    /// What people call it: 1 to 32 of `a-z A-Z 0-9 -`.
    pub name: String,
    /// Where it is asked, `http://host:port`: at most [`MAX_URL`] bytes.
    pub url: String,
}

/// The directories of a network, signed by themselves and by those that were before them.
///
/// ```text
/// 7 | 1 | network 32 | version 4 | round seconds 4 | validity seconds 4
///   | count 1 | (key 32 | name text | url text) * count
///   | signatures of the version before | signatures of these
/// ```
///
/// Of `n = 3f + 1` directories, `m = 2f + 1` decide: two sets of `m` have `f + 1` in common, so one that is
/// honest, as long as `f` are not. A majority would not be enough (Luo and others, "Attacking and Improving
/// the Tor Directory Protocol", IEEE S&P 2024).
///
/// The hash of the first version, without its signatures and with zeros for the network, is the
/// network's ID. Version `v + 1` is signed by `m` of version `v` and by `m` of its own (as the root role of
/// TUF, section 6.1 of its specification).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    network: NetworkId,
    /// 1, and one more with each change; 0 for a directory that is alone and has no roster.
    pub version: u32,
    /// How long a round is, in seconds; 0 for a directory that is alone.
    pub round_seconds: u32,
    /// For how long a snapshot is valid, in seconds; 0 for a directory that is alone.
    pub validity_s: u32,
    /// The directories. Their places are their indices.
    pub members: Vec<Member>,
    /// Of those of the version before.
    pub signed_before: Signatures,
    /// Of these.
    pub signed: Signatures,
}

impl Roster {
    /// The most bytes of an encoded roster.
    pub const MAX_ENCODED: usize = 2
        + 32
        + 3 * 4
        + 1
        + MAX_DIRECTORIES * (32 + 1 + MAX_TEXT + 1 + MAX_URL)
        + 2 * Signatures::MAX_ENCODED;
    /// The most bytes of a chain, which is downloaded whole: some 260 of the largest rosters.
    pub const MAX_CHAIN: usize = 1 << 20;

    /// The first roster of a new network. [`Roster::sign`] adds signatures.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Limit`] if it is not as documented.
    pub fn first(members: Vec<Member>, round_seconds: u32, validity_s: u32) -> Result<Self> {
        let mut roster = Self {
            network: NetworkId([0; 32]),
            version: 1,
            round_seconds,
            validity_s,
            members,
            signed_before: Signatures::default(),
            signed: Signatures::default(),
        };
        roster.check()?;
        roster.network = roster.hash();
        Ok(roster)
    }

    /// The roster that follows this one.
    ///
    /// # Errors
    /// As [`Roster::first`].
    pub fn next(&self, members: Vec<Member>, round_seconds: u32, validity_s: u32) -> Result<Self> {
        let roster = Self {
            network: self.network,
            version: self.version.saturating_add(1),
            round_seconds,
            validity_s,
            members,
            signed_before: Signatures::default(),
            signed: Signatures::default(),
        };
        roster.check()?;
        Ok(roster)
    }

    /// What stands for a roster where a single directory is the network, which its ID names: it needs no
    /// signature, and its key signs itself.
    #[must_use]
    pub fn alone(directory: AnonymousId) -> Self {
        let member = Member {
            key: directory.0,
            name: "directory".into(),
            url: String::new(),
        };
        Self {
            network: directory.into(),
            version: 0,
            round_seconds: 0,
            validity_s: 0,
            members: vec![member],
            signed_before: Signatures::default(),
            signed: Signatures::default(),
        }
    }

    /// Whether it is [`Roster::alone`].
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.version == 0
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// How many of the directories may lie or be away: `f`.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.members.len().saturating_sub(1) / 3
    }

    /// How many it takes: `m = 2f + 1`.
    #[must_use]
    pub fn quorum(&self) -> usize {
        2 * self.faults() + 1
    }

    /// The index of the directory with this identity.
    #[must_use]
    pub fn index_of(&self, key: &[u8; 32]) -> Option<u8> {
        let at = self.members.iter().position(|member| member.key == *key)?;
        u8::try_from(at).ok()
    }

    /// The directory at an index.
    #[must_use]
    pub fn member(&self, index: u8) -> Option<&Member> {
        self.members.get(usize::from(index))
    }

    /// Adds the signature of a member's offline key: as one of these, and, if `before` is the version
    /// before and has the key, as one of those. Says whether the key is in either.
    pub fn sign(&mut self, key: &IdentityKey, before: Option<&Self>) -> bool {
        let before = before.filter(|before| self.follows(before));
        let signature = key.sign(DOMAIN, self.body(self.network_field()).written());
        let (old, new) = (
            before.and_then(|before| before.index_of(&key.public())),
            self.index_of(&key.public()),
        );
        if let Some(index) = old {
            self.signed_before.put(index, signature);
        }
        if let Some(index) = new {
            self.signed.put(index, signature);
        }
        old.is_some() || new.is_some()
    }

    /// Takes over the signatures of a copy of the same roster that others have signed: those that are missing
    /// here. One of these directories that does not hold is left out; those of the version before cannot be
    /// checked here.
    ///
    /// # Errors
    /// [`Error::Authentication`] if it is not the same.
    pub fn merge(&mut self, copy: &Self) -> Result<()> {
        if copy.hash() != self.hash() || copy.network != self.network {
            return Err(Error::Authentication { what: DOMAIN });
        }
        let missing = |from: &Signatures, to: &Signatures| {
            let mut missing = from.clone();
            missing.retain(|index, _| to.iter().all(|(has, _)| has != index));
            missing
        };
        let body = self.body(self.network_field());
        for (index, signature) in missing(&copy.signed, &self.signed).iter() {
            let member = self.member(index);
            let holds = |member: &Member| verify(&member.key, DOMAIN, body.written(), signature);
            if member.is_some_and(|member| holds(member).is_ok()) {
                self.signed.put(index, *signature);
            }
        }
        for (index, signature) in missing(&copy.signed_before, &self.signed_before).iter() {
            self.signed_before.put(index, *signature);
        }
        Ok(())
    }

    /// The bytes of the record, signatures included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.body(self.network_field());
        self.signed_before.write(&mut writer);
        self.signed.write(&mut writer);
        writer.into_bytes()
    }

    /// Reads the form. Nothing is known of who made it before [`Roster::verify_first`] or
    /// [`Roster::verify_after`].
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, KIND, WHAT)?;
        let network = NetworkId(reader.array()?);
        let (version, round_seconds) = (reader.u32()?, reader.u32()?);
        let validity_s = reader.u32()?;
        let count = usize::from(reader.u8()?);
        if count > MAX_DIRECTORIES {
            return Err(Error::Limit { what: WHAT });
        }
        let members = (0..count)
            .map(|_| read_member(&mut reader))
            .collect::<Result<_>>()?;
        let mut roster = Self {
            network,
            version,
            round_seconds,
            validity_s,
            members,
            signed_before: Signatures::read(&mut reader)?,
            signed: Signatures::read(&mut reader)?,
        };
        let first = version == 1;
        if first != (network == NetworkId([0; 32])) || (first && roster.signed_before.count() > 0) {
            return Err(reader.malformed());
        }
        reader.finish()?;
        roster.check()?;
        if version == 1 {
            roster.network = roster.hash();
        }
        Ok(roster)
    }

    /// Checks that this is the first roster of a network, and that `m` of its own have signed it.
    ///
    /// # Errors
    /// [`Error::Authentication`].
    pub fn verify_first(&self, network: NetworkId) -> Result<()> {
        if self.version != 1 || self.network != network || self.hash() != network {
            return Err(Error::Authentication { what: DOMAIN });
        }
        self.verify_own()
    }

    /// Checks that this is the roster after `before`, of the same network, signed by `m` of each.
    ///
    /// # Errors
    /// [`Error::Authentication`].
    pub fn verify_after(&self, before: &Self) -> Result<()> {
        if !self.follows(before) {
            return Err(Error::Authentication { what: DOMAIN });
        }
        self.verify_signed(before, &self.signed_before)?;
        self.verify_own()
    }

    /// Reads `(length 2 | roster) *`, the first one of a network and those after it, and checks each by the
    /// one before. Gives all of them.
    ///
    /// # Errors
    /// Those of [`Roster::decode`], [`Roster::verify_first`] and [`Roster::verify_after`]; [`Error::Limit`] past
    /// [`Roster::MAX_CHAIN`].
    pub fn decode_chain(bytes: &[u8], network: NetworkId) -> Result<Vec<Self>> {
        if bytes.len() > Self::MAX_CHAIN {
            return Err(Error::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let mut chain: Vec<Self> = Vec::new();
        while reader.left() > 0 {
            let roster = Self::decode(super::format::read_nested(&mut reader)?)?;
            match chain.last() {
                None => roster.verify_first(network)?,
                Some(before) => roster.verify_after(before)?,
            }
            chain.push(roster);
        }
        if chain.is_empty() {
            return Err(reader.malformed());
        }
        Ok(chain)
    }

    /// Writes what [`Roster::decode_chain`] reads.
    #[must_use]
    pub fn encode_chain<'a>(chain: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let mut writer = Writer::new();
        for roster in chain {
            super::format::write_nested(&mut writer, &roster.encode());
        }
        writer.into_bytes()
    }

    fn follows(&self, before: &Self) -> bool {
        before.version.checked_add(1) == Some(self.version)
            && self.network == before.network
            && !before.is_alone()
    }

    fn verify_own(&self) -> Result<()> {
        self.verify_signed(self, &self.signed)
    }

    /// Every signature holds, and there are enough.
    fn verify_signed(&self, by: &Self, signatures: &Signatures) -> Result<()> {
        let failed = Error::Authentication { what: DOMAIN };
        let body = self.body(self.network_field());
        for (index, signature) in signatures.iter() {
            let member = by.member(index).ok_or_else(|| failed.clone())?;
            verify(&member.key, DOMAIN, body.written(), signature)?;
        }
        if signatures.count() < by.quorum() {
            return Err(failed);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let malformed = Err(Error::Malformed { what: WHAT });
        if self.members.len() > MAX_DIRECTORIES {
            return Err(Error::Limit { what: WHAT });
        }
        // 1, 4, 7 or 10: others would cost a directory without bearing one more fault.
        if self.members.len() % 3 != 1 || self.version == 0 {
            return malformed;
        }
        let keys: ArrayVec<_, MAX_DIRECTORIES> = self.members.iter().map(|m| m.key).collect();
        let twice = |at: usize, key| keys.iter().skip(at + 1).any(|other| other == key);
        if keys.iter().enumerate().any(|(at, key)| twice(at, key)) {
            return malformed;
        }
        if !self
            .members
            .iter()
            .all(|m| is_word(&m.name) && is_url(&m.url))
        {
            return malformed;
        }
        let longest = 24 * 3600;
        let valid = self.round_seconds.saturating_mul(2)..=longest;
        if !ROUND_SECONDS.contains(&self.round_seconds) || !valid.contains(&self.validity_s) {
            return malformed;
        }
        Ok(())
    }

    fn hash(&self) -> NetworkId {
        NetworkId(Digest::of(DOMAIN, &[self.body(NetworkId([0; 32])).written()]).0)
    }

    /// The first roster cannot have its own hash in it.
    fn network_field(&self) -> NetworkId {
        if self.version == 1 {
            NetworkId([0; 32])
        } else {
            self.network
        }
    }

    fn body(&self, network: NetworkId) -> Writer {
        let mut writer = begin(KIND);
        writer.bytes(&network.0).u32(self.version);
        writer.u32(self.round_seconds).u32(self.validity_s);
        writer.u8(u8::try_from(self.members.len()).unwrap_or(u8::MAX));
        for Member { key, name, url } in &self.members {
            writer.bytes(key).text(name).text(url);
        }
        writer
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member> {
    Ok(Member {
        key: reader.array()?,
        name: reader.text(MAX_TEXT)?.into(),
        url: reader.text(MAX_URL)?.into(),
    })
}

fn is_word(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// What is shown and asked as it stands: one line of ASCII that begins as an address does.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://");
    rest.is_some_and(|rest| !rest.is_empty())
        && text.len() <= MAX_URL
        && text.bytes().all(|b| b.is_ascii_graphic())
}
