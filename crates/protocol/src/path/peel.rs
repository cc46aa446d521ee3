//! What a relay does with a cell.

use subtle::ConstantTimeEq;

use super::curve::Point;
use super::keys::{HopKeys, apply_stream};
use super::layout::{
    ALPHA, BETA, DELIVER, FORWARD, GAMMA, JUNCTION, JUNCTION_REST, MailboxToken, ReplayTag, SEED,
    SLOT, TAIL_BETA,
};
use super::onion::OnionSecret;
use super::tail::extend;
use crate::identity::{ShortId, first_bytes};
use crate::size::{Cell, CellParts, Header, PATH_HEADER, parts};
use crate::{Error, Result};
use mixline_wide_crypto::hctr2::{Compact, Hctr2};

/// Where a cell goes after a relay has peeled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// To the next relay of this head or tail.
    Forward(ShortId),
    /// From the head's last relay to the tail's first.
    Junction(ShortId),
    /// To the client that registered the token.
    Deliver(MailboxToken),
}

/// What opening a header yields, and all that its cells need from then on: the payload key,
/// where they go, and the header they go with. Erased on drop.
pub struct KnownPath {
    next: Next,
    tweak: [u8; GAMMA],
    /// All zeros for [`Next::Deliver`].
    next_header: Header,
    payload: Compact,
}

impl KnownPath {
    /// Where the path's cells go.
    #[must_use]
    pub fn next(&self) -> Next {
        self.next
    }

    /// The header that the path's cells leave with, all zeros for [`Next::Deliver`].
    #[must_use]
    pub fn next_header(&self) -> &Header {
        &self.next_header
    }

    /// A path that goes where this one does, with a payload key and a tweak of its own, for measurements
    /// that need a million: opening their headers would take minutes.
    #[doc(hidden)]
    #[must_use]
    pub fn beside(&self, payload: &[u8; 32]) -> Self {
        Self {
            tweak: first_bytes(payload),
            payload: Compact::new(payload),
            next: self.next,
            next_header: self.next_header,
        }
    }

    #[cfg(test)]
    pub(super) fn of_byte(byte: u8) -> Self {
        Self {
            next: Next::Deliver(MailboxToken([byte; 8])),
            tweak: [byte; GAMMA],
            next_header: [0; PATH_HEADER],
            payload: Compact::new(&[byte; 32]),
        }
    }

    /// Decrypts the payload in place and writes the next header over the old one.
    ///
    /// The cell's header must be the one that this path was opened from: a caller that
    /// looks paths up compares all of it.
    pub fn peel(&self, cell: &mut Cell) -> ReplayTag {
        let CellParts { header, payload } = parts(cell);
        self.payload.decrypt(&self.tweak, payload);
        *header = self.next_header;
        ReplayTag(first_bytes(payload))
    }

    /// [`Self::peel`] with the payload key ready, as [`Self::expand_into`] wrote it.
    pub(super) fn peel_with(&self, ready: &Hctr2, cell: &mut Cell) -> ReplayTag {
        let CellParts { header, payload } = parts(cell);
        ready.decrypt(&self.tweak, payload);
        *header = self.next_header;
        ReplayTag(first_bytes(payload))
    }

    /// Writes the payload key with all that follows from it, where that is more.
    pub(super) fn expand_into(&self, to: &mut Option<Hctr2>) {
        self.payload.expand_into(to);
    }
}

/// Opens a header under an onion key: up to two X25519 operations, so not for every cell.
///
/// # Errors
/// [`Error::LowOrder`] for a bad alpha, [`Error::Authentication`] for a header that was made
/// for another relay or epoch or was changed, [`Error::UnknownCommand`] for a command that
/// the builder invented.
pub fn open_header(onion: &OnionSecret, header: &Header) -> Result<KnownPath> {
    let alpha: [u8; ALPHA] = first_bytes(header);
    let tweak: [u8; GAMMA] = first_bytes(&header[ALPHA..]);
    let beta: [u8; BETA] = first_bytes(&header[ALPHA + GAMMA..]);
    let point = Point::new(&alpha);
    let shared = point.exchange(&onion.secret)?;
    let keys = HopKeys::derive(&shared, &alpha, &onion.public())?;
    if !bool::from(keys.gamma(&beta).ct_eq(&tweak)) {
        return Err(Error::Authentication {
            what: "path header",
        });
    }
    let mut plain = [0; BETA + SLOT];
    plain[..BETA].copy_from_slice(&beta);
    apply_stream(&keys.stream, &mut plain);
    let argument: [u8; 8] = first_bytes(&plain[1..]);
    let (next_gamma, rest) = plain[9..].split_at(GAMMA);
    let mut next_header = [0; PATH_HEADER];
    let mut write = |alpha: &[u8], beta: &[u8], behind: &[u8]| {
        next_header[..ALPHA].copy_from_slice(alpha);
        next_header[ALPHA..ALPHA + GAMMA].copy_from_slice(next_gamma);
        next_header[ALPHA + GAMMA..][..beta.len()].copy_from_slice(beta);
        next_header[ALPHA + GAMMA + beta.len()..].copy_from_slice(behind);
    };
    let next = match plain[0] {
        FORWARD => {
            write(&*point.exchange(&keys.blind)?, rest, &[]);
            Next::Forward(ShortId(argument))
        }
        JUNCTION => {
            let (tail_alpha, rest) = rest.split_at(ALPHA);
            let (seed, rest) = rest.split_at(SEED);
            write(tail_alpha, &rest[..TAIL_BETA], &extend(&first_bytes(seed)));
            Next::Junction(ShortId(argument))
        }
        DELIVER => Next::Deliver(MailboxToken(argument)),
        unknown => return Err(Error::UnknownCommand(unknown)),
    };
    Ok(KnownPath {
        payload: Compact::new(&keys.payload),
        tweak,
        next,
        next_header,
    })
}

const _: () = assert!(SLOT + JUNCTION_REST <= BETA + SLOT);
