//! Signed records: who there is, what belongs to whom, and until when.
//!
//! Every record is self-contained and expires:
//!
//! ```text
//! record = kind 1 | version of the format 1 (= 1) | fields | Ed25519 signature 64
//! ```
//!
//! The signature is over everything before it, under the domain of the record's kind
//! (see [`crate::identity::verify`]). Integers are big-endian, times are unix seconds
//! (u64), a text is a length byte and that many bytes. Decoding is strict: each record
//! has one encoding, and `encode` of what `decode` gave is the same bytes.
//!
//! | kind | record | signed by |
//! |------|--------|-----------|
//! | 1 | [`RelayDescriptor`] | the relay |
//! | 2 | [`ServiceDescriptor`] | the ID |
//! | 3 | [`NameRecord`] | the ID |
//! | 4 | [`Lease`] | the directory |
//! | 5 | [`LeaseRequest`] | the ID |
//! | 6 | [`Snapshot`] | the directory |
//!
//! `decode` reads the form only; what has come from outside goes through
//! `decode_and_verify`, or `verify` afterwards. `sign` refuses what `decode` would.

mod lease;
mod name;
mod relay;
mod service;
mod snapshot;
mod tail_offer;

pub use lease::{LEASE_GRANT, Lease, LeaseRequest};
pub use name::NameRecord;
pub use relay::{MAX_ADDRESSES, MAX_ONION_KEYS, OnionKeys, RelayDescriptor};
pub use service::{MAX_TAILS, ServiceDescriptor};
pub use snapshot::{MAX_RELAYS, MAX_SNAPSHOT, Parameters, Snapshot};
pub use tail_offer::{TAIL_OFFER, TailOffer};

use crate::identity::SIGNATURE;
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// How far apart two clocks may be, in seconds: a record is taken that was issued this
/// much in the future.
pub const CLOCK_SKEW: u64 = 300;
/// The version of every record's format.
pub const FORMAT: u8 = 1;
/// The most bytes of a text in a record.
pub const MAX_TEXT: usize = 32;

/// Reads kind and version; what is left is fields, and the signature at the end.
fn open<'a>(bytes: &'a [u8], kind: u8, what: &'static str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(bytes, what);
    if reader.u8()? != kind {
        return Err(reader.malformed());
    }
    if reader.u8()? != FORMAT {
        return Err(Error::Version { what });
    }
    Ok(reader)
}

fn front(kind: u8) -> Writer {
    let mut writer = Writer::new();
    writer.u8(kind).u8(FORMAT);
    writer
}

/// The signature, and nothing after it.
fn close(mut reader: Reader<'_>) -> Result<[u8; SIGNATURE]> {
    let signature = reader.array()?;
    reader.finish()?;
    Ok(signature)
}

fn sealed(mut body: Writer, signature: &[u8; SIGNATURE]) -> Vec<u8> {
    body.bytes(signature);
    body.into_bytes()
}

/// A life that is not longer than its kind allows.
fn check_span(what: &'static str, issued: UnixTime, expires: UnixTime, most: u64) -> Result<()> {
    if expires <= issued || expires.since(issued) > most {
        return Err(Error::Malformed { what });
    }
    Ok(())
}

/// Begun, by clocks that agree to [`CLOCK_SKEW`], and not over.
fn check_now(what: &'static str, issued: UnixTime, expires: UnixTime, now: UnixTime) -> Result<()> {
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
