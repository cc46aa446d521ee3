//! A relay as a snapshot lists it.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::{read_nested, write_nested};
use super::onion_keys::{self, OnionKeys};
use super::relay::RelayDescriptor;
use crate::Result;
use crate::identity::{ShortId, X25519Public};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};

/// What the directories say of a relay, beside its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayFlags {
    /// It keeps service descriptors: it has been there for long.
    pub ring: bool,
}

impl RelayFlags {
    /// The byte of these flags.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.ring)
    }

    /// The flags of a byte; `None` if it has others.
    #[must_use]
    pub fn of_bits(bits: u8) -> Option<Self> {
        (bits <= 1).then_some(Self { ring: bits == 1 })
    }
}

/// A relay, its onion keys, and what the directories say of it.
///
/// ```text
/// flags 1 | capacity 4 | since 4 | which keys 1 | key 32 * count | length 2 | relay descriptor
///
/// which keys = (epochs from the snapshot's first to the first key's) * 16 + count
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRelay {
    /// What the relay says.
    pub descriptor: RelayDescriptor,
    /// Its onion keys, from the snapshot's epoch on.
    pub onion: OnionKeys,
    /// Datagrams a second that it is believed to be able to relay: what was measured, and at most what it says.
    pub capacity: u32,
    /// Since when snapshots list it, without a break.
    pub since: UnixTime,
    /// What else the directories say.
    pub flags: RelayFlags,
}

impl ListedRelay {
    /// The most bytes of an encoded entry.
    pub const MAX_ENCODED: usize =
        1 + 4 + 4 + 1 + onion_keys::MAX_ONION_KEYS * 32 + 2 + RelayDescriptor::MAX_ENCODED;

    /// The relay's short ID.
    #[must_use]
    pub fn short_id(&self) -> ShortId {
        self.descriptor.short_id()
    }

    /// The onion key of an epoch, if there is one.
    #[must_use]
    pub fn onion_for(&self, epoch: u32) -> Option<&X25519Public> {
        let mut keys = self.onion.iter();
        keys.find(|(of, _)| *of == epoch).map(|(_, key)| key)
    }

    pub(super) fn write(&self, writer: &mut Writer, first_epoch: u32) {
        let first = self.onion.first().map_or(first_epoch, |(epoch, _)| *epoch);
        let skipped = first.saturating_sub(first_epoch).min(15) as u8;
        writer
            .u8(self.flags.bits())
            .u32(self.capacity)
            .u32(u32::try_from(self.since.0).unwrap_or(u32::MAX))
            .u8(skipped << 4 | self.onion.len() as u8);
        onion_keys::write(writer, &self.onion);
        write_nested(writer, &self.descriptor.encode());
    }

    pub(super) fn read(
        reader: &mut Reader<'_>,
        first_epoch: u32,
        what: &'static str,
    ) -> Result<Self> {
        let flags = RelayFlags::of_bits(reader.u8()?).ok_or_else(|| reader.malformed())?;
        let capacity = reader.u32()?;
        let since = UnixTime(reader.u32()?.into());
        let which = reader.u8()?;
        let first = first_epoch.checked_add(u32::from(which >> 4));
        let first = first.ok_or_else(|| reader.malformed())?;
        let onion = onion_keys::read(reader, first, which & 15, what)?;
        let descriptor = RelayDescriptor::decode(read_nested(reader)?)?;
        Ok(Self {
            descriptor,
            onion,
            capacity,
            since,
            flags,
        })
    }

    /// Whether it can be written in a snapshot whose first epoch this is.
    pub(super) fn fits(&self, first_epoch: u32) -> bool {
        let first = self.onion.first().map(|(epoch, _)| *epoch);
        onion_keys::check(&self.onion, "").is_ok()
            && u32::try_from(self.since.0).is_ok()
            && first.is_some_and(|first| {
                (first_epoch..=first_epoch.saturating_add(15)).contains(&first)
            })
    }
}

/// Those whose link key is no other's of them. A relay is authenticated by that key alone: of two with one key
/// nobody can tell whose it is, so neither counts. Honest directories list no two.
pub fn with_keys_of_their_own<R: AsRef<RelayDescriptor>>(
    relays: &[R],
) -> impl Iterator<Item = &R> + Clone {
    let mut times: HashMap<X25519Public, usize> = HashMap::new();
    for relay in relays {
        *times.entry(relay.as_ref().link).or_default() += 1;
    }
    let times = Arc::new(times);
    relays
        .iter()
        .filter(move |relay| times.get(&relay.as_ref().link) == Some(&1))
}

impl AsRef<RelayDescriptor> for ListedRelay {
    fn as_ref(&self) -> &RelayDescriptor {
        &self.descriptor
    }
}

impl AsRef<Self> for RelayDescriptor {
    fn as_ref(&self) -> &Self {
        self
    }
}
