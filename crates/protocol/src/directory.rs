//! What is asked of the directory through a session, and what it answers.
//!
//! ```text
//! request  = format 1 (= 1) | id 8 | kind 1 | body
//! response = format 1 (= 1) | id 8 | kind 1 | body
//! ```
//!
//! | kind | request | body | answers |
//! |------|---------|------|---------|
//! | 1 | publish | service descriptor | done |
//! | 2 | look up an ID | id 32 | descriptor, not found |
//! | 3 | look up a name | label text | named, not found |
//! | 4 | look up a virtual address | 4 or 6: 1, address | descriptor, not found |
//! | 5 | lease | lease request | lease |
//! | 6 | claim a name | name record | done |
//! | 7 | name of an ID | id 32 | named (without descriptor), not found |
//! | 8 | look up an ID that has a list of clients | id 32, token 16 | descriptor, not found |
//!
//! | kind | response | body |
//! |------|----------|------|
//! | 1 | done | nothing |
//! | 2 | descriptor | service descriptor |
//! | 3 | named | name record: length 2, record; descriptor: length 2 (0: none), record |
//! | 4 | lease | lease |
//! | 5 | not found | nothing |
//! | 6 | refused | code 1, text |
//!
//! Every request can be refused, and can be repeated: asking twice does what asking once
//! does. Records travel signed and are checked by everyone who receives them.

use std::net::IpAddr;

use crate::authorisation::LookupToken;
use crate::identity::AnonymousId;
use crate::name::{Label, MAX_LABEL};
use crate::records::{Lease, LeaseRequest, NameRecord, ServiceDescriptor};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most bytes of an encoded request or response.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// The most bytes of a refusal's text.
pub const MAX_REFUSAL: usize = 200;

const FORMAT: u8 = 1;
const REQUEST: &str = "directory request";
const RESPONSE: &str = "directory response";

/// A request to the directory.
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
    /// Let this be found.
    Publish(ServiceDescriptor),
    /// How is this ID reached?
    LookupId(AnonymousId),
    /// Whose is this name, and how is it reached?
    LookupName(Label),
    /// Who has this virtual address, and how is it reached?
    LookupAddress(IpAddr),
    /// May I have a virtual IPv4 address?
    Lease(LeaseRequest),
    /// This name is to be mine.
    ClaimName(NameRecord),
    /// What is this ID called?
    NameOf(AnonymousId),
    /// How is this ID reached, which may have a list of clients?
    LookupListed(AnonymousId, LookupToken),
}

impl Request {
    /// The bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).u64(self.id);
        match &self.body {
            RequestBody::Publish(descriptor) => writer.u8(1).bytes(&descriptor.encode()),
            RequestBody::LookupId(id) => writer.u8(2).bytes(&id.0),
            RequestBody::LookupName(label) => writer.u8(3).text(label.as_str()),
            RequestBody::LookupAddress(IpAddr::V4(ip)) => writer.u8(4).u8(4).bytes(&ip.octets()),
            RequestBody::LookupAddress(IpAddr::V6(ip)) => writer.u8(4).u8(6).bytes(&ip.octets()),
            RequestBody::Lease(request) => writer.u8(5).bytes(&request.encode()),
            RequestBody::ClaimName(record) => writer.u8(6).bytes(&record.encode()),
            RequestBody::NameOf(id) => writer.u8(7).bytes(&id.0),
            RequestBody::LookupListed(id, token) => writer.u8(8).bytes(&id.0).bytes(&token.0),
        };
        writer.into_bytes()
    }

    /// Reads the form. Records inside are *not* verified yet: the directory does that
    /// where it decides, so that it can say why it refuses.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Version`], [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut reader, id) = open(bytes, REQUEST)?;
        let body = match reader.u8()? {
            1 => RequestBody::Publish(ServiceDescriptor::decode(rest(reader)?)?),
            2 => RequestBody::LookupId(last(reader, |r| Ok(AnonymousId(r.array()?)))?),
            3 => RequestBody::LookupName(last(reader, label)?),
            4 => RequestBody::LookupAddress(last(reader, address)?),
            5 => RequestBody::Lease(LeaseRequest::decode(rest(reader)?)?),
            6 => RequestBody::ClaimName(NameRecord::decode(rest(reader)?)?),
            7 => RequestBody::NameOf(last(reader, |r| Ok(AnonymousId(r.array()?)))?),
            8 => last(reader, |r| {
                let id = AnonymousId(r.array()?);
                Ok(RequestBody::LookupListed(id, LookupToken(r.array()?)))
            })?,
            _ => return Err(reader.malformed()),
        };
        Ok(Self { id, body })
    }

    /// The ID of a request that may be malformed further on, to refuse it by.
    #[must_use]
    pub fn id_of(bytes: &[u8]) -> Option<u64> {
        open(bytes, REQUEST).ok().map(|(_, id)| id)
    }
}

/// What the directory answers.
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
    /// It is stored, and will be after a crash.
    Done,
    /// How the ID is reached.
    Descriptor(ServiceDescriptor),
    /// Whose the name is, and how that ID is reached if it is published.
    Named {
        /// Signed by the ID.
        name: NameRecord,
        /// Of the same ID.
        descriptor: Option<ServiceDescriptor>,
    },
    /// The address is yours.
    Lease(Lease),
    /// There is no such thing.
    NotFound,
    /// No, and why.
    Refused {
        /// For programs.
        code: RefusalCode,
        /// For people: one line of up to [`MAX_REFUSAL`] bytes.
        text: String,
    },
}

/// Why the directory refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalCode {
    /// Not a request, or a record in it is none.
    Malformed = 1,
    /// A record's signature does not hold.
    BadSignature = 2,
    /// A record's life is over, or the sender's clock is behind.
    Expired = 3,
    /// A record's life has not begun: a clock is wrong.
    NotYetValid = 4,
    /// The directory has a newer record.
    Older = 5,
    /// The name is somebody else's, or the short ID another relay's.
    Taken = 6,
    /// No address can be had.
    NoAddress = 7,
    /// A bound is reached, of the directory or of this ID.
    Full = 8,
    /// Too many requests; again later.
    TooFast = 9,
    /// The directory cannot answer at present; again later.
    Unavailable = 10,
    /// The directory does not take this, of anybody.
    NotAllowed = 11,
}

impl RefusalCode {
    /// Whether the same request may be granted later.
    #[must_use]
    pub fn again_later(self) -> bool {
        matches!(self, Self::TooFast | Self::Unavailable)
    }

    fn read(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Malformed,
            2 => Self::BadSignature,
            3 => Self::Expired,
            4 => Self::NotYetValid,
            5 => Self::Older,
            6 => Self::Taken,
            7 => Self::NoAddress,
            8 => Self::Full,
            9 => Self::TooFast,
            10 => Self::Unavailable,
            11 => Self::NotAllowed,
            _ => return None,
        })
    }
}

impl Response {
    /// A refusal; the text is cut to [`MAX_REFUSAL`] bytes of one line.
    #[must_use]
    pub fn refused(id: u64, code: RefusalCode, text: &str) -> Self {
        Self {
            id,
            body: ResponseBody::Refused {
                code,
                text: one_line(text),
            },
        }
    }

    /// The bytes of the response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).u64(self.id);
        match &self.body {
            ResponseBody::Done => writer.u8(1),
            ResponseBody::Descriptor(descriptor) => writer.u8(2).bytes(&descriptor.encode()),
            ResponseBody::Named { name, descriptor } => {
                let descriptor = descriptor.as_ref().map(ServiceDescriptor::encode);
                nest(writer.u8(3), &name.encode());
                nest(&mut writer, descriptor.as_deref().unwrap_or_default())
            }
            ResponseBody::Lease(lease) => writer.u8(4).bytes(&lease.encode()),
            ResponseBody::NotFound => writer.u8(5),
            ResponseBody::Refused { code, text } => {
                writer.u8(6).u8(*code as u8).text(&one_line(text))
            }
        };
        writer.into_bytes()
    }

    /// Reads the answer of `directory` and verifies every record in it, so that it is
    /// worth as much as the records' signatures, no matter who carried it. Whether it is about
    /// what was asked remains to be compared.
    ///
    /// # Errors
    /// Those of the records, and [`Error::Length`], [`Error::Malformed`],
    /// [`Error::Version`], [`Error::Limit`] for the form.
    pub fn decode_and_verify(bytes: &[u8], directory: &AnonymousId, now: UnixTime) -> Result<Self> {
        let (mut reader, id) = open(bytes, RESPONSE)?;
        let body = match reader.u8()? {
            1 => last(reader, |_| Ok(ResponseBody::Done))?,
            2 => ResponseBody::Descriptor(descriptor(rest(reader)?, directory, now)?),
            3 => last(reader, |reader| {
                let name = NameRecord::decode_and_verify(nested(reader)?, now)?;
                let descriptor = match nested(reader)? {
                    [] => None,
                    bytes => Some(descriptor(bytes, directory, now)?),
                };
                if descriptor.as_ref().is_some_and(|found| found.id != name.id) {
                    return Err(reader.malformed());
                }
                Ok(ResponseBody::Named { name, descriptor })
            })?,
            4 => ResponseBody::Lease(Lease::decode_and_verify(rest(reader)?, directory, now)?),
            5 => last(reader, |_| Ok(ResponseBody::NotFound))?,
            6 => last(reader, |reader| {
                let code = RefusalCode::read(reader.u8()?).ok_or_else(|| reader.malformed())?;
                let text = reader.text(MAX_REFUSAL)?;
                // Shown to people: nothing that a terminal would act on.
                if text.chars().any(char::is_control) {
                    return Err(reader.malformed());
                }
                Ok(ResponseBody::Refused {
                    code,
                    text: text.to_owned(),
                })
            })?,
            _ => return Err(reader.malformed()),
        };
        Ok(Self { id, body })
    }
}

/// A descriptor that both its ID's signature and, if it has a lease, the directory's vouch for.
fn descriptor(bytes: &[u8], directory: &AnonymousId, now: UnixTime) -> Result<ServiceDescriptor> {
    let descriptor = ServiceDescriptor::decode_and_verify(bytes, now)?;
    if let Some(lease) = &descriptor.lease {
        lease.verify(directory, now)?;
    }
    Ok(descriptor)
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

fn rest<'a>(mut reader: Reader<'a>) -> Result<&'a [u8]> {
    let left = reader.left();
    reader.take(left)
}

fn last<'a, T>(
    mut reader: Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T>,
) -> Result<T> {
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn label(reader: &mut Reader<'_>) -> Result<Label> {
    let text = reader.text(MAX_LABEL)?;
    let label = Label::new(text)?;
    if label.as_str() == text {
        Ok(label)
    } else {
        Err(reader.malformed())
    }
}

fn address(reader: &mut Reader<'_>) -> Result<IpAddr> {
    match reader.u8()? {
        4 => Ok(reader.array::<4>()?.into()),
        6 => Ok(reader.array::<16>()?.into()),
        _ => Err(reader.malformed()),
    }
}

fn nested<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let length = usize::from(reader.u16()?);
    reader.take(length)
}

fn nest<'w>(writer: &'w mut Writer, record: &[u8]) -> &'w mut Writer {
    writer
        .u16(u16::try_from(record.len()).unwrap_or(u16::MAX))
        .bytes(record)
}

fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let end = (0..=MAX_REFUSAL.min(line.len()))
        .rev()
        .find(|i| line.is_char_boundary(*i));
    line.truncate(end.unwrap_or(0));
    line
}
