//! What the two ends of a session tell one another besides packets.
//!
//! The body of a control frame: a kind byte, then (big-endian)
//!
//! ```text
//! 1 tails        version 4 | tails (see the module above)
//! 2 tails ack    version 4
//! 3 tail broken  tail ID 8
//! 4 probe        id 4
//! 5 probe ack    id 4
//! 6 close        reason 1
//! ```

use super::offers;
use crate::path::TailId;
use crate::records::TailOffer;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// Why a session was closed.
pub mod close {
    /// Nothing has gone over it for long.
    pub const IDLE: u8 = 0;
    /// The program at the other end stops.
    pub const STOPPING: u8 = 1;
    /// A newer session between the same two takes its place.
    pub const REPLACED: u8 = 2;
    /// The other end does not want to talk.
    pub const REFUSED: u8 = 3;
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Use these tails from now on, in place of all that an earlier version named.
    Tails {
        /// Grows with each new list, so that a late one is known as such.
        version: u32,
        /// One to four.
        tails: Vec<TailOffer>,
    },
    /// The list has come; to be sent again until then.
    TailsAck {
        /// The list's version.
        version: u32,
    },
    /// Nothing comes through this tail of yours any more.
    TailBroken {
        /// Which one.
        tail: TailId,
    },
    /// Answer me, so that I know the path works.
    Probe {
        /// For the answer.
        id: u32,
    },
    /// The answer to a probe.
    ProbeAck {
        /// The probe's.
        id: u32,
    },
    /// I forget this session now.
    Close {
        /// One of [`close`]; others mean no more than that it is closed.
        reason: u8,
    },
}

impl Control {
    /// The body of a control frame; always fits one cell.
    ///
    /// # Errors
    /// [`Error::Limit`] for no tails or more than four.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut to = Writer::new();
        match self {
            Self::Tails { version, tails } => {
                to.u8(1).u32(*version);
                offers::write(tails, &mut to)?;
            }
            Self::TailsAck { version } => {
                to.u8(2).u32(*version);
            }
            Self::TailBroken { tail } => {
                to.u8(3).bytes(&tail.0);
            }
            Self::Probe { id } => {
                to.u8(4).u32(*id);
            }
            Self::ProbeAck { id } => {
                to.u8(5).u32(*id);
            }
            Self::Close { reason } => {
                to.u8(6).u8(*reason);
            }
        }
        Ok(to.into_bytes())
    }

    /// Reads the body of a control frame.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Length`] or [`Error::Limit`].
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut from = Reader::new(body, "session control");
        let control = match from.u8()? {
            1 => Self::Tails {
                version: from.u32()?,
                tails: offers::read(&mut from)?,
            },
            2 => Self::TailsAck {
                version: from.u32()?,
            },
            3 => Self::TailBroken {
                tail: TailId(from.array()?),
            },
            4 => Self::Probe { id: from.u32()? },
            5 => Self::ProbeAck { id: from.u32()? },
            6 => Self::Close { reason: from.u8()? },
            _ => {
                return Err(Error::Malformed {
                    what: "session control",
                });
            }
        };
        from.finish()?;
        Ok(control)
    }
}
