//! Being found: public tails, the own descriptor, and spare tails for sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::directory::RequestBody;
use mixline_protocol::effort::{Effort, EffortTerms};
use mixline_protocol::identity::ShortId;
use mixline_protocol::records::{CLOCK_SKEW, ServiceDescriptor};

use super::Engine;
use crate::clock::Now;
use crate::command::RequestNumber;
use crate::directory::pending::{Asker, QUERY_DEADLINE};
use crate::directory::pseudonyms::Pseudonym;
use crate::directory::publication::{FIRST_RETRY, LAST_RETRY};
use crate::error::QueryError;
use crate::keys::TailKey;
use crate::relays::selection::{Place, Plan, SHARED, Shortage, choose_within};
use crate::status::Event;
use crate::tails::{Owner, Tail};

/// Spare tails that are kept ready: enough for a session and both throw-away IDs.
pub const SPARES: usize = 8;
/// Spare tails while sessions are short of them.
pub const MORE_SPARES: usize = 24;
/// Tails that are built in one call: each costs half a millisecond.
const BUILDS: usize = 4;
/// A descriptor with fewer tails than wanted waits this long for the others.
const SETTLE: Duration = Duration::from_millis(1500);
/// The descriptor is signed anew when so little of its life is left, seconds.
const REFRESH: u64 = 1800;
/// A descriptor lives at most so long, seconds; and with it the seed of the puzzles that are in it.
const LIFE: u64 = 2 * 3600;
/// A suggested effort that has risen is published so soon after the last descriptor with another one ...
const RISES: Duration = Duration::from_secs(5);
/// ... or so soon, if it has risen by much ...
const RISES_BY_MUCH: Duration = Duration::from_secs(2);
/// ... and one that has fallen so late.
const FALLS: Duration = Duration::from_secs(60);

impl Engine {
    /// Keeps spare tails ready.
    pub(super) fn build_spares(&mut self, now: Now) {
        let short = std::mem::take(&mut self.spares_short);
        let publics = if self.config.accept_sessions {
            self.config
                .public_tails
                .saturating_sub(self.publication.tails.len())
        } else {
            0
        };
        let wanted = if short { MORE_SPARES } else { SPARES } + publics;
        let works = |guard: &ShortId| self.links.is_up(guard) && !self.links.is_leaving(guard);
        let spare = |tail: &Tail| {
            tail.owner == Owner::Spare
                && now.unix() < tail.renew
                && works(&tail.guard)
                && !tail.registration.is_ignored(now.instant)
        };
        let have = self.tails.iter().filter(|(_, tail)| spare(tail)).count();
        for _ in have..wanted.min(have + BUILDS) {
            match self.build_tail(now) {
                Ok(()) => self.shortage = None,
                Err(Some(shortage)) => {
                    self.shortage = Some(shortage.to_string());
                    return;
                }
                Err(None) => return,
            }
        }
    }

    /// Whether a guard may be asked for one more mailbox. One that has refused some is asked for a single
    /// one, when it is time to.
    fn takes_mailboxes(&self, guard: &ShortId, now: Now) -> bool {
        !self.tails.are_ignored_by(guard, now.instant)
            && match self.mailboxes.refused_until(guard) {
                Some(until) => now.instant >= until && !self.tails.any_asked_of(guard),
                None => true,
            }
    }

    /// Builds one spare at the guard that has the fewest, of those that take mailboxes. `Err(None)` if
    /// there is none.
    fn build_tail(&mut self, now: Now) -> Result<(), Option<Shortage>> {
        let network = self.network.as_ref().ok_or(None)?;
        let mut guards: Vec<(ShortId, usize)> = self
            .links
            .usable()
            .filter(|guard| self.tails.has_room_at(guard) && self.takes_mailboxes(guard, now))
            .map(|guard| (guard, self.tails.good_at(&guard, now.unix())))
            .collect();
        crate::random::shuffle(&mut guards, &mut self.rng);
        let (guard, _) = guards
            .into_iter()
            .min_by_key(|(_, count)| *count)
            .ok_or(None)?;
        let guards = &self.guards;
        // A relay that fails must not take all public tails with it, and these come from the spares.
        let beside: Vec<ShortId> = self
            .tails
            .iter()
            .filter(|(_, tail)| matches!(tail.owner, Owner::Spare | Owner::Public))
            .filter(|(_, tail)| tail.draining.is_none())
            .flat_map(|(_, tail)| tail.relays.iter().copied())
            .collect();
        let penalty = |place: Place, relay: &ShortId| {
            let shared = beside.iter().filter(|used| *used == relay).count();
            let own = guards.speaks_against(place, relay);
            let blame = self.inner_blame.of(relay, now.instant);
            own + blame + SHARED * u8::try_from(shared.min(MORE_SPARES)).unwrap_or(0)
        };
        let length = self.config.tail_length;
        let deep = self.config.has_third_layer(length);
        let plan = Plan {
            guard: &guard,
            layers: &guards.layers(network, &guard, length, deep, now.unix()),
            length,
        };
        // Strangers make an endpoint give tails away, so their relays are from the budget for all.
        let allowed = self.budgets.allow(None, now.instant);
        let chosen = choose_within(network, plan, now, penalty, allowed, &mut self.rng)?;
        let free = chosen.free();
        self.tails.build(network, chosen, &mut self.rng)?;
        self.budgets.use_relays(None, &free, now.instant);
        Ok(())
    }

    /// Keeps public tails alive, and the descriptor true.
    pub(super) fn publish(&mut self, now: Now) {
        if self.publication.withdrawn {
            return self.send_withdrawal(now);
        }
        if !self.config.accept_sessions {
            return;
        }
        if self.renew_public_tails(now) {
            self.publication.make_stale(now.instant);
        }
        let said = self.said(Pseudonym::Own, now).unix();
        if let Some(descriptor) = self.publication.offer()
            && (descriptor.expires.since(said) < REFRESH.min(self.descriptor_life(now) / 2)
                || descriptor.issued > said.plus(CLOCK_SKEW)
                || descriptor.lease.as_ref() != self.pseudonyms.lease(now.unix())
                || self.strangers.seeds.is_due(now.instant)
                || self.suggests_otherwise(descriptor.effort.suggested, now.instant))
        {
            self.publication.make_stale(now.instant);
        }
        let full = self.publication.tails.len() >= self.config.public_tails;
        let settled =
            |since: Instant| full || now.instant.saturating_duration_since(since) >= SETTLE;
        if self.publication.stale.is_some_and(settled) && !self.publication.tails.is_empty() {
            self.sign_descriptor(now);
        }
        let Some(version) = self.publication.offer().map(|offer| offer.version) else {
            self.give_up_publishing(now);
            return;
        };
        let waiting = std::mem::take(&mut self.publication.waiting);
        let due = self.config.publish
            && self.publication.published < version
            && now.instant >= self.publication.next
            && !self.queries.is_publishing();
        if due && waiting.is_empty() {
            self.ask_to_publish(None, now);
        }
        for (_, number) in waiting {
            self.ask_to_publish(Some(number), now);
        }
    }

    /// Whether strangers are to be told of another effort than this one.
    fn suggests_otherwise(&self, published: Effort, now: Instant) -> bool {
        let current = self.strangers.suggestion.current();
        let after = if current > published.saturating_mul(2) {
            RISES_BY_MUCH
        } else if current > published {
            RISES
        } else {
            FALLS
        };
        let long = |at: Instant| now.saturating_duration_since(at) >= after;
        current != published && self.publication.suggested.is_none_or(long)
    }

    /// Somebody asks for publication.
    pub(super) fn publish_now(&mut self, number: RequestNumber, now: Now) {
        if !self.config.accept_sessions {
            self.reply(number, Err(accepts_nobody()));
        } else if self.publication.offer().is_some() && self.publication.stale.is_none() {
            self.ask_to_publish(Some(number), now);
        } else if self.publication.waiting.len() < crate::directory::pending::MAX_QUERIES {
            let deadline = now.instant + QUERY_DEADLINE;
            self.publication.waiting.push((deadline, number));
        } else {
            self.reply(number, Err(QueryError::Busy));
        }
    }

    /// There are no public tails yet: nobody waits for them for ever.
    fn give_up_publishing(&mut self, now: Now) {
        let late = |waiting: &mut (Instant, RequestNumber)| now.instant >= waiting.0;
        for (_, number) in self
            .publication
            .waiting
            .extract_if(.., late)
            .collect::<Vec<_>>()
        {
            let why = format!("there is nothing to publish yet: {}", self.obstacle());
            self.reply(number, Err(QueryError::Timeout(why)));
        }
    }

    fn ask_to_publish(&mut self, number: Option<RequestNumber>, now: Now) {
        if let Some(descriptor) = self.publication.descriptor.clone() {
            if !descriptor.tails.is_empty() {
                let until = self.publication.offered_until;
                self.publication.offered_until = until.max(Some(descriptor.expires));
            }
            let asker = Asker::Publish(descriptor.version, number);
            let body = RequestBody::Publish((*descriptor).clone());
            self.ask_directory(body, asker, now);
        }
    }

    /// The directory has accepted a version of the descriptor, or not.
    pub(super) fn publication(&mut self, version: u64, result: Result<(), QueryError>, now: Now) {
        match result {
            Ok(()) => {
                self.publication.published = self.publication.published.max(version);
                self.own_versions.accept(version);
                self.publication.published_at = now.unix().0;
                self.publication.retry = FIRST_RETRY;
                self.event(Event::Published);
            }
            Err(why) => {
                self.publication.next = now.instant + self.publication.retry;
                self.publication.retry = (self.publication.retry * 2).min(LAST_RETRY);
                self.event(Event::PublishFailed(why.to_string()));
            }
        }
    }

    /// Replaces public tails that end soon or do not work; whether any is another now.
    fn renew_public_tails(&mut self, now: Now) -> bool {
        let mut changed = false;
        for at in (0..self.publication.tails.len()).rev() {
            let old = self.publication.tails[at];
            if !self.tail_is_due(old, now) {
                continue;
            }
            if let Some(new) = self.spare_for_public(now) {
                self.drain_public(old, now);
                self.publication.tails[at] = new;
                changed = true;
            } else if self
                .tails
                .get(old)
                .is_none_or(|tail| now.unix() >= tail.expires)
            {
                self.publication.tails.remove(at);
                changed = true;
            }
        }
        while self.publication.tails.len() < self.config.public_tails {
            let Some(new) = self.spare_for_public(now) else {
                break;
            };
            self.publication.tails.push(new);
            changed = true;
        }
        changed
    }

    /// A public tail is no longer offered. What no directory is asked for stands in snapshots, and the old one is
    /// used until there is another.
    pub(super) fn drain_public(&mut self, tail: TailKey, now: Now) {
        let network = self.network.as_ref();
        let heard = network.filter(|_| !self.config.publish);
        let within = heard.map_or(Duration::ZERO, |network| network.news_take());
        self.tails.drain_within(tail, within, now);
    }

    fn spare_for_public(&mut self, now: Now) -> Option<TailKey> {
        let works =
            |tail: &Tail| self.links.is_up(&tail.guard) && !self.links.is_leaving(&tail.guard);
        self.tails.take_spare(
            Owner::Public,
            &self.publication.tails,
            now,
            works,
            &self.inner_blame,
        )
    }

    fn descriptor_life(&self, now: Now) -> u64 {
        let tails = self
            .publication
            .tails
            .iter()
            .filter_map(|key| self.tails.get(*key));
        let last = tails.map(|tail| tail.expires).max().unwrap_or_default();
        let said = self.said(Pseudonym::Own, now);
        last.since(said.unix()).clamp(1, LIFE)
    }

    fn sign_descriptor(&mut self, now: Now) {
        let tails = self
            .publication
            .tails
            .iter()
            .filter_map(|key| self.tails.get(*key));
        let tails = tails.map(Tail::offer).collect();
        let life = self.descriptor_life(now);
        self.sign(tails, life, now);
    }

    fn sign(&mut self, tails: Vec<mixline_protocol::records::TailOffer>, life: u64, now: Now) {
        let said = self.said(Pseudonym::Own, now);
        let own = self.pseudonyms.get(Pseudonym::Own);
        let clients = self.authorisations.entries(&own.id, said.unix());
        let lives = Duration::from_secs(life);
        let effort = EffortTerms {
            seed: self
                .strangers
                .seeds
                .for_descriptor(lives, now.instant, &mut self.puzzle_rng),
            suggested: self.strangers.suggestion.current(),
        };
        if self.asked_effort() != effort.suggested {
            self.publication.suggested = Some(now.instant);
        }
        let own = self.pseudonyms.get(Pseudonym::Own);
        let unsigned = ServiceDescriptor {
            id: own.id,
            version: self.own_versions.next(said),
            issued: said.unix(),
            expires: said.unix().plus(life),
            session: own.secret.public(),
            effort,
            lease: self.pseudonyms.lease(now.unix()).copied(),
            tails,
            clients,
            signature: [0; mixline_protocol::identity::SIGNATURE],
        };
        match unsigned.sign(&own.key) {
            Ok(descriptor) => {
                self.queries
                    .supersede(&descriptor, now.instant, &mut self.rng);
                self.publication.descriptor = Some(Arc::new(descriptor));
                self.publication.changed = true;
                self.publication.stale = None;
                self.publication.next = now.instant;
                self.publication.retry = FIRST_RETRY;
            }
            Err(error) => self.event(Event::PublishFailed(error.to_string())),
        }
    }

    /// Nobody new is let in any more. Sessions that there are go on.
    pub(super) fn stop_accepting(&mut self, now: Now) {
        self.strangers.forget();
        for query in self.queries.publications() {
            if let Some(number) = query.asker.number() {
                self.reply(number, Err(accepts_nobody()));
            }
        }
        for (_, number) in std::mem::take(&mut self.publication.waiting) {
            self.reply(number, Err(accepts_nobody()));
        }
        for key in std::mem::take(&mut self.publication.tails) {
            self.tails.drop_now(key);
        }
        self.withdraw(now);
    }

    /// Tells the directory that nobody is here any more, so that anyone who asks is told at once.
    pub(super) fn withdraw(&mut self, now: Now) {
        if !self.publication.withdrawn {
            self.publication.withdrawn = true;
            if self.publication.descriptor.is_some() {
                self.sign(Vec::new(), REFRESH, now);
            }
        }
        self.publication.next = now.instant;
        self.send_withdrawal(now);
    }

    /// Says so until the directory has heard it, or what it has is over.
    fn send_withdrawal(&mut self, now: Now) {
        let Some(descriptor) = &self.publication.descriptor else {
            return;
        };
        let offered = self.publication.offered_until;
        let due = self.publication.published < descriptor.version
            && offered.is_some_and(|until| now.unix() < until)
            && now.instant >= self.publication.next
            && !self.queries.is_publishing();
        if !due {
            return;
        }
        if now.unix() >= descriptor.expires {
            self.sign(Vec::new(), REFRESH, now);
        }
        self.ask_to_publish(None, now);
    }
}

fn accepts_nobody() -> QueryError {
    QueryError::Refused("this endpoint does not accept sessions".to_owned())
}
