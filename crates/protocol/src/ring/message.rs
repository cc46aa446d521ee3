//! What is asked of a relay of the ring through a session, and what it answers.
//!
//! ```text
//! request  = format 1 (= 1) | id 8 | kind 1 | body
//! response = format 1 (= 1) | id 8 | kind 1 | body             id is the request's
//! ```
//!
//! | kind | request | body | answers |
//! |------|---------|------|---------|
//! | 1 | store | nonce 16, effort 4, record 3072 | done |
//! | 2 | fetch | blinded ID 32 | record, not found |
//!
//! | kind | response | body |
//! |------|----------|------|
//! | 1 | done | nothing |
//! | 2 | record | record 3072 |
//! | 3 | not found | nothing |
//! | 4 | refused | code 1, effort 4 |
//!
//! Every request can be refused, and can be repeated. Kinds 16 to 31 of both are kept for copies of snapshots. A
//! relay refuses a kind that it does not know, so that others can be added.

use super::blinding::BlindedId;
use super::record::Record;
use super::store::MIN_EFFORT;
use crate::effort::{Effort, NONCE, Solution};
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most bytes of an encoded request or response.
pub const MAX_MESSAGE: usize = 16 * 1024;

const FORMAT: u8 = 1;
const REQUEST: &str = "ring request";
const RESPONSE: &str = "ring response";

/// A request to a relay of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the asker; the answer has the same.
    pub id: u64,
    /// What is asked.
    pub body: RequestBody,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// Keep this, for which so much was spent: an effort of 0 or a power of two, at least [`MIN_EFFORT`].
    Store(Solution, Record),
    /// What is kept under this key?
    Fetch(BlindedId),
}

impl Request {
    /// The bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.id);
        match &self.body {
            RequestBody::Store(solution, record) => writer
                .u8(1)
                .bytes(&solution.nonce)
                .u32(solution.effort)
                .bytes(record.as_bytes()),
            RequestBody::Fetch(blinded) => writer.u8(2).bytes(&blinded.0),
        };
        writer.into_bytes()
    }

    /// Reads the form. A record inside is *not* verified yet.
    ///
    /// # Errors
    /// [`Error::UnknownKind`] if only the kind is not known; [`Error::Length`], [`Error::Malformed`],
    /// [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut reader, id) = open(bytes, REQUEST)?;
        let body = match reader.u8()? {
            1 => RequestBody::Store(solution(&mut reader)?, record(&mut reader)?),
            2 => RequestBody::Fetch(BlindedId(reader.array()?)),
            kind => return Err(Error::UnknownKind(kind)),
        };
        reader.finish()?;
        Ok(Self { id, body })
    }

    /// The ID of a request that may be malformed further on, to refuse it by.
    #[must_use]
    pub fn id_of(bytes: &[u8]) -> Option<u64> {
        open(bytes, REQUEST).ok().map(|(_, id)| id)
    }
}

/// What a relay of the ring answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The ID of the request.
    pub id: u64,
    /// The answer.
    pub body: ResponseBody,
}

/// What can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseBody {
    /// It is kept, until it ends, the relay stops, or somebody has spent more.
    Done,
    /// This is kept.
    Record(Record),
    /// Nothing is.
    NotFound,
    /// No, and why.
    Refused(Refusal),
}

/// Why a relay of the ring refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a request, or a record in it is none.
    Malformed,
    /// A record's signature does not hold.
    BadSignature,
    /// A record's life is over, or the sender's clock is behind.
    Expired,
    /// A record's life would be too long, or the sender's clock is ahead.
    TooLong,
    /// Another record of this revision, or a later one, is kept.
    Older,
    /// By the relay's list others keep this record.
    NotHere,
    /// Not a period that is kept now.
    OtherPeriod,
    /// There is no room for an effort like this. So much is likely to be enough: a power of two, at least
    /// [`MIN_EFFORT`].
    Full(Effort),
    /// Too many requests; again later.
    TooFast,
    /// A kind of request that this relay does not know.
    UnknownKind,
    /// The effort was not spent for this key, period and relay.
    NotSolved,
}

impl Refusal {
    /// Code and effort as they are on the wire.
    fn code(self) -> (u8, Effort) {
        match self {
            Self::Malformed => (1, 0),
            Self::BadSignature => (2, 0),
            Self::Expired => (3, 0),
            Self::TooLong => (4, 0),
            Self::Older => (5, 0),
            Self::NotHere => (6, 0),
            Self::OtherPeriod => (7, 0),
            Self::Full(effort) => (8, effort),
            Self::TooFast => (9, 0),
            Self::UnknownKind => (10, 0),
            Self::NotSolved => (11, 0),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match (reader.u8()?, reader.u32()?) {
            (1, 0) => Self::Malformed,
            (2, 0) => Self::BadSignature,
            (3, 0) => Self::Expired,
            (4, 0) => Self::TooLong,
            (5, 0) => Self::Older,
            (6, 0) => Self::NotHere,
            (7, 0) => Self::OtherPeriod,
            (8, effort) if is_some_effort(effort) => Self::Full(effort),
            (9, 0) => Self::TooFast,
            (10, 0) => Self::UnknownKind,
            (11, 0) => Self::NotSolved,
            _ => return Err(reader.malformed()),
        })
    }
}

impl Response {
    /// The bytes of the response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.id);
        match &self.body {
            ResponseBody::Done => writer.u8(1),
            ResponseBody::Record(record) => writer.u8(2).bytes(record.as_bytes()),
            ResponseBody::NotFound => writer.u8(3),
            ResponseBody::Refused(refusal) => {
                let (code, effort) = refusal.code();
                writer.u8(4).u8(code).u32(effort)
            }
        };
        writer.into_bytes()
    }

    /// Reads the form. A record inside is *not* verified yet: [`Record::open`] does that.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut reader, id) = open(bytes, RESPONSE)?;
        let body = match reader.u8()? {
            1 => ResponseBody::Done,
            2 => ResponseBody::Record(record(&mut reader)?),
            3 => ResponseBody::NotFound,
            4 => ResponseBody::Refused(Refusal::read(&mut reader)?),
            _ => return Err(reader.malformed()),
        };
        reader.finish()?;
        Ok(Self { id, body })
    }
}

fn begin(id: u64) -> Writer {
    let mut writer = Writer::new();
    writer.u8(FORMAT).u64(id);
    writer
}

fn open<'a>(bytes: &'a [u8], what: &'static str) -> Result<(Reader<'a>, u64)> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Error::Limit { what });
    }
    let mut reader = Reader::new(bytes, what);
    if reader.u8()? != FORMAT {
        return Err(Error::Version { what });
    }
    let id = reader.u64()?;
    Ok((reader, id))
}

fn record(reader: &mut Reader<'_>) -> Result<Record> {
    let left = reader.left();
    Record::parse(reader.take(left)?)
}

/// Without effort the nonce is zeros.
fn solution(reader: &mut Reader<'_>) -> Result<Solution> {
    let solution = Solution {
        nonce: reader.array::<NONCE>()?,
        effort: reader.u32()?,
    };
    if solution == Solution::default() || is_some_effort(solution.effort) {
        Ok(solution)
    } else {
        Err(reader.malformed())
    }
}

fn is_some_effort(effort: Effort) -> bool {
    effort >= MIN_EFFORT && effort.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::RECORD;
    use super::*;

    fn record() -> Record {
        Record::parse(&[0; RECORD]).unwrap()
    }

    fn requests() -> Vec<RequestBody> {
        let spent = Solution {
            nonce: [7; NONCE],
            effort: MIN_EFFORT,
        };
        vec![
            RequestBody::Store(Solution::default(), record()),
            RequestBody::Store(spent, record()),
            RequestBody::Fetch(BlindedId([8; 32])),
        ]
    }

    fn responses() -> Vec<ResponseBody> {
        let refusals = [
            Refusal::Malformed,
            Refusal::BadSignature,
            Refusal::Expired,
            Refusal::TooLong,
            Refusal::Older,
            Refusal::NotHere,
            Refusal::OtherPeriod,
            Refusal::Full(1 << 31),
            Refusal::TooFast,
            Refusal::UnknownKind,
            Refusal::NotSolved,
        ];
        let mut all = vec![
            ResponseBody::Done,
            ResponseBody::Record(record()),
            ResponseBody::NotFound,
        ];
        all.extend(refusals.map(ResponseBody::Refused));
        all
    }

    #[test]
    fn messages_go_there_and_back_and_have_one_length() {
        for body in requests() {
            let request = Request { id: 7, body };
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Ok(request));
            assert_eq!(Request::id_of(&bytes), Some(7));
            assert!(bytes.len() <= MAX_MESSAGE);
            for length in 0..bytes.len() {
                assert!(Request::decode(&bytes[..length]).is_err());
            }
            assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        for body in responses() {
            let response = Response { id: 7, body };
            let bytes = response.encode();
            assert_eq!(Response::decode(&bytes), Ok(response));
            for length in 0..bytes.len() {
                assert!(Response::decode(&bytes[..length]).is_err());
            }
            assert!(Response::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        let long = vec![1; MAX_MESSAGE + 1];
        assert!(Request::decode(&long).is_err() && Response::decode(&long).is_err());
    }

    #[test]
    fn a_kind_that_is_not_known_can_be_refused_by_its_id() {
        let mut bytes = Request {
            id: 7,
            body: RequestBody::Fetch(BlindedId([8; 32])),
        }
        .encode();
        bytes[9] = 16;
        assert_eq!(Request::decode(&bytes), Err(Error::UnknownKind(16)));
        assert_eq!(Request::id_of(&bytes), Some(7));
        bytes[0] = 2;
        assert_eq!(Request::id_of(&bytes), None);
    }

    #[test]
    fn efforts_have_one_form() {
        for (nonce, effort, allowed) in [
            (0, 0, true),
            (1, 0, false),
            (0, MIN_EFFORT, true),
            (0, MIN_EFFORT / 2, false),
            (0, MIN_EFFORT + 1, false),
            (1, 1 << 31, true),
        ] {
            let solution = Solution {
                nonce: [nonce; NONCE],
                effort,
            };
            let body = RequestBody::Store(solution, record());
            let read = Request::decode(&Request { id: 1, body }.encode());
            assert_eq!(read.is_ok(), allowed, "{nonce} {effort}");
        }
        for effort in [0, 1, MIN_EFFORT + 1] {
            let body = ResponseBody::Refused(Refusal::Full(effort));
            assert!(Response::decode(&Response { id: 1, body }.encode()).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [&[1, 0, 0, 0, 0, 0, 0, 0, 7], &bytes[..]].concat();
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes.clone());
            }
            if let Ok(response) = Response::decode(&bytes) {
                prop_assert_eq!(response.encode(), bytes);
            }
        }
    }
}
