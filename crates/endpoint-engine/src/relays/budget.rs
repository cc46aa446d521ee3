//! How many relays peers can make this endpoint draw.
//!
//! Paths fail, and are replaced by others over other relays. A peer can bring that about: it answers
//! some probes only, names other tails, ends the session and comes again. So relays that were not used
//! before are drawn from a budget, for each peer and in all. Past it the endpoint goes on as fast as
//! before, with the relays that it has used already: what has really failed is found by trying them again,
//! and what lies sees nobody new.

use std::collections::HashMap;
use std::time::Instant;

use mixline_protocol::identity::{AnonymousId, ShortId};

use crate::directory::pseudonyms::Pseudonym;
use crate::limits::{
    BROKEN_BURST, BROKEN_PER_HOUR, MAX_BUDGETS, NEW_HEADS_BURST, NEW_HEADS_PER_HOUR,
    NEW_RELAYS_BURST, NEW_RELAYS_PER_HOUR, TROUBLE_BURST, TROUBLE_PER_HOUR,
};
use crate::token_bucket::TokenBucket;

/// Relays that a peer's heads have used, as far as they are remembered; the one that was not used for
/// longest goes first.
const MAX_KNOWN: usize = 64;
/// The same of all heads and tails.
const MAX_KNOWN_IN_ALL: usize = 512;

/// A peer, and as whom it is spoken to.
pub type Partner = (Pseudonym, AnonymousId);

/// Relays that were used, and a bucket for others.
struct Acquaintance {
    /// By which use they were used last.
    known: HashMap<ShortId, u64>,
    uses: u64,
    most: usize,
    bucket: TokenBucket,
}

impl Acquaintance {
    fn knows(&self, relay: &ShortId) -> bool {
        self.known.contains_key(relay)
    }

    fn has_tokens(&self, now: Instant) -> bool {
        self.bucket.clone().take(now)
    }

    /// These are used now; one token if any is new.
    fn use_relays(&mut self, relays: &[ShortId], now: Instant) {
        if !relays.iter().all(|relay| self.knows(relay)) {
            self.bucket.take(now);
        }
        for relay in relays {
            self.uses += 1;
            self.known.insert(*relay, self.uses);
        }
        while self.known.len() > self.most
            && let Some((oldest, _)) = self.known.iter().min_by_key(|(_, used)| **used)
        {
            let oldest = *oldest;
            self.known.remove(&oldest);
        }
    }
}

/// What one peer can bring about.
pub struct PeerBudget {
    heads: Acquaintance,
    /// Own tails that are replaced because the peer says so.
    pub broken: TokenBucket,
    /// Own tails that are replaced because nothing comes, which may be the peer's doing.
    pub trouble: TokenBucket,
    used: Instant,
}

impl PeerBudget {
    fn new(now: Instant) -> Self {
        Self {
            heads: Acquaintance {
                known: HashMap::new(),
                uses: 0,
                most: MAX_KNOWN,
                bucket: TokenBucket::per_hour(NEW_HEADS_PER_HOUR, NEW_HEADS_BURST, now),
            },
            broken: TokenBucket::per_hour(BROKEN_PER_HOUR, BROKEN_BURST, now),
            trouble: TokenBucket::per_hour(TROUBLE_PER_HOUR, TROUBLE_BURST, now),
            used: now,
        }
    }
}

/// What all of them can.
pub struct Budgets {
    all: Acquaintance,
    /// They outlive sessions: a peer that ends one and comes again has the same.
    peers: HashMap<Partner, PeerBudget>,
}

impl Budgets {
    /// Full ones.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            all: Acquaintance {
                known: HashMap::new(),
                uses: 0,
                most: MAX_KNOWN_IN_ALL,
                bucket: TokenBucket::per_hour(NEW_RELAYS_PER_HOUR, NEW_RELAYS_BURST, now),
            },
            peers: HashMap::new(),
        }
    }

    /// The budget of a peer. Where there are too many, the one that was not used for longest begins anew.
    pub fn peer(&mut self, peer: Partner, now: Instant) -> &mut PeerBudget {
        if self.peers.len() >= MAX_BUDGETS && !self.peers.contains_key(&peer) {
            let oldest = self.peers.iter().min_by_key(|(_, budget)| budget.used);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.peers.remove(&oldest);
            }
        }
        let budget = self
            .peers
            .entry(peer)
            .or_insert_with(|| PeerBudget::new(now));
        budget.used = now;
        budget
    }

    /// How many heads and tails may take relays that none has used.
    #[must_use]
    pub fn left(&self, now: Instant) -> u32 {
        self.all.bucket.left(now)
    }

    /// Peers whose heads may take no relay that they have not used.
    #[must_use]
    pub fn used_up(&self, now: Instant) -> usize {
        let peers = self.peers.values();
        peers.filter(|it| it.heads.bucket.left(now) == 0).count()
    }

    /// A throw-away ID is gone: its successor has nothing in common with it.
    pub fn forget(&mut self, pseudonym: Pseudonym) {
        self.peers.retain(|(of, _), _| *of != pseudonym);
    }

    /// Which relays may be drawn for the free places of a head to a peer, or, without one, of a tail.
    pub fn allow(&self, peer: Option<&Partner>, now: Instant) -> impl Fn(&ShortId) -> bool {
        let heads = peer
            .and_then(|peer| self.peers.get(peer))
            .map(|budget| &budget.heads);
        let peer_may = heads.is_none_or(|heads| heads.has_tokens(now));
        let all_may = self.all.has_tokens(now);
        move |relay| {
            let known = heads.is_some_and(|heads| heads.knows(relay));
            known || (peer_may && (all_may || self.all.knows(relay)))
        }
    }

    /// These stand in the free places of a new head to a peer, or, without one, of a new tail.
    pub fn use_relays(&mut self, peer: Option<Partner>, relays: &[ShortId], now: Instant) {
        if let Some(peer) = peer {
            self.peer(peer, now).heads.use_relays(relays, now);
        }
        self.all.use_relays(relays, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn relay(number: usize) -> ShortId {
        ShortId((number as u64).to_be_bytes())
    }

    fn peer(number: u8) -> Partner {
        (Pseudonym::Own, AnonymousId([number; 32]))
    }

    fn budgets_allow(budgets: &Budgets, who: Partner, relay: ShortId, now: Instant) -> bool {
        budgets.allow(Some(&who), now)(&relay)
    }

    /// Draws relays that are not known as long as that is allowed; how many.
    fn insist(budgets: &mut Budgets, who: Partner, from: usize, now: Instant) -> usize {
        let mut drawn = 0;
        while drawn < 10_000 && budgets_allow(budgets, who, relay(from + drawn), now) {
            budgets.use_relays(Some(who), &[relay(from + drawn)], now);
            drawn += 1;
        }
        drawn
    }

    #[test]
    fn a_peer_has_so_many_new_heads_and_known_relays_without_limit() {
        let now = Instant::now();
        let mut budgets = Budgets::new(now);
        let burst = NEW_HEADS_BURST as usize;
        assert_eq!(insist(&mut budgets, peer(1), 0, now), burst);
        for known in 0..burst {
            assert!(budgets_allow(&budgets, peer(1), relay(known), now));
            budgets.use_relays(Some(peer(1)), &[relay(known)], now);
        }
        let hour = Duration::from_secs(3600);
        let most = burst.min(NEW_HEADS_PER_HOUR as usize);
        assert_eq!(insist(&mut budgets, peer(1), 1000, now + hour), most);
        // Another peer is not concerned.
        assert!(budgets_allow(&budgets, peer(2), relay(2000), now + hour));
    }

    #[test]
    fn ever_other_peers_have_one_budget_in_all() {
        let now = Instant::now();
        let mut budgets = Budgets::new(now);
        let mut drawn = 0;
        for number in 0..=255 {
            drawn += insist(&mut budgets, peer(number), 1000 * usize::from(number), now);
        }
        assert_eq!(drawn, NEW_RELAYS_BURST as usize);
        // Who comes then is served with relays that are known.
        assert!(budgets_allow(&budgets, peer(200), relay(0), now));
        assert!(budgets.allow(None, now)(&relay(0)));
        assert!(!budgets.allow(None, now)(&relay(999_999)));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut budgets = Budgets::new(now);
        for number in 0..2 * MAX_BUDGETS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let who = (Pseudonym::Own, AnonymousId(id));
            budgets.use_relays(Some(who), &[relay(number)], now);
        }
        assert_eq!(budgets.peers.len(), MAX_BUDGETS);
        assert_eq!(budgets.all.known.len(), MAX_KNOWN_IN_ALL);
        for number in 0..200 {
            budgets.use_relays(Some(peer(1)), &[relay(number)], now);
        }
        assert_eq!(budgets.peer(peer(1), now).heads.known.len(), MAX_KNOWN);
    }
}
