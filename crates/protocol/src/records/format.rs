//! What all records have in common: how they begin and end, and how long they are good.

use crate::identity::SIGNATURE;
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// How far apart two clocks may be, in seconds: a record is taken that was issued this
/// much in the future.
pub const CLOCK_SKEW: u64 = 300;
/// The version of the format of most records.
pub const FORMAT: u8 = 1;
/// The most bytes of a text in a record.
pub const MAX_TEXT: usize = 32;

/// Reads kind and version; what is left is fields, and the signature at the end.
pub(super) fn open<'a>(bytes: &'a [u8], kind: u8, what: &'static str) -> Result<Reader<'a>> {
    open_as(bytes, kind, FORMAT, what)
}

/// As [`open`], for a record whose format has another version.
pub(super) fn open_as<'a>(
    bytes: &'a [u8],
    kind: u8,
    format: u8,
    what: &'static str,
) -> Result<Reader<'a>> {
    let mut reader = Reader::new(bytes, what);
    if reader.u8()? != kind {
        return Err(reader.malformed());
    }
    if reader.u8()? != format {
        return Err(Error::Version { what });
    }
    Ok(reader)
}

pub(super) fn begin(kind: u8) -> Writer {
    begin_as(kind, FORMAT)
}

/// As [`begin`], for a record whose format has another version.
pub(super) fn begin_as(kind: u8, format: u8) -> Writer {
    let mut writer = Writer::new();
    writer.u8(kind).u8(format);
    writer
}

/// A record inside another one: its length in two bytes, and itself.
pub(super) fn read_nested<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let length = usize::from(reader.u16()?);
    reader.take(length)
}

/// Writes what [`read_nested`] reads. Records inside others are far shorter than 64 KiB.
pub(super) fn write_nested(writer: &mut Writer, record: &[u8]) {
    writer
        .u16(u16::try_from(record.len()).unwrap_or(u16::MAX))
        .bytes(record);
}

/// The signature, and nothing after it.
pub(super) fn close(mut reader: Reader<'_>) -> Result<[u8; SIGNATURE]> {
    let signature = reader.array()?;
    reader.finish()?;
    Ok(signature)
}

pub(super) fn sealed(mut body: Writer, signature: &[u8; SIGNATURE]) -> Vec<u8> {
    body.bytes(signature);
    body.into_bytes()
}

/// A life that is not longer than its kind allows.
pub(super) fn check_span(
    what: &'static str,
    issued: UnixTime,
    expires: UnixTime,
    most: u64,
) -> Result<()> {
    if expires <= issued || expires.since(issued) > most {
        return Err(Error::Malformed { what });
    }
    Ok(())
}

/// Begun, by clocks that agree to [`CLOCK_SKEW`], and not over.
pub(super) fn check_now(
    what: &'static str,
    issued: UnixTime,
    expires: UnixTime,
    now: UnixTime,
) -> Result<()> {
    if issued > now.plus(CLOCK_SKEW) {
        return Err(Error::NotYetValid {
            what,
            from: issued.0,
        });
    }
    if now >= expires {
        return Err(Error::Expired {
            what,
            at: expires.0,
        });
    }
    Ok(())
}
