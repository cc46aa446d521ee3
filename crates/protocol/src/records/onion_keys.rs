//! Onion keys of consecutive epochs, as records have them.

use arrayvec::ArrayVec;

use crate::identity::X25519Public;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most onion keys of a relay: the current epoch's and the next three. A snapshot is of use for as long as
/// there are keys in it.
pub const MAX_ONION_KEYS: usize = 4;

/// Onion keys by epoch: one or more, of consecutive epochs.
pub type OnionKeys = ArrayVec<(u32, X25519Public), MAX_ONION_KEYS>;

/// One to [`MAX_ONION_KEYS`], each of the epoch after the one before.
pub(super) fn check(keys: &OnionKeys, what: &'static str) -> Result<()> {
    let consecutive =
        |pair: &[(u32, X25519Public)]| matches!(pair, [a, b] if a.0.checked_add(1) == Some(b.0));
    if keys.is_empty() || !keys.windows(2).all(consecutive) {
        return Err(Error::Malformed { what });
    }
    Ok(())
}

/// `key 32 * count`, the first one of epoch `first`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    first: u32,
    count: u8,
    what: &'static str,
) -> Result<OnionKeys> {
    let mut keys = OnionKeys::new();
    for at in 0..u32::from(count) {
        let epoch = first.checked_add(at).ok_or(Error::Malformed { what })?;
        let key = (epoch, X25519Public(reader.array()?));
        keys.try_push(key).map_err(|_| Error::Limit { what })?;
    }
    check(&keys, what)?;
    Ok(keys)
}

/// What [`read`] reads.
pub(super) fn write(writer: &mut Writer, keys: &OnionKeys) {
    for (_, key) in keys {
        writer.bytes(&key.0);
    }
}
