//! How snapshots come to be: by this directory alone, or by several.

pub mod alone;
pub mod past;
pub mod several;

use std::sync::Arc;

use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{IdentityKey, X25519Public};
use mixline_protocol::records::{RelayFlags, Roster, ServiceDescriptor, VotedRelay};
use mixline_protocol::round_log::RoundLog;
use mixline_protocol::time::UnixTime;

use self::alone::Alone;
use self::several::Several;
use crate::board::Board;
use crate::registry::LiveRelay;
use crate::{Error, Result};

/// Who makes the snapshots.
#[derive(Clone)]
pub enum Maker {
    /// This directory alone.
    Alone(Arc<Alone>),
    /// The directories of a roster, of which this is one.
    Several(Arc<Several>),
}

impl Maker {
    /// Reads the log of all rounds.
    pub fn with_log<T>(&self, read: impl FnOnce(&RoundLog) -> T) -> T {
        match self {
            Self::Alone(alone) => alone.with_log(read),
            Self::Several(several) => several.with_log(read),
        }
    }

    /// The rosters of the network, one after the other, encoded; `None` if the directory is alone.
    #[must_use]
    pub fn rosters(&self) -> Option<Vec<u8>> {
        match self {
            Self::Alone(_) => None,
            Self::Several(several) => Some(Roster::encode_chain(several.rosters())),
        }
    }

    /// How long snapshots live that a directory makes alone, in seconds. Several have it in their roster.
    pub fn set_validity(&self, seconds: u64) {
        match self {
            Self::Alone(alone) => alone.set_validity(seconds),
            Self::Several(_) => {}
        }
    }
}

/// A descriptor of the directory's own that ends sooner than this is not published, seconds.
const LEAST_SERVICE_LIFE: u64 = 30;

/// The keys by which a directory is reached.
#[derive(Clone)]
pub struct ServiceKeys {
    /// Its ID as an endpoint.
    pub identity: Arc<IdentityKey>,
    /// That of its sessions.
    pub session: X25519Public,
}

impl ServiceKeys {
    /// How the directory is reached at a time: as its endpoint says, or, while it has none that can be, by a descriptor
    /// without tails, which lives for `life` seconds. Relays need its session key in any case.
    ///
    /// # Errors
    /// [`Error::Snapshot`].
    fn descriptor(&self, board: &Board, at: UnixTime, life: u64) -> Result<ServiceDescriptor> {
        let usable = |d: &&Arc<ServiceDescriptor>| {
            d.issued <= at && d.expires > at.plus(LEAST_SERVICE_LIFE) && !d.tails.is_empty()
        };
        if let Some(descriptor) = board.service().as_ref().filter(usable) {
            return Ok((**descriptor).clone());
        }
        let descriptor = ServiceDescriptor {
            id: self.identity.anonymous_id(),
            version: at.0.saturating_mul(1000),
            issued: at,
            expires: at.plus(life),
            session: self.session,
            effort: EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; 64],
        };
        descriptor.sign(&self.identity).map_err(Error::Snapshot)
    }
}

/// What a directory votes of the relays that are there, by ID.
fn voted(live: &[LiveRelay]) -> Vec<VotedRelay> {
    let mut relays: Vec<VotedRelay> = live
        .iter()
        .map(|relay| VotedRelay {
            id: relay.descriptor().id,
            record: relay.digest,
            flags: RelayFlags { ring: true },
            capacity: relay.descriptor().capacity,
        })
        .collect();
    relays.sort_by_key(|relay| relay.id);
    relays
}
