//! Control messages.
use crate::Result;
use crate::path::MailboxToken;
use crate::size::Cell;

/// Most tokens in one message.
pub const MAX_TOKENS: usize = 100;
/// Most tokens that one link may hold registered.
pub const MAX_TOKENS_PER_LINK: usize = 4096;

/// What neighbours tell one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Deliver cells for these tokens to this link, for so many seconds (0: no longer).
    Register {
        /// Repeated in the answer.
        request: u32,
        /// Token, life in seconds.
        tokens: Vec<(MailboxToken, u32)>,
    },
    /// Answer to `Register`.
    Registered {
        /// From the request.
        request: u32,
        /// Those not registered.
        refused: Vec<MailboxToken>,
    },
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// This session ends now.
    Close,
}

impl Control {
    /// Writes the message over the whole cell.
    ///
    /// # Errors
    /// `Limit` if there are too many tokens.
    pub fn encode_into(&self, _cell: &mut Cell) -> Result<()> {
        todo!()
    }
    /// Reads a message.
    ///
    /// # Errors
    /// `Malformed`, `Limit`.
    pub fn decode(_cell: &Cell) -> Result<Self> {
        todo!()
    }
}
