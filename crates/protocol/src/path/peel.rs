//! What a relay does.
use super::{MailboxToken, OnionSecret, ReplayTag};
use crate::Result;
use crate::identity::ShortId;
use crate::size::{Cell, Header};

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

/// What a relay keeps of a path.
pub struct KnownPath;

impl KnownPath {
    /// Where its cells go.
    #[must_use]
    pub fn next(&self) -> Next {
        todo!()
    }
    /// Decrypts the payload in place and writes the next header (zeros for `Deliver`).
    pub fn peel(&self, _cell: &mut Cell) -> ReplayTag {
        todo!()
    }
}

/// Opens a header: two X25519 operations, so the slow path.
///
/// # Errors
/// Later.
pub fn open_header(_onion: &OnionSecret, _header: &Header) -> Result<KnownPath> {
    todo!()
}
