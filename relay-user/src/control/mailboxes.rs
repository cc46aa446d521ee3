//! Which client gets the cells of which mailbox token.
//!
//! A token is bound to the link key of the neighbour that registered it first, for as long as it is
//! registered: nobody takes over another's. A client keeps its tokens over a new session
//! of the same key, and loses them when it says that it goes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use mixline_protocol::link::control::MAX_TOKENS_PER_LINK;
use mixline_protocol::path::MailboxToken;

/// Tokens that all clients of a relay hold together: some 20 MiB for each worker.
pub const MAX_TOKENS_TOTAL: usize = 262_144;
/// The longest that a token is registered at a time: the longest life of a tail.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(25 * 3600);

/// Tokens and their neighbours.
#[derive(Debug, Default)]
pub struct Mailboxes {
    tokens: HashMap<MailboxToken, (u32, Instant)>,
    of: HashMap<u32, HashSet<MailboxToken>>,
}

/// What a registration changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Registered, and not before.
    pub added: Vec<MailboxToken>,
    /// Registered no longer.
    pub removed: Vec<MailboxToken>,
    /// Not registered: another's, or one too many.
    pub refused: Vec<MailboxToken>,
}

impl Mailboxes {
    /// Registers tokens for a neighbour, or renews them. A life of zero ends one.
    pub fn register(
        &mut self,
        neighbour: u32,
        tokens: &[(MailboxToken, u32)],
        now: Instant,
    ) -> Registration {
        let mut out = Registration::default();
        for (token, seconds) in tokens {
            let life = Duration::from_secs((*seconds).into()).min(MAX_TOKEN_LIFE);
            let total = self.tokens.len();
            let held = self.of.get(&neighbour).map_or(0, HashSet::len);
            match self.tokens.entry(*token) {
                Entry::Occupied(mut known) => {
                    if known.get().0 != neighbour {
                        out.refused.push(*token);
                    } else if *seconds == 0 {
                        known.remove();
                        self.forget(neighbour, token);
                        out.removed.push(*token);
                    } else {
                        known.get_mut().1 = now + life;
                    }
                }
                Entry::Vacant(_) if *seconds == 0 => {}
                Entry::Vacant(vacant) => {
                    if held >= MAX_TOKENS_PER_LINK || total >= MAX_TOKENS_TOTAL {
                        out.refused.push(*token);
                    } else {
                        vacant.insert((neighbour, now + life));
                        self.of.entry(neighbour).or_default().insert(*token);
                        out.added.push(*token);
                    }
                }
            }
        }
        out
    }

    /// Ends all registrations of a neighbour; which.
    pub fn remove_all(&mut self, neighbour: u32) -> Vec<MailboxToken> {
        let tokens: Vec<_> = self.of.remove(&neighbour).into_iter().flatten().collect();
        for token in &tokens {
            self.tokens.remove(token);
        }
        tokens
    }

    /// Ends registrations whose time is over; which. Looks at all.
    pub fn expire(&mut self, now: Instant) -> Vec<MailboxToken> {
        let expired: Vec<(MailboxToken, u32)> = self
            .tokens
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(token, (neighbour, _))| (*token, *neighbour))
            .collect();
        for (token, neighbour) in &expired {
            self.tokens.remove(token);
            self.forget(*neighbour, token);
        }
        expired.into_iter().map(|(token, _)| token).collect()
    }

    /// Whether a neighbour has any.
    #[must_use]
    pub fn has_any(&self, neighbour: u32) -> bool {
        self.of.contains_key(&neighbour)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    fn forget(&mut self, neighbour: u32, token: &MailboxToken) {
        if let Some(tokens) = self.of.get_mut(&neighbour) {
            tokens.remove(token);
            if tokens.is_empty() {
                self.of.remove(&neighbour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u32) -> MailboxToken {
        MailboxToken(u64::from(n).to_be_bytes())
    }

    #[test]
    fn a_token_has_one_owner() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let first = boxes.register(1, &[(token(7), 60)], now);
        assert_eq!(first.added, [token(7)]);
        assert_eq!(
            boxes.register(2, &[(token(7), 60)], now).refused,
            [token(7)]
        );
        assert_eq!(boxes.register(2, &[(token(7), 0)], now).refused, [token(7)]);
        // Renewing is not adding.
        assert_eq!(
            boxes.register(1, &[(token(7), 90)], now),
            Registration::default()
        );
        assert!(boxes.expire(now + Duration::from_secs(89)).is_empty());
        assert_eq!(boxes.expire(now + Duration::from_secs(90)), [token(7)]);
        assert_eq!(boxes.register(2, &[(token(7), 60)], now).added, [token(7)]);
        assert_eq!(boxes.register(2, &[(token(7), 0)], now).removed, [token(7)]);
        assert!(boxes.len() == 0 && !boxes.has_any(1) && !boxes.has_any(2));
    }

    #[test]
    fn bounds() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let most = MAX_TOKENS_PER_LINK as u32;
        let tokens: Vec<_> = (0..=most).map(|n| (token(n), u32::MAX)).collect();
        let done = boxes.register(1, &tokens, now);
        assert_eq!(done.added.len(), MAX_TOKENS_PER_LINK);
        assert_eq!(done.refused, [token(most)]);
        assert_eq!(
            boxes.expire(now + MAX_TOKEN_LIFE).len(),
            MAX_TOKENS_PER_LINK
        );
        for neighbour in 0..=(MAX_TOKENS_TOTAL / MAX_TOKENS_PER_LINK) as u32 {
            let base = neighbour * most;
            let tokens: Vec<_> = (0..most).map(|n| (token(base + n), 60)).collect();
            boxes.register(neighbour, &tokens, now);
        }
        assert_eq!(boxes.len(), MAX_TOKENS_TOTAL);
        assert_eq!(boxes.remove_all(3).len(), MAX_TOKENS_PER_LINK);
        assert_eq!(boxes.len(), MAX_TOKENS_TOTAL - MAX_TOKENS_PER_LINK);
    }
}
