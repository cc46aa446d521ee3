//! Relays that are remembered: by their IDs, which are stored as hexadecimal text.

use mixline_protocol::identity::{RelayId, ShortId};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A relay's ID, and the short one, which is a hash of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Its identity.
    pub id: RelayId,
    /// Its short ID.
    pub short: ShortId,
}

impl From<RelayId> for Remembered {
    fn from(id: RelayId) -> Self {
        let short = id.short();
        Self { id, short }
    }
}

pub fn serialize<S: Serializer>(relay: &Remembered, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&relay.id)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Remembered, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut id = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(D::Error::custom("a relay ID has 64 hexadecimal digits"));
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(D::Error::custom)?;
        *byte = u8::from_str_radix(pair, 16).map_err(D::Error::custom)?;
    }
    Ok(RelayId(id).into())
}
