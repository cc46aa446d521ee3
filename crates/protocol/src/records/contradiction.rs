//! The proof that a directory has said two things where honest ones say one.

use super::format::{begin, open};
use super::online_key::OnlineKey;
use super::roster::Roster;
use super::snapshot::Snapshot;
use super::vote::Endorsement;
use crate::identity::{Digest, NetworkId, SIGNATURE};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

const KIND: u8 = 10;
const WHAT: &str = "contradiction";

/// What is said once in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Statement {
    /// A vote.
    Vote = 1,
    /// A snapshot.
    Snapshot = 2,
}

/// Two different things that one directory has signed for one round. Anybody can check it.
///
/// ```text
/// 10 | 1 | statement 1 | round 8 | the directory's online key 178
///    | digest 32 | signature 64 | digest 32 | signature 64       the smaller digest first
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// What kind of thing.
    pub statement: Statement,
    /// For which round.
    pub round: UnixTime,
    /// The key that has signed both, and whose it is.
    pub key: OnlineKey,
    /// The two digests, the smaller one first, and their signatures.
    pub said: [(Digest, [u8; SIGNATURE]); 2],
}

impl Contradiction {
    /// Bytes of an encoded proof.
    pub const ENCODED: usize = 2 + 1 + 8 + OnlineKey::ENCODED + 2 * (32 + SIGNATURE);

    /// The proof of two statements; `None` if they are one.
    #[must_use]
    pub fn new(
        statement: Statement,
        round: UnixTime,
        key: OnlineKey,
        mut said: [(Digest, [u8; SIGNATURE]); 2],
    ) -> Option<Self> {
        said.sort_by_key(|(digest, _)| *digest);
        let differ = said[0].0 != said[1].0;
        differ.then_some(Self {
            statement,
            round,
            key,
            said,
        })
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer: Writer = begin(KIND);
        writer
            .u8(self.statement as u8)
            .u64(self.round.0)
            .bytes(&self.key.encode());
        for (digest, signature) in &self.said {
            writer.bytes(&digest.0).bytes(signature);
        }
        writer.into_bytes()
    }

    /// Reads the form; [`Contradiction::verify`] says whether it proves anything.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes, KIND, WHAT)?;
        let statement = match reader.u8()? {
            1 => Statement::Vote,
            2 => Statement::Snapshot,
            _ => return Err(reader.malformed()),
        };
        let round = UnixTime(reader.u64()?);
        let key = OnlineKey::decode(reader.take(OnlineKey::ENCODED)?)?;
        let said = [said(&mut reader)?, said(&mut reader)?];
        reader.finish()?;
        if said[0].0 >= said[1].0 {
            return Err(Error::Malformed { what: WHAT });
        }
        Ok(Self {
            statement,
            round,
            key,
            said,
        })
    }

    /// Checks that a directory of the roster has signed both; gives its index.
    ///
    /// # Errors
    /// [`Error::Authentication`]; those of [`OnlineKey::verify`] at the time of the round.
    pub fn verify(&self, roster: &Roster) -> Result<u8> {
        let index = self.key.verify(roster, self.round)?;
        for (digest, signature) in &self.said {
            self.verify_one(&roster.network(), index, digest, signature)?;
        }
        Ok(index)
    }

    fn verify_one(
        &self,
        network: &NetworkId,
        index: u8,
        digest: &Digest,
        signature: &[u8; SIGNATURE],
    ) -> Result<()> {
        let (round, key) = (self.round, &self.key.key);
        match self.statement {
            Statement::Vote => {
                Endorsement::verify_signature(network, (index, round, digest), key, signature)
            }
            Statement::Snapshot => {
                Snapshot::verify_signature(network, round, digest, key, signature)
            }
        }
    }
}

fn said(reader: &mut Reader<'_>) -> Result<(Digest, [u8; SIGNATURE])> {
    Ok((Digest(reader.array()?), reader.array()?))
}
