//! Registering mailboxes at guards, until the guards have said that they are.

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::control::{Control, MAX_TOKENS, MAX_TOKENS_PER_LINK};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::time::UnixTime;

use crate::clock::Now;
use crate::guard_links::Links;
use crate::keys::TailKey;
use crate::outbox::Outbox;
use crate::tails::Tails;
use crate::tails::registration::Registration;

/// One call sends at most so many registrations; the others follow with the next.
const MESSAGES: usize = 16;

/// Numbers registrations.
#[derive(Debug, Default)]
pub struct Mailboxes {
    next: u32,
}

impl Mailboxes {
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
                Registration::Needed | Registration::Sent { .. } => Registration::Sent {
                    request,
                    at: now.instant,
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
    /// A guard has answered. The keys of tails whose mailboxes it refused, which are of no use.
    pub fn registered(
        &mut self,
        guard: &ShortId,
        request: u32,
        refused: &[MailboxToken],
    ) -> Vec<TailKey> {
        let mut useless = Vec::new();
        for (key, tail) in self.iter_mut() {
            if tail.guard == *guard && tail.registration.request() == Some(request) {
                if refused.contains(&tail.token) {
                    useless.push(key);
                } else {
                    tail.registration = Registration::Done;
                }
            }
        }
        useless
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

    /// How many mailboxes a guard has, and whether it takes one more.
    #[must_use]
    pub fn at_guard(&self, guard: &ShortId) -> (usize, bool) {
        let count = self.iter().filter(|(_, tail)| tail.guard == *guard).count();
        (count, count < MAX_TOKENS_PER_LINK)
    }
}

fn lifetime(expires: UnixTime, now: UnixTime, grace: u64) -> u32 {
    u32::try_from(expires.plus(grace).since(now).max(1)).unwrap_or(u32::MAX)
}
