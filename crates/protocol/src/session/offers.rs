//! Lists of private tails, as handshake and control carry them.

use crate::records::TailOffer;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most tails that one end offers the other at a time.
pub const MAX_OFFERS: usize = 4;

const COUNT: Error = Error::Limit {
    what: "tails offered",
};

/// Appends `count 1 | (tail 172 | expiry, unix seconds 4) * count`.
///
/// # Errors
/// [`Error::Limit`] if there is none or more than [`MAX_OFFERS`].
pub(super) fn write(offers: &[TailOffer], to: &mut Writer) -> Result<()> {
    let count = u8::try_from(offers.len()).map_err(|_| COUNT)?;
    check(count)?;
    to.u8(count);
    for offer in offers {
        offer.write(to);
    }
    Ok(())
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// [`Error::Length`] or [`Error::Limit`].
pub(super) fn read(from: &mut Reader<'_>) -> Result<Vec<TailOffer>> {
    let count = from.u8()?;
    check(count)?;
    (0..count).map(|_| TailOffer::read(from)).collect()
}

fn check(count: u8) -> Result<()> {
    if (1..=MAX_OFFERS).contains(&usize::from(count)) {
        Ok(())
    } else {
        Err(COUNT)
    }
}
