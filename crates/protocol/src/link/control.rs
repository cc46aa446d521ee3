//! What neighbours tell one another inside a datagram of kind control.
//!
//! A message fills the 1368 bytes of the cell; what it does not use is zero.
//!
//! ```text
//! 1 register    request 4 | count 1 | (token 8 | lifetime in seconds 4) * count
//! 2 registered  request 4 | count 1 | refused token 8 * count
//! 3 ping        number 8
//! 4 pong        number 8
//! 5 close
//! ```
//!
//! A relay delivers cells for a token to the link that registered it last, and only if
//! that link holds it already or no link does. A lifetime of zero unregisters. `registered`
//! names the tokens of the request that are *not* registered: somebody else's, or beyond
//! [`MAX_TOKENS_PER_LINK`].

use crate::path::MailboxToken;
use crate::size::{CELL, Cell};
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most tokens in one message.
pub const MAX_TOKENS: usize = 100;

/// One link has at most this many tokens registered at a time.
pub const MAX_TOKENS_PER_LINK: usize = 4096;

/// Bytes of the longest message: the kind, the request, the count and the tokens.
const LONGEST: usize = 1 + 4 + 1 + MAX_TOKENS * 12;

const _: () = assert!(LONGEST <= CELL && MAX_TOKENS <= u8::MAX as usize);

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Deliver cells for these tokens to this link.
    Register {
        /// Chosen by the sender, repeated in the answer.
        request: u32,
        /// Token and lifetime in seconds, at most [`MAX_TOKENS`].
        tokens: Vec<(MailboxToken, u32)>,
    },
    /// The answer to [`Control::Register`].
    Registered {
        /// The request's.
        request: u32,
        /// Those that are not registered, at most [`MAX_TOKENS`].
        refused: Vec<MailboxToken>,
    },
    /// Asks for a pong with the same number.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The sender forgets the session now.
    Close,
}

impl Control {
    /// Writes the message over the whole cell.
    ///
    /// # Errors
    /// [`Error::Limit`] if there are more than [`MAX_TOKENS`]; the cell is as it was.
    pub fn encode_into(&self, cell: &mut Cell) -> Result<()> {
        let mut out = Writer::new();
        match self {
            Self::Register { request, tokens } => {
                out.u8(1).u32(*request).u8(count(tokens.len())?);
                for (token, lifetime) in tokens {
                    out.bytes(&token.0).u32(*lifetime);
                }
            }
            Self::Registered { request, refused } => {
                out.u8(2).u32(*request).u8(count(refused.len())?);
                for token in refused {
                    out.bytes(&token.0);
                }
            }
            Self::Ping(number) => {
                out.u8(3).u64(*number);
            }
            Self::Pong(number) => {
                out.u8(4).u64(*number);
            }
            Self::Close => {
                out.u8(5);
            }
        }
        let (message, rest) = cell.split_at_mut(out.written().len());
        message.copy_from_slice(out.written());
        rest.fill(0);
        Ok(())
    }

    /// Reads the message in a cell.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the kind is unknown or what is left is not zero,
    /// [`Error::Limit`] if there are more than [`MAX_TOKENS`].
    pub fn decode(cell: &Cell) -> Result<Self> {
        let mut reader = Reader::new(cell, "link control");
        let message = match reader.u8()? {
            1 => {
                let (request, n) = (reader.u32()?, bounded(reader.u8()?)?);
                let mut token = || Ok((MailboxToken(reader.array()?), reader.u32()?));
                let tokens = (0..n).map(|_| token()).collect::<Result<_>>()?;
                Self::Register { request, tokens }
            }
            2 => {
                let (request, n) = (reader.u32()?, bounded(reader.u8()?)?);
                let mut token = || reader.array().map(MailboxToken);
                let refused = (0..n).map(|_| token()).collect::<Result<_>>()?;
                Self::Registered { request, refused }
            }
            3 => Self::Ping(reader.u64()?),
            4 => Self::Pong(reader.u64()?),
            5 => Self::Close,
            _ => return Err(reader.malformed()),
        };
        reader.zeros()?;
        Ok(message)
    }
}

const TOO_MANY: Error = Error::Limit {
    what: "tokens in a link control message",
};

fn count(n: usize) -> Result<u8> {
    u8::try_from(n)
        .ok()
        .filter(|_| n <= MAX_TOKENS)
        .ok_or(TOO_MANY)
}

fn bounded(n: u8) -> Result<u8> {
    if usize::from(n) <= MAX_TOKENS {
        Ok(n)
    } else {
        Err(TOO_MANY)
    }
}
