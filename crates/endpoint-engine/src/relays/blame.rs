//! Which relays a session has reason to distrust.
//!
//! A path that fails does not say which of its relays is at fault, so all of them that work
//! nowhere else are blamed. A new path takes those against which least speaks, and a path that
//! begins to answer relieves its relays: so the innocent come back one by one, and what fails
//! again and again stays away. Were all of them simply shunned, a small network would soon be
//! left with a few relays that every path shares, and the next failure would end them all at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;
use mixline_protocol::path::Hop;

use crate::relays::budget::Partner;
use crate::relays::key_changes::KeyChanges;
use crate::relays::network::Network;
use crate::relays::selection::{FAILED, SHARED};

/// Failures of one relay that are counted.
const MAX_FAILURES: u8 = 5;
/// What one peer alone has brought about speaks against a relay in sessions with others at most as much as
/// one path that shares it: a peer that answers over one relay only must not draw all sessions there.
const ONE_WITNESS: u8 = SHARED;
/// At most so many relays are blamed.
const MAX_BLAMED: usize = 64;
/// How long a failure is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Failed heads that may yet be explained: the latest ones ...
const MAX_UNEXPLAINED: usize = 32;
/// ... for so long, or as it takes until a relay that started anew is in a snapshot. Otherwise one that swallows
/// cells would be excused for each relay that was ever beside it and starts anew some time.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(15);

/// The relays that a session blames.
#[derive(Default)]
pub struct Blame {
    relays: HashMap<ShortId, Failures>,
    unexplained: VecDeque<Unexplained>,
}

/// A head that has failed, and the relays that were blamed for it.
struct Unexplained {
    head: Vec<Hop>,
    blamed: Vec<ShortId>,
    at: Instant,
}

struct Failures {
    count: u8,
    /// In whose sessions: the first, and whether there was another. All strangers are one (`None`).
    witness: Option<Partner>,
    others: bool,
    until: Instant,
}

impl Blame {
    /// A head has failed in a session with `witness`; these of its relays are in no path that works.
    pub fn add_all(
        &mut self,
        head: Vec<Hop>,
        relays: Vec<ShortId>,
        witness: Option<Partner>,
        now: Instant,
    ) {
        for relay in &relays {
            self.add(*relay, witness, now);
        }
        if self.unexplained.len() >= MAX_UNEXPLAINED {
            self.unexplained.pop_front();
        }
        self.unexplained.push_back(Unexplained {
            head,
            blamed: relays,
            at: now,
        });
    }

    /// Relays that have started anew, as the snapshot shows, are why heads over them have failed. Neither
    /// they nor the others are to blame any more for that.
    pub fn explain(&mut self, network: &Network, changes: &KeyChanges, now: Instant) {
        let failed = std::mem::take(&mut self.unexplained);
        let within = network.news_take().max(EXPLAINED_WITHIN);
        let late = |it: &Unexplained| now.saturating_duration_since(it.at) < within;
        for it in failed.into_iter().filter(late) {
            let explains = |hop: &Hop| network.has_forgotten(hop) && changes.explain(&hop.relay);
            if it.head.iter().any(explains) {
                self.relieve(&it.blamed);
            } else {
                self.unexplained.push_back(it);
            }
        }
    }

    /// A relay was in a path that failed, and is in none that works.
    fn add(&mut self, relay: ShortId, witness: Option<Partner>, now: Instant) {
        self.relays.retain(|_, failures| failures.until > now);
        let until = now + REMEMBERED;
        if let Some(failures) = self.relays.get_mut(&relay) {
            failures.count = MAX_FAILURES.min(failures.count + 1);
            failures.until = until;
            failures.others |= failures.witness != witness;
            return;
        }
        if self.relays.len() >= MAX_BLAMED
            && let Some((oldest, _)) = self.relays.iter().min_by_key(|(_, f)| f.until)
        {
            let oldest = *oldest;
            self.relays.remove(&oldest);
        }
        let first = Failures {
            count: 1,
            witness,
            others: false,
            until,
        };
        self.relays.insert(relay, first);
    }

    /// These relays are in a path that has begun to answer: one failure less.
    pub fn relieve(&mut self, relays: &[ShortId]) {
        self.relays.retain(|relay, failures| {
            if relays.contains(relay) {
                failures.count = failures.count.saturating_sub(1);
            }
            failures.count > 0
        });
    }

    /// Nothing has worked, and no relay is to blame for that.
    pub fn forget(&mut self) {
        self.relays.clear();
        self.unexplained.clear();
    }

    /// What speaks against a relay in sessions with others than those in which it has failed.
    #[must_use]
    pub fn of_others(&self, relay: &ShortId, now: Instant) -> u8 {
        match self.relays.get(relay) {
            Some(failures) if failures.others => self.of(relay, now),
            _ => ONE_WITNESS.min(self.of(relay, now)),
        }
    }

    /// What speaks against a relay: [`FAILED`] for each failure that counts.
    #[must_use]
    pub fn of(&self, relay: &ShortId, now: Instant) -> u8 {
        match self.relays.get(relay) {
            Some(failures) if failures.until > now => FAILED * failures.count,
            _ => 0,
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::Arc;

    use mixline_protocol::identity::{IdentityKey, X25519Public};
    use mixline_protocol::records::{ListedRelay, RelayDescriptor, RelayFlags};
    use mixline_protocol::time::UnixTime;

    use super::*;
    use crate::testing::snapshots::{ROUND, VALID, snapshot};

    const A: ShortId = ShortId([1; 8]);
    const B: ShortId = ShortId([2; 8]);

    #[test]
    fn what_fails_again_is_blamed_more_and_what_works_is_cleared() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        blame.add(A, None, now);
        blame.add(B, None, now);
        blame.add(A, None, now);
        assert_eq!((blame.of(&A, now), blame.of(&B, now)), (2 * FAILED, FAILED));
        blame.relieve(&[B]);
        assert_eq!((blame.of(&A, now), blame.of(&B, now)), (2 * FAILED, 0));
        for _ in 0..100 {
            blame.add(A, None, now);
        }
        assert_eq!(blame.of(&A, now), MAX_FAILURES * FAILED);
    }

    #[test]
    fn failures_are_forgotten_and_bounded() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        for number in 0..=255 {
            blame.add(ShortId([number; 8]), None, now);
        }
        assert_eq!(blame.relays.len(), MAX_BLAMED);
        assert_eq!(blame.of(&A, now + REMEMBERED), 0);
        blame.add(B, None, now + REMEMBERED);
        assert_eq!(blame.relays.len(), 1);
    }

    /// A network of one relay that has this onion key, and which epoch that is for.
    fn network(onion: X25519Public, several: bool) -> Network {
        let now = UnixTime(1_800_000_000);
        let mut snapshot = snapshot(now, VALID, several);
        let descriptor = RelayDescriptor {
            id: IdentityKey::from_seed([7; 32]).relay_id(),
            version: 1,
            issued: now,
            expires: now.plus(VALID),
            link: X25519Public([1; 32]),
            addresses: vec![([192, 0, 2, 1], 7000).into()],
            capacity: 1,
            family: None,
            name: "relay".into(),
            software: String::new(),
            signature: [0; 64],
        };
        snapshot.relays.push(ListedRelay {
            descriptor,
            onion: [(snapshot.first_epoch(), onion)].into_iter().collect(),
            capacity: 1,
            since: now,
            flags: RelayFlags::default(),
        });
        Network::new(Arc::new(snapshot))
    }

    #[test]
    fn what_has_failed_is_explained_for_as_long_as_it_takes_until_there_is_a_snapshot() {
        let failed = Instant::now();
        let is_blamed = |several, seconds| {
            let [old, new] = [2, 3].map(|byte| network(X25519Public([byte; 32]), several));
            let mut changes = KeyChanges::default();
            let relay = old.relays()[0].short;
            let hop = Hop {
                relay,
                onion: X25519Public([2; 32]),
            };
            let mut blame = Blame::default();
            blame.add_all(vec![hop], vec![A], None, failed);
            let now = failed + Duration::from_secs(seconds);
            changes.follow(&old, &new, now);
            blame.explain(&new, &changes, now);
            blame.of(&A, now) > 0
        };
        assert_eq!([14, 16].map(|s| is_blamed(false, s)), [false, true]);
        // From just behind the votes of a round on, and when all have fetched the next one.
        let [late, later] = [ROUND * 6 / 5, ROUND * 8 / 5];
        assert_eq!([late, later].map(|s| is_blamed(true, s)), [false, true]);
    }
}
