//! What a client knows of a network, and keeps from one run to the next.

use std::sync::Arc;

use mixline_protocol::identity::{AnonymousId, NetworkId};
use mixline_protocol::records::{CLOCK_SKEW, Roster, Snapshot};
use mixline_protocol::time::UnixTime;
use mixline_protocol::wire::{Reader, Writer};
use mixline_protocol::{Error, Result};

const WHAT: &str = "what is known of a network";
const VERSION: u8 = 1;

/// The newest roster and the last round that a client has seen of a network: it goes back behind
/// neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    network: NetworkId,
    roster: Option<Arc<Roster>>,
    round: UnixTime,
}

impl Known {
    /// The most bytes of the form on disk.
    pub const MAX_ENCODED: usize = 1 + 32 + 8 + Roster::MAX_ENCODED;

    /// Of a network of which nothing is known but its name.
    #[must_use]
    pub fn nothing(network: NetworkId) -> Self {
        Self {
            network,
            roster: None,
            round: UnixTime(0),
        }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The newest roster; that of a directory that is alone is none to keep.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        self.roster.as_ref()
    }

    /// The last round: when the newest snapshot was made. `None` before the first.
    #[must_use]
    pub fn round(&self) -> Option<UnixTime> {
        Some(self.round).filter(|round| round.0 > 0)
    }

    /// The form on disk: `version 1 | network 32 | round 8 | roster`; the roster takes the rest, if
    /// there is one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .u8(VERSION)
            .bytes(&self.network.0)
            .u64(self.round.0)
            .bytes(&self.encoded_roster());
        writer.into_bytes()
    }

    fn encoded_roster(&self) -> Vec<u8> {
        let roster = self.roster.as_deref();
        // The first version has zeros in place of the network.
        roster.map(Roster::encode).unwrap_or_default()
    }

    /// Reads the form on disk. What is of another network is as nothing.
    ///
    /// # Errors
    /// [`Error::Version`], [`Error::Length`], [`Error::Malformed`], [`Error::Limit`].
    pub fn decode(bytes: &[u8], network: NetworkId) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        if reader.u8()? != VERSION {
            return Err(Error::Version { what: WHAT });
        }
        let of = NetworkId(reader.array()?);
        let round = UnixTime(reader.u64()?);
        let left = reader.left();
        let roster = match reader.take(left)? {
            [] => None,
            bytes => Some(Arc::new(Roster::decode(bytes)?)),
        };
        if roster.as_ref().is_some_and(|roster| roster.network() != of) {
            return Err(Error::Malformed { what: WHAT });
        }
        if of != network {
            return Ok(Self::nothing(network));
        }
        Ok(Self {
            network,
            roster,
            round,
        })
    }

    /// What snapshots that say this version of the roster are verified with, if it is there.
    pub(crate) fn roster_of(&self, version: u32) -> Option<Arc<Roster>> {
        match &self.roster {
            Some(roster) => Some(Arc::clone(roster)).filter(|roster| roster.version == version),
            // No key hashes to the ID of a network that has rosters, so this verifies nothing there.
            None if version == 0 => Some(Arc::new(Roster::alone(AnonymousId(self.network.0)))),
            None => None,
        }
    }

    /// Takes over the end of a chain of rosters, if it goes on where the known one is.
    ///
    /// # Errors
    /// [`Error::Authentication`] if it does not verify, or is another one.
    pub(crate) fn take_chain(&mut self, bytes: &[u8]) -> Result<()> {
        let chain = Roster::decode_chain(bytes, self.network)?;
        let elsewhere = Error::Authentication { what: "roster" };
        if let Some(held) = self.roster.as_deref() {
            // Those who have signed may be more by now; what they signed is the same.
            let same = chain.iter().find(|roster| roster.version == held.version);
            held.clone().merge(same.ok_or(elsewhere)?)?;
        }
        if let Some(last) = chain.into_iter().last() {
            self.roster = Some(Arc::new(last));
        }
        Ok(())
    }

    /// By how many seconds a round is earlier than the last one, if it is.
    pub(crate) fn behind(&self, round: UnixTime, now: UnixTime) -> Option<u64> {
        // The clock of one directory may have been ahead, and this one's with it: that is no measure. Of
        // several it takes a quorum to be ahead.
        let counts = self.roster.is_some() || self.round.since(now) <= CLOCK_SKEW;
        (counts && round < self.round).then(|| self.round.since(round))
    }

    /// A snapshot has been verified.
    pub(crate) fn saw(&mut self, snapshot: &Snapshot) {
        self.round = snapshot.issued;
    }
}
