//! What a flood is made of.

use std::time::SystemTime;

use anyhow::{Context, Result};
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::{Initiator, Timestamp};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::DATAGRAM;
use rand_core::Rng as _;

use super::abi::Frame;
use super::addresses::NEIGHBOURS;
use super::feed::Feed;
use super::frame::{frame_of, spoofed};

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Random bytes.
    Random,
    /// Random bytes behind the link header of a live session, which anyone who sees the wire knows.
    Guessed,
    /// Datagrams that have come before, and were good then.
    Replay,
    /// Handshake initiations that are well formed, from addresses that are not the sender's.
    Handshake,
}

impl Garbage {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Random, Self::Guessed, Self::Replay, Self::Handshake];

    /// A frame of this kind. Those that are replayed are not sent yet.
    ///
    /// # Errors
    /// None that happen.
    pub fn frame(self, feed: &mut Feed, neighbour: usize) -> Result<Frame> {
        let rng = &mut OsRandom::new();
        let mut datagram = [0; DATAGRAM];
        rng.fill_bytes(&mut datagram);
        let ends = feed.node().ends;
        let from = feed.neighbour(neighbour % NEIGHBOURS);
        let neighbours = feed.neighbours().context("an echo has no neighbours")?;
        match self {
            Self::Random => {}
            Self::Guessed => {
                let mut known = [0; DATAGRAM];
                neighbours.fill(&mut known, neighbour % NEIGHBOURS, 0)?;
                datagram[..16].copy_from_slice(&known[..16]);
            }
            Self::Replay => neighbours.fill(&mut datagram, neighbour % NEIGHBOURS, 0)?,
            Self::Handshake => {
                let relay = neighbours.relay().context("no relay")?.link;
                let secret = X25519Secret::generate(rng);
                let at = Timestamp::from(SystemTime::now());
                let (_, initiation) =
                    Initiator::start(&secret, &relay, rng.next_u32(), at, None, rng)?;
                return Ok(spoofed(&ends, &initiation));
            }
        }
        Ok(frame_of(&ends, from, &datagram))
    }
}
