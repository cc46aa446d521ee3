//! Registering mailboxes at guards, until the guards have said that they are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::control::{Control, MAX_TOKENS, MAX_TOKENS_PER_LINK};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::time::UnixTime;

use crate::clock::Now;
use crate::guard_links::Links;
use crate::keys::TailKey;
use crate::outbox::Outbox;
use crate::tails::registration::Registration;
use crate::tails::{Tail, Tails};

/// One call sends at most so many registrations; the others follow with the next.
const MESSAGES: usize = 16;

/// How long a guard is not asked for one more mailbox that has refused one, at first ...
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// ... and at most: twice as long each time.
const LAST_PAUSE: Duration = Duration::from_secs(600);

/// Numbers registrations, and knows which guards refuse them.
#[derive(Debug, Default)]
pub struct Mailboxes {
    next: u32,
    refusing: HashMap<ShortId, Refusing>,
}

/// A guard that has refused mailboxes, and has taken none since.
#[derive(Debug, Clone, Copy)]
struct Refusing {
    until: Instant,
    pause: Duration,
}

impl Mailboxes {
    /// A guard has answered a registration. One that refuses is left alone for a while, and ever longer: it
    /// has the fewest mailboxes for that, which is no reason to give it the next.
    pub fn answered(&mut self, guard: &ShortId, taken: bool, refused: bool, now: Instant) {
        if !refused {
            // An answer to a withdrawal says nothing.
            self.refusing.retain(|it, _| it != guard || !taken);
            return;
        }
        let before = self.refusing.get(guard);
        if before.is_some_and(|it| now < it.until) {
            // Asked before it had answered the first.
            return;
        }
        let pause = before.map_or(FIRST_PAUSE, |it| LAST_PAUSE.min(it.pause * 2));
        // Guards that are none any more are forgotten.
        let fresh = |it: &Refusing| now.saturating_duration_since(it.until) < 2 * LAST_PAUSE;
        self.refusing.retain(|_, it| fresh(it));
        let until = now + pause;
        self.refusing.insert(*guard, Refusing { until, pause });
    }

    /// Until when a guard is left alone that has refused mailboxes, and has taken none since.
    #[must_use]
    pub fn refused_until(&self, guard: &ShortId) -> Option<Instant> {
        self.refusing.get(guard).map(|it| it.until)
    }

    /// The guards that have refused mailboxes, and have taken none since.
    pub fn refusing(&self) -> impl Iterator<Item = ShortId> {
        self.refusing.keys().copied()
    }

    /// Sends the registrations that are due to guards whose links work, and withdraws mailboxes
    /// that are no longer wanted. `grace`: seconds that relays go on delivering after a tail's end.
    pub fn register(
        &mut self,
        tails: &mut Tails,
        links: &Links,
        now: Now,
        grace: u64,
        outbox: &mut Outbox,
    ) {
        if tails.unregistered {
            for _ in 0..MESSAGES {
                if !self.register_some(tails, links, now, grace, outbox) {
                    break;
                }
            }
        }
        self.withdraw(tails, links, outbox);
    }

    /// One message to one guard; false if there is nothing to say.
    fn register_some(
        &mut self,
        tails: &mut Tails,
        links: &Links,
        now: Now,
        grace: u64,
        outbox: &mut Outbox,
    ) -> bool {
        let mut guard: Option<ShortId> = None;
        let mut tokens: Vec<(MailboxToken, u32)> = Vec::new();
        let mut left = false;
        let request = self.next;
        for (_, tail) in tails.iter_mut() {
            left |= tail.registration != Registration::Done;
            let here = guard.is_none_or(|guard| guard == tail.guard);
            if !here || !links.is_up(&tail.guard) || !tail.registration.is_due(now.instant) {
                continue;
            }
            if tokens.len() >= MAX_TOKENS {
                break;
            }
            guard = Some(tail.guard);
            tokens.push((tail.token, lifetime(tail.expires, now.unix(), grace)));
            tail.registration = match tail.registration {
                Registration::Needed => Registration::Sent {
                    request,
                    at: now.instant,
                    first: now.instant,
                },
                Registration::Sent { first, .. } => Registration::Sent {
                    request,
                    at: now.instant,
                    first,
                },
                Registration::Done | Registration::Again { .. } => Registration::Again {
                    sent: Some((request, now.instant)),
                },
            };
        }
        tails.unregistered = left;
        let Some(guard) = guard else { return false };
        self.next = self.next.wrapping_add(1);
        links.send_control(&guard, &Control::Register { request, tokens }, outbox);
        true
    }

    /// Told once and not acknowledged: a mailbox that outlives its tail holds nothing.
    fn withdraw(&mut self, tails: &mut Tails, links: &Links, outbox: &mut Outbox) {
        tails.dropped.retain(|(guard, _)| links.is_up(guard));
        while let Some((guard, _)) = tails.dropped.first().copied() {
            let mut tokens = Vec::new();
            tails.dropped.retain(|(at, token)| {
                let take = *at == guard && tokens.len() < MAX_TOKENS;
                if take {
                    tokens.push((*token, 0));
                }
                !take
            });
            let request = self.next;
            self.next = self.next.wrapping_add(1);
            links.send_control(&guard, &Control::Register { request, tokens }, outbox);
        }
    }
}

impl Tails {
    /// A guard has answered. Whether it has taken any mailbox, and the keys of tails whose mailboxes it
    /// refused, which are of no use.
    pub fn registered(
        &mut self,
        guard: &ShortId,
        request: u32,
        refused: &[MailboxToken],
    ) -> (bool, Vec<TailKey>) {
        let (mut taken, mut useless) = (false, Vec::new());
        for (key, tail) in self.iter_mut() {
            if tail.guard == *guard && tail.registration.request() == Some(request) {
                if refused.contains(&tail.token) {
                    useless.push(key);
                } else {
                    tail.registration = Registration::Done;
                    taken = true;
                }
            }
        }
        (taken, useless)
    }

    /// There is a new session with a guard, which may know nothing of what was.
    pub fn register_again(&mut self, guard: &ShortId) {
        for (_, tail) in self.iter_mut() {
            if tail.guard == *guard {
                tail.registration = match tail.registration {
                    Registration::Needed | Registration::Sent { .. } => Registration::Needed,
                    Registration::Done | Registration::Again { .. } => {
                        Registration::Again { sent: None }
                    }
                };
            }
        }
        self.unregistered = true;
    }

    /// Whether a guard says nothing to registrations.
    #[must_use]
    pub fn are_ignored_by(&self, guard: &ShortId, now: Instant) -> bool {
        let mut tails = self.iter();
        tails.any(|(_, tail)| tail.guard == *guard && tail.registration.is_ignored(now))
    }

    /// Whether a guard has been asked for a mailbox, or is to be, and has not said that it takes it.
    #[must_use]
    pub fn any_asked_of(&self, guard: &ShortId) -> bool {
        let mut tails = self.iter();
        tails.any(|(_, tail)| tail.guard == *guard && !tail.registration.is_done())
    }

    /// How many mailboxes a guard has.
    #[must_use]
    pub fn at_guard(&self, guard: &ShortId) -> usize {
        self.iter().filter(|(_, tail)| tail.guard == *guard).count()
    }

    /// Whether a guard takes one more mailbox.
    #[must_use]
    pub fn has_room_at(&self, guard: &ShortId) -> bool {
        self.at_guard(guard) < MAX_TOKENS_PER_LINK
    }

    /// How many tails end at a guard that are not to be replaced: those that are have lost their relays, as a
    /// rule this guard itself, and say nothing of where failures would meet.
    #[must_use]
    pub fn good_at(&self, guard: &ShortId, now: UnixTime) -> usize {
        let good = |tail: &Tail| tail.draining.is_none() && now < tail.renew;
        let here = self.iter().filter(|(_, tail)| tail.guard == *guard);
        here.filter(|(_, tail)| good(tail)).count()
    }
}

fn lifetime(expires: UnixTime, now: UnixTime, grace: u64) -> u32 {
    u32::try_from(expires.plus(grace).since(now).max(1)).unwrap_or(u32::MAX)
}
