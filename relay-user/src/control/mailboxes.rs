//! Which client gets the cells of which mailbox token.
//!
//! A token is bound to the link key of the neighbour that registered it first, for as long as it is
//! registered: nobody takes over another's. A client keeps its tokens over a new session
//! of the same key, and loses them when it says that it goes, or stays away.
//!
//! A link key costs nothing, so tokens are shared between the networks that neighbours are in
//! ([`Shares`]). Half of them are for the first few of each key: who has many leaves those to others. Where
//! few of the other half are left, a key gets no more than [`CHEAP_TOKENS`] without effort.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::effort::Effort;
use mixline_protocol::link::control::MAX_TOKENS_PER_LINK;
use mixline_protocol::path::MailboxToken;
use mixline_protocol::shares::{Claimant, Shares};

use super::price::{pays, price};

/// Tokens that all clients of a relay hold together: some 20 MiB for each worker.
pub const MAX_TOKENS_TOTAL: usize = 262_144;
/// Of these, those that are for the first of each link key ...
const FIRST_TOKENS_TOTAL: usize = MAX_TOKENS_TOTAL / 2;
/// ... of which there are so many: more than most clients ever have.
const FIRST_TOKENS: usize = 128;
/// Where tokens are few, more than this for one link key cost effort.
pub const CHEAP_TOKENS: usize = 256;
/// The longest that a token is registered at a time: the longest life of a tail.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(25 * 3600);

/// Tokens and their neighbours.
#[derive(Debug)]
pub struct Mailboxes {
    tokens: HashMap<MailboxToken, Held>,
    of: HashMap<u32, HashSet<MailboxToken>>,
    shares: Shares,
}

/// A token that is registered.
#[derive(Debug)]
struct Held {
    neighbour: u32,
    until: Instant,
    /// Whose share it is of.
    claimant: Claimant,
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

impl Default for Mailboxes {
    fn default() -> Self {
        Self {
            tokens: HashMap::new(),
            of: HashMap::new(),
            shares: Shares::new(MAX_TOKENS_TOTAL, FIRST_TOKENS_TOTAL),
        }
    }
}

impl Mailboxes {
    /// Registers tokens for a neighbour that is at `ip`, and has shown this effort, or renews them. A
    /// life of zero ends one.
    pub fn register(
        &mut self,
        neighbour: u32,
        ip: IpAddr,
        effort: Effort,
        tokens: &[(MailboxToken, u32)],
        now: Instant,
    ) -> Registration {
        let mut out = Registration::default();
        for (token, seconds) in tokens {
            let life = Duration::from_secs((*seconds).into()).min(MAX_TOKEN_LIFE);
            let held = self.of.get(&neighbour).map_or(0, HashSet::len);
            match self.tokens.entry(*token) {
                Entry::Occupied(mut known) => {
                    if known.get().neighbour != neighbour {
                        out.refused.push(*token);
                    } else if *seconds == 0 {
                        self.shares.give_back(known.remove().claimant);
                        self.forget(neighbour, token);
                        out.removed.push(*token);
                    } else {
                        let known = known.get_mut();
                        known.until = now + life;
                        known.claimant = moved(&mut self.shares, known.claimant, ip);
                    }
                }
                Entry::Vacant(_) if *seconds == 0 => {}
                Entry::Vacant(vacant) => match claim(&mut self.shares, ip, effort, held) {
                    Some(claimant) => {
                        vacant.insert(Held {
                            neighbour,
                            until: now + life,
                            claimant,
                        });
                        self.of.entry(neighbour).or_default().insert(*token);
                        out.added.push(*token);
                    }
                    None => out.refused.push(*token),
                },
            }
        }
        out
    }

    /// Ends all registrations of a neighbour; which.
    pub fn remove_all(&mut self, neighbour: u32) -> Vec<MailboxToken> {
        let tokens: Vec<_> = self.of.remove(&neighbour).into_iter().flatten().collect();
        for token in &tokens {
            if let Some(held) = self.tokens.remove(token) {
                self.shares.give_back(held.claimant);
            }
        }
        tokens
    }

    /// Ends registrations whose time is over; which. Looks at all.
    pub fn expire(&mut self, now: Instant) -> Vec<MailboxToken> {
        let expired: Vec<(MailboxToken, Held)> = self
            .tokens
            .extract_if(|_, held| held.until <= now)
            .collect();
        for (token, held) in &expired {
            self.shares.give_back(held.claimant);
            self.forget(held.neighbour, token);
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

    /// How many more there could be beyond the first of each key, and of how many.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        self.shares.room()
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

/// Takes one more for a link key that has so many, and has shown this effort; of whose share.
fn claim(shares: &mut Shares, ip: IpAddr, effort: Effort, held: usize) -> Option<Claimant> {
    let dear = held >= CHEAP_TOKENS && !pays(effort, price(shares.room()));
    if held >= MAX_TOKENS_PER_LINK || dear {
        return None;
    }
    let first = (held < FIRST_TOKENS).then_some(Claimant::Known(ip));
    let mut claimants = first.into_iter().chain([Claimant::Stranger(ip)]);
    claimants.find(|claimant| shares.take(*claimant))
}

/// A token's neighbour is at `ip` now: it counts there, unless that network has its share.
fn moved(shares: &mut Shares, from: Claimant, ip: IpAddr) -> Claimant {
    let to = match from {
        Claimant::Known(_) => Claimant::Known(ip),
        Claimant::Stranger(_) => Claimant::Stranger(ip),
        Claimant::Own => Claimant::Own,
    };
    if to == from || !shares.exchange(from, to) {
        from
    } else {
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn token(n: u32) -> MailboxToken {
        MailboxToken(u64::from(n).to_be_bytes())
    }

    #[test]
    fn a_token_has_one_owner() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let first = boxes.register(1, HERE, 0, &[(token(7), 60)], now);
        assert_eq!(first.added, [token(7)]);
        assert_eq!(
            boxes.register(2, HERE, 0, &[(token(7), 60)], now).refused,
            [token(7)]
        );
        assert_eq!(
            boxes.register(2, HERE, 0, &[(token(7), 0)], now).refused,
            [token(7)]
        );
        // Renewing is not adding.
        assert_eq!(
            boxes.register(1, HERE, 0, &[(token(7), 90)], now),
            Registration::default()
        );
        assert!(boxes.expire(now + Duration::from_secs(89)).is_empty());
        assert_eq!(boxes.expire(now + Duration::from_secs(90)), [token(7)]);
        assert_eq!(
            boxes.register(2, HERE, 0, &[(token(7), 60)], now).added,
            [token(7)]
        );
        assert_eq!(
            boxes.register(2, HERE, 0, &[(token(7), 0)], now).removed,
            [token(7)]
        );
        assert!(boxes.len() == 0 && !boxes.has_any(1) && !boxes.has_any(2));
    }

    #[test]
    fn bounds() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let most = MAX_TOKENS_PER_LINK as u32;
        let tokens: Vec<_> = (0..=most).map(|n| (token(n), u32::MAX)).collect();
        let done = boxes.register(1, HERE, 0, &tokens, now);
        assert_eq!(done.added.len(), MAX_TOKENS_PER_LINK);
        assert_eq!(done.refused, [token(most)]);
        assert_eq!(
            boxes.expire(now + MAX_TOKEN_LIFE).len(),
            MAX_TOKENS_PER_LINK
        );
    }

    #[test]
    fn tokens_are_shared_by_network() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let mut next = 0;
        let mut take = |boxes: &mut Mailboxes, neighbour, ip: [u8; 4], count| {
            let tokens: Vec<_> = (next..next + count).map(|n| (token(n), 60)).collect();
            next += count;
            boxes
                .register(neighbour, ip.into(), 0, &tokens, now)
                .added
                .len()
        };
        // As many keys of one address as would take all.
        for neighbour in 0..64 {
            let first = take(&mut boxes, neighbour, [192, 0, 2, 1], 4096);
            assert!(first >= FIRST_TOKENS);
        }
        let held = boxes.len();
        assert!(held <= MAX_TOKENS_TOTAL / 4, "{held}");
        for (n, ip) in [[198, 51, 100, 1], [192, 0, 2, 2], [192, 0, 2, 1]]
            .into_iter()
            .enumerate()
        {
            assert_eq!(take(&mut boxes, 100 + n as u32, ip, 100), 100);
        }
        // Many networks leave as many to each key that has few.
        for neighbour in 1000..1200 {
            take(
                &mut boxes,
                neighbour,
                [neighbour.to_be_bytes()[3], 9, 9, 9],
                4096,
            );
        }
        assert!(boxes.len() > MAX_TOKENS_TOTAL / 2);
        assert_eq!(take(&mut boxes, 2000, [203, 0, 113, 1], 100), 100);
        // Nothing is left of those that go.
        for neighbour in 0..3000 {
            boxes.remove_all(neighbour);
        }
        assert_eq!((boxes.len(), boxes.shares.taken()), (0, 0));
    }

    #[test]
    fn where_tokens_are_few_many_of_them_cost_effort() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let mut next = 0;
        let mut take = |boxes: &mut Mailboxes, neighbour: u32, effort| {
            let tokens: Vec<_> = (next..next + 4096).map(|n| (token(n), 60)).collect();
            next += 4096;
            let [_, _, a, b] = neighbour.to_be_bytes();
            let ip = IpAddr::from([a, b, 9, 9]);
            let taken = boxes.register(neighbour, ip, effort, &tokens, now);
            taken.added.len()
        };
        // From everywhere, as long as there are many.
        let mut neighbours = 256..;
        while price(boxes.room()) == 0 {
            take(&mut boxes, neighbours.next().unwrap(), 0);
        }
        assert_eq!(take(&mut boxes, 10_000, 0), CHEAP_TOKENS);
        let effort = 4 * price(boxes.room());
        assert_eq!(take(&mut boxes, 20_000, effort), 4096);
        let few = (0..40).map(|n| take(&mut boxes, 30_000 + 256 * n, 0)).max();
        assert_eq!(few, Some(CHEAP_TOKENS));
    }

    #[test]
    fn tokens_count_where_their_neighbour_is() {
        let (mut boxes, now) = (Mailboxes::default(), Instant::now());
        let tokens: Vec<_> = (0..4096).map(|n| (token(n), 60)).collect();
        let there = IpAddr::from([198, 51, 100, 1]);
        boxes.register(1, HERE, 0, &tokens, now);
        boxes.register(1, there, 0, &tokens, now);
        assert!(boxes.tokens.values().all(|held| {
            [Claimant::Known(there), Claimant::Stranger(there)].contains(&held.claimant)
        }));
        boxes.expire(now + Duration::from_secs(60));
        assert_eq!((boxes.len(), boxes.shares.taken()), (0, 0));
    }
}
