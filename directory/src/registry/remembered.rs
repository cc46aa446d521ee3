//! The relays that are stored, silent ones included, and what they share.
//!
//! A descriptor is kept until it ends, so that no older version takes its place. Identities cost nothing:
//! who makes new ones all day gets a share by network, as of the places of the snapshot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::RelayId;
use mixline_protocol::shares::Shares;
use mixline_protocol::time::UnixTime;

use super::live::Place;
use super::refusal::{Decision, Refusal};

/// Where each relay that is stored came from, when its descriptor ends, and what it has said last.
#[derive(Debug)]
pub(super) struct Remembered {
    relays: HashMap<RelayId, (Place, UnixTime, u64)>,
    shares: Shares,
}

impl Remembered {
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            relays: HashMap::new(),
            shares: Shares::new(limit, 0),
        }
    }

    /// Takes a place for a relay that is not stored yet.
    ///
    /// # Errors
    /// [`RefusalCode::Full`] if there is none, or the relay's neighbourhood has its share.
    pub(super) fn take(&mut self, place: Place) -> Decision<()> {
        if self.shares.take(place.claimant()) {
            return Ok(());
        }
        let text = format!(
            "the networks around {} have had their share of new relays, many of them silent; again \
             later",
            place.site()
        );
        Err(Refusal::new(RefusalCode::Full, text))
    }

    /// Gives back a place that [`Remembered::take`] gave.
    pub(super) fn give_back(&mut self, place: Place) {
        self.shares.give_back(place.claimant());
    }

    /// A relay has been stored, for which a place has been taken or which was stored before. It counts where
    /// it first came from.
    pub(super) fn put(&mut self, id: RelayId, place: Place, expires: UnixTime, taken: bool) {
        match self.relays.entry(id) {
            Entry::Occupied(mut there) => {
                let (_, until, _) = there.get_mut();
                *until = expires.max(*until);
                if taken {
                    self.shares.give_back(place.claimant());
                }
            }
            Entry::Vacant(new) => {
                if taken || self.shares.restore(place.claimant()) {
                    new.insert((place, expires, 0));
                }
            }
        }
    }

    /// The version of the last heartbeat of a relay, since the directory was started.
    pub(super) fn beat(&self, id: &RelayId) -> u64 {
        self.relays.get(id).map_or(0, |(_, _, beat)| *beat)
    }

    /// A relay has said that it is there, in this version.
    pub(super) fn heard(&mut self, id: &RelayId, beat: u64) {
        if let Some((_, _, last)) = self.relays.get_mut(id) {
            *last = beat.max(*last);
        }
    }

    /// Forgets those whose descriptors have ended.
    pub(super) fn forget_ended(&mut self, now: UnixTime) {
        let ended = self.relays.extract_if(|_, (_, expires, _)| *expires <= now);
        for (_, (place, _, _)) in ended {
            self.shares.give_back(place.claimant());
        }
    }
}
