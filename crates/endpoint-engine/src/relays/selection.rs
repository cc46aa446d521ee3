//! Drawing the relays of a head or tail.
//!
//! A guard stands at the outer end, and one of the few relays that are kept for that place next to it
//! ([`layers`](super::layers)). The others are drawn at random, weighted by capacity; no
//! two of one head or tail are from one /16 (IPv4), one /32 (IPv6) or one family. Something
//! may speak against a relay: that paths through it have failed, that the peer's other paths use
//! it already, that it is another of the own guards. Those against which least does are taken; a
//! small network is better used than refused.

use std::fmt;

use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{Hop, MAX_SEGMENT};
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;

use crate::clock::Now;
use crate::random::{below, shuffle};
use crate::relays::network::{Network, Relay};

/// What speaks against a relay for each path through it that does not answer, or has failed: as
/// much as three paths that share it.
pub const FAILED: u8 = 6;
/// What speaks against an own guard in the middle of a path: it sees this client already. So do those
/// that are kept for the place next to a guard, in a place where others see them.
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
    /// There would be others, but none of those that are kept for the place next to the guard is there.
    pub unkept: bool,
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
            unkept,
        } = self;
        if *unkept {
            return write!(
                f,
                "none of the relays that are kept for the place next to a guard is usable ({listed} \
                 relays are listed, {usable} of them usable now); others take their places within a day"
            );
        }
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
    /// Places behind the guard for which relays are kept, as far as those were taken.
    pub kept: usize,
}

impl Chosen {
    /// The relays in the free places.
    #[must_use]
    pub fn free(&self) -> Vec<ShortId> {
        let free = self.hops.iter().skip(1 + self.kept);
        free.map(|hop| hop.relay).collect()
    }
}

/// What is to be built.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The relay at the outer end.
    pub guard: &'a ShortId,
    /// The relays that the second place is drawn from, those that the third is, and so on; the
    /// places after those are free. Where those of the second do not go with those of the third, the third
    /// place is free, too; the second never is.
    pub layers: &'a [Vec<ShortId>],
    /// Relays in all.
    pub length: usize,
}

/// A place in a head or tail, as far as the relays for it differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One that few relays are kept for.
    Kept,
    /// One that any relay may be drawn for.
    Free,
}

/// Draws the relays of a plan.
///
/// `penalty` says what speaks against a relay in a place: those with a higher one are taken only if
/// there are not enough others, those with none never. Relays that are kept for a place are few, so
/// weight does not count among them any more.
///
/// # Errors
/// Which relays there are too few of.
pub fn choose(
    network: &Network,
    plan: Plan<'_>,
    now: UnixTime,
    penalty: impl Fn(Place, &ShortId) -> Option<u8>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Chosen, Shortage> {
    let length = plan.length.min(MAX_SEGMENT);
    let usable = network.usable(now);
    let shortage = |found, unkept| Shortage {
        wanted: plan.length,
        found,
        listed: network.relays().len(),
        usable: usable.len(),
        unkept,
    };
    let Some(first) = usable.iter().find(|relay| relay.short == *plan.guard) else {
        return Err(shortage(0, false));
    };
    let layers: Vec<Vec<&Relay>> = plan
        .layers
        .iter()
        .take(length.saturating_sub(1))
        .map(|members| {
            let mut layer: Vec<(&Relay, u8)> = usable
                .iter()
                .filter(|relay| members.contains(&relay.short))
                .filter_map(|relay| Some((*relay, penalty(Place::Kept, &relay.short)?)))
                .collect();
            shuffle(&mut layer, rng);
            layer.sort_by_key(|(_, penalty)| *penalty);
            layer.into_iter().map(|(relay, _)| relay).collect()
        })
        .collect();
    let free: Vec<(&Relay, u8)> = usable
        .iter()
        .filter_map(|relay| Some((*relay, penalty(Place::Free, &relay.short)?)))
        .collect();
    let mut best = 1;
    let mut chosen = vec![*first];
    let (mut built, mut kept) = (false, 0);
    for depth in (layers.len().min(1)..=layers.len()).rev() {
        let layers = &layers[..depth];
        if !built {
            built = fill(&mut chosen, layers, &free, length, &mut best, rng);
            kept = depth;
        }
    }
    if !built {
        // Is it the network that is too small?
        let enough = fill(&mut chosen, &[], &free, length, &mut best, rng);
        return Err(shortage(best, enough));
    }
    let hops: Option<Vec<(Hop, u32)>> =
        chosen.iter().map(|relay| network.hop(relay, now)).collect();
    let hops = hops.ok_or_else(|| shortage(0, false))?;
    let expires = network.expiry(hops.iter().map(|(_, epoch)| *epoch));
    Ok(Chosen {
        hops: hops.into_iter().map(|(hop, _)| hop).collect(),
        expires,
        kept,
    })
}

/// Draws the relays of a plan, for the free places only those that are allowed. Others come in only if it
/// cannot be built with these at all, because they are not listed any more: no peer brings that about.
///
/// # Errors
/// [`Shortage`] if there are not as many.
pub fn choose_within(
    network: &Network,
    plan: Plan<'_>,
    now: Now,
    penalty: impl Fn(Place, &ShortId) -> u8,
    allowed: impl Fn(&ShortId) -> bool,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Chosen, Shortage> {
    let within = |place, relay: &ShortId| {
        (place == Place::Kept || allowed(relay)).then(|| penalty(place, relay))
    };
    let any = |place, relay: &ShortId| Some(penalty(place, relay));
    let at = now.unix();
    choose(network, plan, at, within, rng).or_else(|_| choose(network, plan, at, any, rng))
}

/// Adds a relay of each layer to those that are chosen, and free ones up to `length`. Those of the
/// layers come in the order in which they are best.
fn fill<'n>(
    chosen: &mut Vec<&'n Relay>,
    layers: &[Vec<&'n Relay>],
    free: &[(&'n Relay, u8)],
    length: usize,
    best: &mut usize,
    rng: &mut (impl CryptoRng + ?Sized),
) -> bool {
    *best = chosen.len().max(*best);
    if let Some((layer, others)) = layers.split_first() {
        for relay in layer {
            if chosen.iter().any(|other| relay.conflicts(other)) {
                continue;
            }
            chosen.push(relay);
            if fill(chosen, others, free, length, best, rng) {
                return true;
            }
            chosen.pop();
        }
        return false;
    }
    let free: Vec<(&Relay, u8)> = free
        .iter()
        .filter(|(relay, _)| !chosen.iter().any(|other| relay.conflicts(other)))
        .copied()
        .collect();
    // What speaks against all of them, at least.
    let mut penalties: Vec<u8> = free.iter().map(|(_, penalty)| *penalty).collect();
    penalties.push(0);
    penalties.sort_unstable();
    penalties.dedup();
    for worst in penalties {
        let allowed: Vec<&Relay> = free
            .iter()
            .filter(|(_, penalty)| *penalty <= worst)
            .map(|(relay, _)| *relay)
            .collect();
        match complete(chosen, &allowed, length, rng) {
            Ok(all) => {
                *chosen = all;
                return true;
            }
            Err(found) => *best = found.max(*best),
        }
    }
    false
}

/// Whether there are relays with which these, in one head or tail, make `length`.
#[must_use]
pub fn can_complete(chosen: &[&Relay], allowed: &[&Relay], length: usize) -> bool {
    let apart = |at: usize| !chosen[..at].iter().any(|other| chosen[at].conflicts(other));
    (0..chosen.len()).all(apart) && search(&mut chosen.to_vec(), allowed, length, &mut 0, &mut 0)
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

/// Those that are chosen and relays from `allowed`, none in conflict with another, `length` in all.
/// Otherwise the most that went together.
fn complete<'n>(
    begun: &[&'n Relay],
    allowed: &[&'n Relay],
    length: usize,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<&'n Relay>, usize> {
    let mut best = begun.len();
    for _ in 0..DRAWS {
        let mut chosen = begun.to_vec();
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
    let mut chosen = begun.to_vec();
    let mut steps = 0;
    if search(&mut chosen, allowed, length, &mut steps, &mut best) {
        // Those that were not given may be in any order; chance decides.
        shuffle(&mut chosen[begun.len()..], rng);
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
pub(super) fn draw<'n>(
    relays: &[&'n Relay],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Option<&'n Relay> {
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
