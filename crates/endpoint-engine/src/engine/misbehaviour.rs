//! What an endpoint does that does not keep to the protocol; for tests of its peers.

use std::time::Instant;

use mixline_protocol::identity::{AnonymousId, ShortId};
use mixline_protocol::path::TailId;
use mixline_protocol::records::TailOffer;

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::TailKey;
use crate::session::PeerTail;
use crate::session::lanes::Route;
use crate::session::paths::Path;
use crate::session::transmit::{Load, Sender};
use crate::tails::{Owner, Tail};

impl Engine {
    /// Sends control frames to all peers as they are: a test plays a malicious peer.
    pub fn inject_controls(&mut self, bodies: &[Vec<u8>], now: Now) {
        for key in self.sessions.keys().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(key) {
                let mut sender = Sender {
                    links: &self.links,
                    outbox: &mut self.outbox,
                    counters: &mut self.counters,
                    now: now.instant,
                };
                for body in bodies {
                    session.pack(Load::Control(body), Route::NextPath, &mut sender);
                }
            }
            self.wake(key);
        }
    }

    /// Answers no probes but these: a test plays a peer to whom other paths do not seem to lead.
    pub fn keep_acks(&mut self, probes: &[u32]) {
        for (_, session) in &mut self.sessions {
            session.acks.retain(|id| probes.contains(id));
        }
    }

    /// The probes of the oldest path to each peer that are not answered yet.
    pub fn probes_of_oldest_paths(&self) -> Vec<u32> {
        let oldest = self
            .sessions
            .iter()
            .map(|(_, session)| session.paths.iter());
        oldest
            .filter_map(|mut paths| paths.next())
            .flat_map(Path::unanswered)
            .collect()
    }

    /// Replaces all tails that peers have as soon as there are others: a test plays a peer that names
    /// ever other tails.
    pub fn renew_private_tails(&mut self) {
        for (_, session) in &self.sessions {
            for key in &session.own_tails {
                self.tails.make_due(*key);
            }
        }
        self.needs_maintenance = true;
    }

    /// Nothing comes any more through the tails that peers have: a test plays relays that have failed on both
    /// sides at once.
    pub fn lose_private_tails(&mut self) {
        for (_, session) in &self.sessions {
            for key in &session.own_tails {
                self.tails.drop_now(*key);
            }
        }
        self.needs_maintenance = true;
    }

    /// The relays next to the guards in the tails that a peer has.
    pub fn next_to_guards_in_tails(&self, peer: &AnonymousId) -> Vec<ShortId> {
        let mut sessions = self.sessions.iter();
        let session = sessions.find(|(_, session)| session.peer == *peer);
        let tails = session.into_iter().flat_map(|(_, it)| &it.own_tails);
        tails
            .filter_map(|key| self.tails.get(*key))
            .filter_map(|tail| tail.relays.iter().rev().nth(1).copied())
            .collect()
    }

    /// The tails that peers have named.
    pub fn tails_of_peers(&self) -> Vec<TailId> {
        self.sessions
            .iter()
            .flat_map(|(_, session)| &session.peer_tails)
            .map(PeerTail::id)
            .collect()
    }

    /// All spare tails have ended.
    pub fn replace_spares(&mut self) {
        let spare = |(key, tail): (TailKey, &Tail)| (tail.owner == Owner::Spare).then_some(key);
        let spares: Vec<TailKey> = self.tails.iter().filter_map(spare).collect();
        for key in spares {
            self.tails.drop_now(key);
        }
        self.needs_maintenance = true;
    }

    /// All sessions that this side began are to have new keys.
    pub fn rekey_soon(&mut self) {
        for (_, session) in &mut self.sessions {
            session.rekey = true;
        }
        self.needs_maintenance = true;
    }

    /// Where initiations to a peer go: how many tails of its descriptor, and how many that only this side has.
    pub fn opening_targets(&self, peer: &AnonymousId, now: Now) -> (usize, usize) {
        let mut sessions = self.sessions.iter();
        let Some((_, session)) = sessions.find(|(_, session)| session.peer == *peer) else {
            return (0, 0);
        };
        let private: Vec<TailId> = session.private_tails(now).map(|it| it.tail.id()).collect();
        let targets = session.opening.iter().flat_map(|it| &it.targets);
        let targets = targets.map(|it| &it.offer);
        let (private, public): (Vec<&TailOffer>, Vec<&TailOffer>) =
            targets.partition(|it| private.contains(&it.tail.id()));
        (public.len(), private.len())
    }

    /// When the keys of the session with a peer were made.
    pub fn keyed(&self, peer: &AnonymousId) -> Option<Instant> {
        let mut sessions = self.sessions.iter();
        let (_, session) = sessions.find(|(_, session)| session.peer == *peer)?;
        Some(session.keyed)
    }

    /// The timestamps of the last initiations as each ID that has made some.
    pub fn last_initiations(&self) -> Vec<(Pseudonym, u64)> {
        let all = [Pseudonym::Own, Pseudonym::Asking, Pseudonym::Publishing];
        let last = |of| (of, self.pseudonyms.get(of).last_initiation());
        all.map(last)
            .into_iter()
            .filter(|(_, at)| *at > 0)
            .collect()
    }
}
