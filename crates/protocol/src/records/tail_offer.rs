//! A published tail and how long it lives.

use crate::Result;
use crate::path::{PUBLISHED_TAIL, PublishedTail};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};

/// Bytes of an encoded tail offer: the tail, and its end as u32 unix seconds.
pub const TAIL_OFFER: usize = PUBLISHED_TAIL + 4;

/// A tail that its receiver offers until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TailOffer {
    /// The tail.
    pub tail: PublishedTail,
    /// When it ends. 32 bits on the wire: at most the year 2106.
    pub expires: UnixTime,
}

impl TailOffer {
    /// Whether it can still be used.
    #[must_use]
    pub fn alive(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// Appends `tail 172 | expires 4`.
    pub fn write(&self, writer: &mut Writer) {
        writer
            .bytes(&self.tail.encode())
            .u32(u32::try_from(self.expires.0).unwrap_or(u32::MAX));
    }

    /// Reads what [`TailOffer::write`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::Length`], or what [`PublishedTail::decode`] says.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let tail = PublishedTail::decode(&reader.array()?)?;
        Ok(Self {
            tail,
            expires: UnixTime(u64::from(reader.u32()?)),
        })
    }
}
