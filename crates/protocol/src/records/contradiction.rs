//! The proof that a directory has said two things where honest ones say one.

use super::format::{begin, open};
use super::online_key::OnlineKey;
use super::roster::Roster;
use super::snapshot::Snapshot;
use super::vote::Endorsement;
use crate::identity::{Digest, SIGNATURE};
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

/// One of the two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The key that has signed it, and whose it is.
    pub key: OnlineKey,
    /// Of the vote or the snapshot.
    pub digest: Digest,
    /// By that key: [`Endorsement::signature`] of an own vote, or [`Snapshot::signature`].
    pub signature: [u8; SIGNATURE],
}

/// Two different things that one directory has signed for one round. Anybody can check it.
///
/// ```text
/// 10 | 1 | statement 1 | round 8
///    | (the directory's online key 178 | digest 32 | signature 64) * 2       the smaller digest first
/// ```
///
/// Each has a key of its own: a directory may have two at a time, and who lies signs each thing with another
/// one. In which version of the roster it said so does not matter, nor at which index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// What kind of thing.
    pub statement: Statement,
    /// For which round.
    pub round: UnixTime,
    /// The two of them, the one with the smaller digest first.
    pub said: [Said; 2],
}

impl Contradiction {
    /// Bytes of an encoded proof.
    pub const ENCODED: usize = 2 + 1 + 8 + 2 * (OnlineKey::ENCODED + 32 + SIGNATURE);

    /// The proof of two statements; `None` if they are one.
    #[must_use]
    pub fn new(statement: Statement, round: UnixTime, mut said: [Said; 2]) -> Option<Self> {
        said.sort_by_key(|said| said.digest);
        let differ = said[0].digest != said[1].digest;
        differ.then_some(Self {
            statement,
            round,
            said,
        })
    }

    /// The bytes of the proof.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer: Writer = begin(KIND);
        writer.u8(self.statement as u8).u64(self.round.0);
        for Said {
            key,
            digest,
            signature,
        } in &self.said
        {
            writer
                .bytes(&key.encode())
                .bytes(&digest.0)
                .bytes(signature);
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
        let said = [said(&mut reader)?, said(&mut reader)?];
        if said[0].digest >= said[1].digest {
            return Err(reader.malformed());
        }
        reader.finish()?;
        Ok(Self {
            statement,
            round,
            said,
        })
    }

    /// Checks that one directory of the roster has signed both; gives its index.
    ///
    /// # Errors
    /// [`Error::Authentication`]; those of [`OnlineKey::verify`] at the time of the round.
    pub fn verify(&self, roster: &Roster) -> Result<u8> {
        let [first, second] = &self.said;
        let index = self.verify_one(first, roster)?;
        if self.verify_one(second, roster)? != index {
            return Err(Error::Authentication { what: WHAT });
        }
        Ok(index)
    }

    /// Checks that a directory of the roster has signed it as its own; gives its index.
    fn verify_one(&self, said: &Said, roster: &Roster) -> Result<u8> {
        let Said {
            key,
            digest,
            signature,
        } = said;
        let (network, round) = (roster.network(), self.round);
        let index = key.verify(roster, round)?;
        match self.statement {
            Statement::Vote => {
                let vote = (&key.directory, round, digest);
                Endorsement::verify_signature(&network, vote, &key.key, signature)?;
            }
            Statement::Snapshot => {
                Snapshot::verify_signature(&network, round, digest, &key.key, signature)?;
            }
        }
        Ok(index)
    }
}

fn said(reader: &mut Reader<'_>) -> Result<Said> {
    Ok(Said {
        key: OnlineKey::decode(reader.take(OnlineKey::ENCODED)?)?,
        digest: Digest(reader.array()?),
        signature: reader.array()?,
    })
}
