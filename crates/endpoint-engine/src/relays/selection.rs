//! Drawing the relays of a head or tail.
//!
//! A guard stands at the outer end. The others are drawn at random, weighted by capacity; no
//! two of one head or tail are from one /16 (IPv4), one /32 (IPv6) or one family. Something
//! may speak against a relay: that paths through it have failed, that the peer's other paths use
//! it already, that it is another of the own guards. Those against which least does are taken; a
//! small network is better used than refused.

use std::fmt;

use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{Hop, MAX_SEGMENT};
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;

use crate::random::{below, shuffle};
use crate::relays::network::{Network, Relay};

/// What speaks against a relay for each path through it that does not answer, or has failed: as
/// much as three paths that share it.
pub const FAILED: u8 = 6;
/// What speaks against an own guard in the middle of a path: it sees this client already.
pub const OWN_GUARD: u8 = 3;
/// What speaks against a relay for each path or tail beside the new one that it is in: what
/// fails should fail alone.
pub const SHARED: u8 = 2;

/// Draws before the search becomes systematic.
const DRAWS: usize = 20;
/// The systematic search takes at most so many steps.
const MAX_STEPS: usize = 20_000;

/// The network does not have enough relays for what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Relays asked for.
    pub wanted: usize,
    /// The most that go together, as far as the search found out.
    pub found: usize,
    /// Relays in the snapshot.
    pub listed: usize,
    /// Those of them with an onion key that can be used now.
    pub usable: usize,
}

impl std::error::Error for Shortage {}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.wanted.saturating_sub(self.found);
        let Self {
            wanted,
            found,
            listed,
            usable,
        } = self;
        write!(
            f,
            "the network is too small: {wanted} relays in different /16 (IPv4), /32 (IPv6) and \
             families are needed and only {found} go together ({listed} are listed, {usable} of \
             them usable now); {missing} more needed"
        )
    }
}

/// A head or tail that can be built: relays from the guard inwards, and when it ends.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Guard first.
    pub hops: Vec<Hop>,
    /// When the first of the hops' keys ends.
    pub expires: UnixTime,
}

/// Draws `length` relays that begin with `guard`.
///
/// `penalty` says what speaks against a relay: those with a higher one are taken only if there
/// are not enough others.
///
/// # Errors
/// [`Shortage`] if there are not as many.
pub fn choose(
    network: &Network,
    guard: &ShortId,
    length: usize,
    now: UnixTime,
    penalty: impl Fn(&ShortId) -> u8,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Chosen, Shortage> {
    let usable: Vec<(&Relay, u8)> = network
        .relays()
        .iter()
        .filter(|relay| network.hop(relay, now).is_some())
        .map(|relay| (relay, penalty(&relay.short)))
        .collect();
    let shortage = |found| Shortage {
        wanted: length,
        found,
        listed: network.relays().len(),
        usable: usable.len(),
    };
    let Some((first, _)) = usable.iter().find(|(relay, _)| relay.short == *guard) else {
        return Err(shortage(0));
    };
    let mut best = 0;
    let mut penalties: Vec<u8> = usable.iter().map(|(_, penalty)| *penalty).collect();
    penalties.sort_unstable();
    penalties.dedup();
    for worst in penalties {
        let allowed: Vec<&Relay> = usable
            .iter()
            .filter(|(relay, penalty)| !relay.conflicts(first) && *penalty <= worst)
            .map(|(relay, _)| *relay)
            .collect();
        match complete(first, &allowed, length.min(MAX_SEGMENT), rng) {
            Ok(relays) => {
                let hops: Option<Vec<(Hop, u32)>> =
                    relays.iter().map(|relay| network.hop(relay, now)).collect();
                let hops = hops.ok_or_else(|| shortage(0))?;
                let expires = network.expiry(hops.iter().map(|(_, epoch)| *epoch));
                return Ok(Chosen {
                    hops: hops.into_iter().map(|(hop, _)| hop).collect(),
                    expires,
                });
            }
            Err(found) => best = best.max(found),
        }
    }
    Err(shortage(best))
}

/// Draws a guard that goes with none of `others`; by weight.
pub fn choose_guard<'n>(
    network: &'n Network,
    now: UnixTime,
    allowed: impl Fn(&Relay) -> bool,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Option<&'n Relay> {
    let candidates: Vec<&Relay> = network
        .relays()
        .iter()
        .filter(|relay| network.hop(relay, now).is_some() && allowed(relay))
        .collect();
    draw(&candidates, rng)
}

/// `first` and relays from `allowed`, none in conflict with another, `length` in all. Otherwise
/// the most that went together.
fn complete<'n>(
    first: &'n Relay,
    allowed: &[&'n Relay],
    length: usize,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<&'n Relay>, usize> {
    let mut best = 1;
    for _ in 0..DRAWS {
        let mut chosen = vec![first];
        let mut left = allowed.to_vec();
        while chosen.len() < length {
            let Some(next) = draw(&left, rng) else { break };
            chosen.push(next);
            left.retain(|relay| !relay.conflicts(next));
        }
        if chosen.len() >= length {
            return Ok(chosen);
        }
        best = best.max(chosen.len());
    }
    // Drawing runs into dead ends where few relays are left, or where one of them conflicts
    // with all others. Whether enough go together at all is found out by trying.
    let mut chosen = vec![first];
    let mut steps = 0;
    if search(&mut chosen, allowed, length, &mut steps, &mut best) {
        // The inner relays may be in any order; chance decides.
        shuffle(&mut chosen[1..], rng);
        return Ok(chosen);
    }
    Err(best)
}

fn search<'n>(
    chosen: &mut Vec<&'n Relay>,
    allowed: &[&'n Relay],
    length: usize,
    steps: &mut usize,
    best: &mut usize,
) -> bool {
    *best = (*best).max(chosen.len());
    if chosen.len() >= length {
        return true;
    }
    for (at, relay) in allowed.iter().copied().enumerate() {
        *steps += 1;
        if *steps > MAX_STEPS {
            return false;
        }
        if chosen.iter().any(|other| relay.conflicts(other)) {
            continue;
        }
        chosen.push(relay);
        if search(chosen, &allowed[at + 1..], length, steps, best) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// One of the relays, by weight.
fn draw<'n>(relays: &[&'n Relay], rng: &mut (impl CryptoRng + ?Sized)) -> Option<&'n Relay> {
    let total: u64 = relays.iter().map(|relay| relay.weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = below(total, rng);
    relays.iter().copied().find(|relay| {
        let here = at < relay.weight;
        at = at.saturating_sub(relay.weight);
        here
    })
}
