//! Own tails: the ends of paths that lead here.
//!
//! A tail is built, its mailbox registered at its guard, and only then given away: to
//! everybody (public, in the descriptor) or to one peer (private). Some are kept ready as
//! spares, so that a handshake does not wait. A tail that is replaced goes on receiving for a
//! while; one that has been given away is never given to somebody else.

pub(crate) mod mailboxes;
pub(crate) mod registration;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{
    Hop, MailboxToken, PublishedTail, TailId, TailKeys, TailSecrets, build_tail,
};
use mixline_protocol::records::TailOffer;
use mixline_protocol::size::Payload;
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;

use crate::clock::Now;
use crate::keys::{SessionKey, TailKey};
use crate::relays::blame::Blame;
use crate::relays::network::Network;
use crate::relays::selection::{Chosen, FAILED, SHARED, Shortage};
use crate::tails::registration::Registration;
use slotmap::SlotMap;

/// How long a replaced tail goes on receiving.
pub const DRAIN: Duration = Duration::from_secs(30);
/// A tail works through which something came so lately.
const HEARD: Duration = Duration::from_secs(3);
/// What speaks against one more tail over a relay that all others of a session have: as much as two failures.
const ENDS_ALL: usize = 2 * FAILED as usize;
/// At most so many own tails, of all kinds: four for each of 1000 sessions, and as many that drain.
pub const MAX_OWN_TAILS: usize = 8192;

/// Whom a tail was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody yet.
    Spare,
    /// Everybody, in the descriptor.
    Public,
    /// The peer of this session.
    Session(SessionKey),
}

/// An own tail.
pub struct Tail {
    /// What others get.
    pub published: PublishedTail,
    /// Its relays, the first of the tail first, the guard last.
    pub relays: Vec<ShortId>,
    /// Where its mailbox is.
    pub guard: ShortId,
    /// Under which name.
    pub token: MailboxToken,
    /// When it ends.
    pub expires: UnixTime,
    /// When it should be replaced.
    pub renew: UnixTime,
    /// Who has it.
    pub owner: Owner,
    /// Set when it was replaced: until when it goes on receiving.
    pub draining: Option<Instant>,
    /// How far its mailbox is.
    pub registration: Registration,
    /// When something last came through it.
    pub heard: Option<Instant>,
    keys: TailKeys,
    hops: Vec<Hop>,
}

impl Tail {
    /// What others get, and until when.
    #[must_use]
    pub fn offer(&self) -> TailOffer {
        TailOffer {
            tail: self.published,
            expires: self.expires,
        }
    }

    /// Whether it can be given away now.
    #[must_use]
    pub fn is_ready(&self, now: UnixTime) -> bool {
        self.registration.is_done() && self.draining.is_none() && now < self.renew
    }
}

/// All own tails.
#[derive(Default)]
pub struct Tails {
    tails: SlotMap<TailKey, Tail>,
    tokens: HashMap<MailboxToken, TailKey>,
    /// Mailboxes that are no longer wanted, by guard.
    pub(crate) dropped: Vec<(ShortId, MailboxToken)>,
    /// Some registration may be due.
    pub(crate) unregistered: bool,
}

impl Tails {
    /// Builds a spare of relays that were chosen, the guard first. Its mailbox is registered next.
    ///
    /// # Errors
    /// [`Shortage`] if one of them has an onion key that is none, or there are too many tails.
    pub fn build(
        &mut self,
        network: &Network,
        mut chosen: Chosen,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<TailKey, Shortage> {
        let shortage = Shortage {
            wanted: chosen.hops.len(),
            found: 0,
            listed: network.relays().len(),
            usable: 0,
            unkept: false,
        };
        let guard = chosen.hops.first().map(|hop| hop.relay);
        let Some(guard) = guard.filter(|_| self.tails.len() < MAX_OWN_TAILS) else {
            return Err(shortage);
        };
        // The guard, first when chosen, is the last relay of a tail.
        chosen.hops.reverse();
        let mut token = [0; 8];
        rng.fill_bytes(&mut token);
        let token = MailboxToken(token);
        let secrets = TailSecrets::random(rng);
        // A relay whose onion key is no key: as if there were no such relay.
        let (published, keys) = build_tail(&secrets, &chosen.hops, token).map_err(|_| shortage)?;
        let key = self.tails.insert(Tail {
            published,
            relays: chosen.hops.iter().map(|hop| hop.relay).collect(),
            guard,
            token,
            expires: chosen.expires,
            renew: network.renewal(chosen.expires, rng),
            owner: Owner::Spare,
            draining: None,
            registration: Registration::Needed,
            heard: None,
            keys,
            hops: chosen.hops,
        });
        self.tokens.insert(token, key);
        self.unregistered = true;
        Ok(key)
    }

    /// Undoes what the relays of a tail did to a payload. Whose it is; `None` if the mailbox is not ours.
    pub fn unwrap(
        &mut self,
        token: MailboxToken,
        payload: &mut Payload,
    ) -> Option<(TailKey, Owner)> {
        let key = *self.tokens.get(&token)?;
        let tail = self.tails.get_mut(key)?;
        tail.keys.unwrap(payload);
        Some((key, tail.owner))
    }

    /// What came through a tail was sent so by somebody who may. Its relays, if that is the first time.
    pub fn heard(&mut self, key: TailKey, now: Instant) -> Option<&[ShortId]> {
        let tail = self.tails.get_mut(key)?;
        let is_first = tail.heard.replace(now).is_none();
        is_first.then_some(&tail.relays)
    }

    /// The relays of a tail that may be why nothing comes through it: those in no tail through which
    /// something came lately, without the guard. None if something came through it.
    #[must_use]
    pub fn suspects(&self, key: TailKey, now: Instant) -> Option<(Vec<Hop>, Vec<ShortId>)> {
        let lately = |tail: &Tail| {
            let since = |at: Instant| now.saturating_duration_since(at);
            tail.heard.is_some_and(|at| since(at) < HEARD)
        };
        let tail = self.get(key).filter(|tail| !lately(tail))?;
        let works = |relay: &&ShortId| {
            let mut tails = self.tails.values();
            tails.any(|other| lately(other) && other.relays.contains(relay))
        };
        let inner = tail.relays.iter().filter(|relay| **relay != tail.guard);
        let suspects = inner.filter(|relay| !works(relay)).copied().collect();
        Some((tail.hops.clone(), suspects))
    }

    /// The tail of a key.
    #[must_use]
    pub fn get(&self, key: TailKey) -> Option<&Tail> {
        self.tails.get(key)
    }

    /// All tails.
    pub fn iter(&self) -> impl Iterator<Item = (TailKey, &Tail)> {
        self.tails.iter()
    }

    /// All tails, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (TailKey, &mut Tail)> {
        self.tails.iter_mut()
    }

    /// The tail of this name among `keys`.
    #[must_use]
    pub fn find(&self, keys: &[TailKey], id: TailId) -> Option<TailKey> {
        let named = |key: &TailKey| self.get(*key).is_some_and(|tail| tail.published.id() == id);
        keys.iter().copied().find(named)
    }

    /// How many spares are ready.
    #[must_use]
    pub fn spares_ready(&self, now: UnixTime) -> usize {
        let ready = |tail: &&Tail| tail.owner == Owner::Spare && tail.is_ready(now);
        self.tails.values().filter(ready).count()
    }

    /// Gives a spare that is ready and `fits` to `owner`, one against whose relays least speaks, and that shares the
    /// fewest relays, and above all not its guard, with the tails `beside` it: no relay is to be in all of
    /// them. `None` if there is none.
    pub fn take_spare(
        &mut self,
        owner: Owner,
        beside: &[TailKey],
        now: Now,
        fits: impl Fn(&Tail) -> bool,
        blame: &Blame,
    ) -> Option<TailKey> {
        let others: Vec<&Tail> = beside.iter().filter_map(|key| self.get(*key)).collect();
        let mut common = self.in_all(beside);
        if others.len() < 2 {
            // Of one tail, all relays are in all.
            common.clear();
        }
        let shares = |tail: &Tail| {
            let guard = others
                .iter()
                .filter(|other| other.guard == tail.guard)
                .count();
            let relays = others.iter().flat_map(|other| &other.relays);
            let relays = relays.filter(|relay| tail.relays.contains(relay)).count();
            usize::from(SHARED) * (2 * guard + relays)
        };
        let best = self
            .tails
            .iter()
            .filter(|(_, tail)| {
                tail.owner == Owner::Spare && tail.is_ready(now.unix()) && fits(tail)
            })
            .min_by_key(|(_, tail)| {
                let against = tail.relays.iter().map(|relay| blame.of(relay, now.instant));
                let ends_all = tail.relays.iter().any(|relay| common.contains(relay));
                let against = usize::from(against.max().unwrap_or(0));
                against + shares(tail) + if ends_all { ENDS_ALL } else { 0 }
            })
            .map(|(key, _)| key)?;
        self.tails.get_mut(best)?.owner = owner;
        Some(best)
    }

    /// The relays that are in each of some tails: the failure of one of them ends all.
    #[must_use]
    pub fn in_all(&self, keys: &[TailKey]) -> Vec<ShortId> {
        let mut tails = keys.iter().filter_map(|key| self.get(*key));
        let Some(first) = tails.next() else {
            return Vec::new();
        };
        let mut common = first.relays.clone();
        for tail in tails {
            common.retain(|relay| tail.relays.contains(relay));
        }
        common
    }

    /// A tail is to be replaced as soon as there is another.
    pub fn make_due(&mut self, key: TailKey) {
        if let Some(tail) = self.tails.get_mut(key) {
            tail.renew = UnixTime(0);
        }
    }

    /// Tails of relays that have forgotten their onion keys are to be replaced. Nobody else would
    /// tell: a public tail is heard of only when it works.
    pub fn check_keys(&mut self, network: &Network) {
        for (_, tail) in self.tails.iter_mut() {
            if tail.hops.iter().any(|hop| network.has_forgotten(hop)) {
                tail.renew = UnixTime(0);
            }
        }
    }

    /// A tail is no longer offered: it receives for a while yet, then it goes.
    pub fn drain(&mut self, key: TailKey, now: Now) {
        self.drain_within(key, DRAIN, now);
    }

    /// A tail is no longer offered to others who hear of it within this time, and receives until then, and for a
    /// while yet.
    pub fn drain_within(&mut self, key: TailKey, time: Duration, now: Now) {
        if let Some(tail) = self.tails.get_mut(key) {
            tail.draining.get_or_insert(now.instant + time.max(DRAIN));
        }
    }

    /// A tail goes at once, and its mailbox with it.
    pub fn drop_now(&mut self, key: TailKey) {
        if let Some(tail) = self.tails.remove(key) {
            self.tokens.remove(&tail.token);
            self.dropped.push((tail.guard, tail.token));
        }
    }

    /// Removes what has ended: drained tails, and those that `grace` seconds ago no relay would
    /// honour any more.
    pub fn expire(&mut self, now: Now, grace: u64) {
        for key in self.tails.keys().collect::<Vec<_>>() {
            let over = self.get(key).is_some_and(|tail| {
                now.unix() >= tail.expires.plus(grace)
                    || tail.draining.is_some_and(|until| now.instant >= until)
                    || (tail.owner == Owner::Spare && now.unix() >= tail.renew)
            });
            if over {
                self.drop_now(key);
            }
        }
    }
}
