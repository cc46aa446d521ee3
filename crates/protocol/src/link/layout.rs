//! Where the fields of a link's datagrams stand; the module's documentation has them as a table.

use super::mac::MAC;
use crate::effort::{EFFORT, NONCE};
use crate::size::{DATAGRAM, Datagram, LINK_HEADER, TAG};
use crate::{Error, Result};
use mixline_relay_common::wire::{
    COUNTER_OFFSET, INDEX_OFFSET, TYPE_COOKIE, TYPE_DATA, TYPE_INITIATION, TYPE_OFFSET, TYPE_PROBE,
    TYPE_RESPONSE,
};

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub(super) const KEM_KEY: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
pub(super) const KEM_CIPHERTEXT: usize = 1088;
/// Bytes of a timestamp.
pub(super) const TIMESTAMP: usize = 12;
/// Bytes of an index.
pub(super) const INDEX: usize = 4;
/// Bytes of a public key.
const POINT: usize = 32;

/// Where the Noise message of an initiation ends.
pub(super) const INITIATION_END: usize =
    LINK_HEADER + POINT + (POINT + TAG) + (KEM_KEY + TIMESTAMP + TAG);
/// Where an initiation's nonce and effort end, which stand behind the Noise message.
pub(super) const EFFORT_END: usize = INITIATION_END + NONCE + EFFORT;
/// Where the Noise message of a response ends.
pub(super) const RESPONSE_END: usize = LINK_HEADER + POINT + (KEM_CIPHERTEXT + INDEX + TAG);
/// Where mac1 stands; it covers all before.
pub(super) const MAC1: usize = DATAGRAM - 2 * MAC;
/// Where mac2 stands; it covers all before.
pub(super) const MAC2: usize = DATAGRAM - MAC;

const _: () = assert!(INITIATION_END == 1308 && EFFORT_END == 1328);
const _: () = assert!(RESPONSE_END == 1156 && MAC1 == 1376);

/// What a datagram is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramType {
    /// First message of a handshake.
    Initiation,
    /// Second message of a handshake.
    Response,
    /// What a responder under load sends instead of a response.
    Cookie,
    /// Sealed transport data.
    Data,
    /// A question about the path.
    Probe,
}

impl DatagramType {
    const fn byte(self) -> u8 {
        match self {
            Self::Initiation => TYPE_INITIATION,
            Self::Response => TYPE_RESPONSE,
            Self::Cookie => TYPE_COOKIE,
            Self::Data => TYPE_DATA,
            Self::Probe => TYPE_PROBE,
        }
    }
}

/// The type of a UDP payload.
///
/// # Errors
/// [`Error::Length`] if it is not [`DATAGRAM`] bytes; [`Error::Malformed`] if the type is
/// none of ours or one of the three bytes after it is not zero.
pub fn datagram_type(bytes: &[u8]) -> Result<DatagramType> {
    if bytes.len() != DATAGRAM {
        return Err(Error::Length {
            what: "datagram",
            expected: DATAGRAM,
            got: bytes.len(),
        });
    }
    match bytes[TYPE_OFFSET..INDEX_OFFSET] {
        [TYPE_INITIATION, 0, 0, 0] => Ok(DatagramType::Initiation),
        [TYPE_RESPONSE, 0, 0, 0] => Ok(DatagramType::Response),
        [TYPE_COOKIE, 0, 0, 0] => Ok(DatagramType::Cookie),
        [TYPE_DATA, 0, 0, 0] => Ok(DatagramType::Data),
        [TYPE_PROBE, 0, 0, 0] => Ok(DatagramType::Probe),
        _ => Err(Error::Malformed {
            what: "datagram type",
        }),
    }
}

/// The receiver index in the header.
#[must_use]
pub fn receiver_index(datagram: &Datagram) -> u32 {
    u32::from_be_bytes(field(datagram, INDEX_OFFSET))
}

/// The counter in the header.
#[must_use]
pub fn counter(datagram: &Datagram) -> u64 {
    u64::from_be_bytes(field(datagram, COUNTER_OFFSET))
}

/// The `N` bytes at `offset`, which lie within a datagram.
fn field<const N: usize>(datagram: &Datagram, offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&datagram[offset..offset + N]);
    out
}

/// Writes the header, the first 16 bytes.
pub(super) fn write_header(datagram: &mut Datagram, kind: DatagramType, index: u32, counter: u64) {
    datagram[..INDEX_OFFSET].fill(0);
    datagram[TYPE_OFFSET] = kind.byte();
    datagram[INDEX_OFFSET..COUNTER_OFFSET].copy_from_slice(&index.to_be_bytes());
    datagram[COUNTER_OFFSET..LINK_HEADER].copy_from_slice(&counter.to_be_bytes());
}

/// Checks the header of a handshake message: its type, and a counter of zero.
pub(super) fn expect_header(
    datagram: &Datagram,
    kind: DatagramType,
    what: &'static str,
) -> Result<()> {
    if datagram_type(datagram)? == kind && counter(datagram) == 0 {
        Ok(())
    } else {
        Err(Error::Malformed { what })
    }
}

/// Checks that padding is zero.
pub(super) fn expect_zeros(bytes: &[u8], what: &'static str) -> Result<()> {
    if bytes.iter().all(|b| *b == 0) {
        Ok(())
    } else {
        Err(Error::Malformed { what })
    }
}
