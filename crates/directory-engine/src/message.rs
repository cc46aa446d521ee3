//! What directories send to each other during a round.
//!
//! ```text
//! message = kind 1 | count 1, online key 178 * count | body
//! 1 endorsements: count 1, endorsement *
//! 2 signature:    round 8 | index 1 | digest 32 | signature 64
//! 3 proof:        contradiction
//! ```
//!
//! A message needs no sender: all that it says is signed. The online keys are those that the receiver needs
//! to check it.

use mixline_protocol::identity::{Digest, SIGNATURE};
use mixline_protocol::records::{
    Contradiction, Endorsement, MAX_DIRECTORIES, MAX_ONLINE_KEYS, OnlineKey,
};
use mixline_protocol::time::UnixTime;
use mixline_protocol::wire::{Reader, Writer};
use mixline_protocol::{Error, Result};

const WHAT: &str = "message of a directory";
/// Online keys in a message: those of all directories.
const KEYS: usize = MAX_DIRECTORIES * MAX_ONLINE_KEYS;
/// Endorsements in a message: two votes of each directory.
const ENDORSEMENTS: usize = 2 * MAX_DIRECTORIES;

/// A message to another directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The keys that it takes to check it.
    pub keys: Vec<OnlineKey>,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// These votes there are.
    Endorsements(Vec<Endorsement>),
    /// A directory has signed a snapshot.
    Signature {
        /// Of which round.
        round: UnixTime,
        /// Which directory.
        index: u8,
        /// Which snapshot.
        digest: Digest,
        /// The signature.
        signature: [u8; SIGNATURE],
    },
    /// A directory has said two things.
    Contradiction(Box<Contradiction>),
}

impl Message {
    /// The most bytes of an encoded message.
    pub const MAX_ENCODED: usize =
        3 + KEYS * OnlineKey::ENCODED + ENDORSEMENTS * Endorsement::MAX_ENCODED + 1;

    /// The bytes of the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(match &self.body {
            Body::Endorsements(_) => 1,
            Body::Signature { .. } => 2,
            Body::Contradiction(_) => 3,
        });
        writer.u8(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for key in &self.keys {
            writer.bytes(&key.encode());
        }
        match &self.body {
            Body::Endorsements(endorsements) => {
                writer.u8(u8::try_from(endorsements.len()).unwrap_or(u8::MAX));
                for endorsement in endorsements {
                    endorsement.write(&mut writer);
                }
            }
            Body::Signature {
                round,
                index,
                digest,
                signature,
            } => {
                writer
                    .u64(round.0)
                    .u8(*index)
                    .bytes(&digest.0)
                    .bytes(signature);
            }
            Body::Contradiction(proof) => {
                writer.bytes(&proof.encode());
            }
        }
        writer.into_bytes()
    }

    /// Reads a message. Nothing in it is checked.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > Self::MAX_ENCODED {
            return Err(Error::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let kind = reader.u8()?;
        let count = usize::from(reader.u8()?);
        if count > KEYS {
            return Err(Error::Limit { what: WHAT });
        }
        let keys = (0..count).map(|_| OnlineKey::decode(reader.take(OnlineKey::ENCODED)?));
        let keys = keys.collect::<Result<_>>()?;
        let body = match kind {
            1 => {
                let count = usize::from(reader.u8()?);
                if count > ENDORSEMENTS {
                    return Err(Error::Limit { what: WHAT });
                }
                let endorsements = (0..count).map(|_| Endorsement::read(&mut reader));
                Body::Endorsements(endorsements.collect::<Result<_>>()?)
            }
            2 => Body::Signature {
                round: UnixTime(reader.u64()?),
                index: reader.u8()?,
                digest: Digest(reader.array()?),
                signature: reader.array()?,
            },
            3 => {
                let proof = reader.take(Contradiction::ENCODED)?;
                Body::Contradiction(Box::new(Contradiction::decode(proof)?))
            }
            _ => return Err(reader.malformed()),
        };
        reader.finish()?;
        Ok(Self { keys, body })
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::{IdentityKey, NetworkId};
    use mixline_protocol::records::{Said, Signatures, Statement};
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> OnlineKey {
        let identity = IdentityKey::from_seed([n; 32]);
        let life = (UnixTime(1), UnixTime(2));
        OnlineKey::certify(NetworkId([1; 32]), [n; 32], life, &identity).unwrap()
    }

    fn samples() -> Vec<Message> {
        let mut signatures = Signatures::default();
        signatures.put(0, [1; 64]);
        signatures.put(3, [2; 64]);
        let endorsement = |voter| Endorsement {
            voter,
            round: UnixTime(300),
            vote: Digest([voter; 32]),
            signatures: signatures.clone(),
        };
        let said = [1, 2].map(|n| Said {
            key: key(n),
            digest: Digest([n; 32]),
            signature: [n; 64],
        });
        let proof = Contradiction::new(Statement::Vote, UnixTime(300), said).unwrap();
        let signature = Body::Signature {
            round: UnixTime(300),
            index: 2,
            digest: Digest([9; 32]),
            signature: [8; 64],
        };
        let bodies = [
            Body::Endorsements(vec![endorsement(0), endorsement(9)]),
            Body::Endorsements(vec![endorsement(1); ENDORSEMENTS]),
            signature,
            Body::Contradiction(Box::new(proof)),
        ];
        let with_keys = |body| Message {
            keys: vec![key(1), key(2)],
            body,
        };
        bodies.into_iter().map(with_keys).collect()
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_nothing_else_is() {
        for message in samples() {
            let bytes = message.encode();
            assert!(bytes.len() <= Message::MAX_ENCODED);
            assert_eq!(Message::decode(&bytes), Ok(message));
            assert!((0..bytes.len()).all(|end| Message::decode(&bytes[..end]).is_err()));
            assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        let mut crowd = samples().remove(0);
        crowd.keys = vec![key(1); KEYS + 1];
        assert!(Message::decode(&crowd.encode()).is_err());
    }

    proptest! {
        /// Whatever is read is written to the same bytes again.
        #[test]
        fn what_is_bent_is_refused_or_is_another_message(
            which in 0usize..4,
            at: prop::sample::Index,
            value: u8,
            noise in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = samples()[which].encode();
            let index = at.index(bytes.len());
            bytes[index] = value;
            for bytes in [bytes, noise] {
                if let Ok(read) = Message::decode(&bytes) {
                    prop_assert_eq!(read.encode(), bytes);
                }
            }
        }
    }
}
