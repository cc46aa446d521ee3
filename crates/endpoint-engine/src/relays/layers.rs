//! The relays next to the guards, which are few and kept, too.
//!
//! A peer can make this endpoint build heads and tails again and again: it opens sessions, names other
//! tails, or answers nothing. Were the relay next to the guard drawn each time, one of the peer's own
//! would soon stand there, see the guard, and recognise the peer's own traffic by its timing. So the
//! relays for the second place are drawn beforehand, and each is kept for days: the *second layer*
//! (Tor's proposals 292 and 333 have the idea, and the lives). Who insists sees these few, and has to
//! wait until one of them is replaced by his.
//!
//! Services whose heads or tails have four relays have a *third layer*, of more relays that are kept for
//! hours. So those of the second layer are not seen by everybody who is drawn for a junction.
//!
//! As with guards, a member that is gone is waited for, since it may have been taken down in order
//! that another takes its place. Meanwhile the other members serve; where fewer than two are left for a
//! guard, substitutes help out, which are bounded and remembered as well.

use mixline_protocol::identity::ShortId;
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::random::below;
use crate::relays::network::{Network, Relay};
use crate::relays::relay_text::{self, Remembered};
use crate::relays::selection::{can_complete, draw};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// So many members serve each guard, if there are as many: one that fails must not be the end of all
/// paths over the guard.
const ENOUGH: usize = 2;

/// So many relays are tried for one place: nearly all fit, and where they do not, the next time is soon.
const TRIES: usize = 256;

/// How large a layer is, and how long its members stay.
#[derive(Debug)]
pub struct Kind {
    /// Members.
    pub size: usize,
    /// At most so many substitutes beside them.
    pub substitutes: usize,
    /// A member is kept at least so long, seconds ...
    pub shortest: u64,
    /// ... and at most so long: the longer of two draws between the two.
    pub longest: u64,
    /// How long a member may be missing from the snapshots before another takes its place, seconds.
    pub gone: u64,
}

/// The second layer. Its lives are those of Tor's proposal 333, section 4.
pub const SECOND: Kind = Kind {
    size: 4,
    substitutes: 4,
    shortest: DAY,
    longest: 12 * DAY,
    gone: DAY,
};
/// The third layer. Its lives are those of the same proposal.
pub const THIRD: Kind = Kind {
    size: 8,
    substitutes: 4,
    shortest: HOUR,
    longest: 48 * HOUR,
    gone: 6 * HOUR,
};

/// One remembered member. Times are unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    #[serde(with = "relay_text")]
    relay: Remembered,
    until: u64,
    missing_since: Option<u64>,
}

impl Member {
    /// Which relay it is.
    #[must_use]
    pub fn relay(&self) -> ShortId {
        self.relay.short
    }

    /// Until when it is kept, unix seconds.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until
    }
}

/// What members are chosen for.
pub struct Needs<'n> {
    /// The guards in use that are in the snapshot.
    pub guards: Vec<&'n Relay>,
    /// Relays in the longest head or tail.
    pub length: usize,
    /// The time.
    pub now: UnixTime,
}

/// The members of one layer: the regular ones first, then substitutes.
pub struct Layer {
    kind: &'static Kind,
    members: Vec<Member>,
}

impl Layer {
    /// A layer without members.
    #[must_use]
    pub fn new(kind: &'static Kind) -> Self {
        let members = Vec::new();
        Self { kind, members }
    }

    /// A layer of members that were stored, as far as there is room for them.
    #[must_use]
    pub fn load(kind: &'static Kind, stored: Vec<Member>) -> Self {
        let mut layer = Self::new(kind);
        for member in stored {
            let known = layer.members.iter().any(|it| it.relay == member.relay);
            if layer.members.len() < kind.size + kind.substitutes && !known {
                layer.members.push(member);
            }
        }
        layer
    }

    /// The members as they are to be stored.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The members, and whether each is a substitute.
    pub fn views(&self) -> impl Iterator<Item = (&Member, bool)> {
        let members = self.members.iter().enumerate();
        members.map(|(at, member)| (member, at >= self.kind.size))
    }

    /// Whether a relay is a member.
    #[must_use]
    pub fn contains(&self, relay: &ShortId) -> bool {
        self.members.iter().any(|it| it.relay.short == *relay)
    }

    /// The members with which a head or tail of `length` relays behind a guard can be made: the regular
    /// ones, and as many substitutes as are needed. `usable`: the relays that can be used now.
    #[must_use]
    pub fn serving(&self, usable: &[&Relay], guard: &Relay, length: usize) -> Vec<ShortId> {
        let mut serving = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            if at >= self.kind.size && serving.len() >= ENOUGH {
                break;
            }
            if let Some(relay) = usable
                .iter()
                .find(|it| it.short == member.relay.short && it.id == member.relay.id)
                && can_complete(&[guard, relay], usable, length)
            {
                serving.push(relay.short);
            }
        }
        serving
    }

    /// Lets members go whose time is over, and chooses those that are missing. Whether anything is to be
    /// stored.
    pub fn update(
        &mut self,
        network: &Network,
        needs: &Needs<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> bool {
        let unix = needs.now.0;
        let mut changed = false;
        for member in &mut self.members {
            member.until = member.until.min(unix.saturating_add(self.kind.longest));
            let missing = network.relay_of(&member.relay.id).is_none();
            if missing != member.missing_since.is_some() {
                member.missing_since = missing.then_some(unix);
                changed = true;
            }
        }
        let before = self.members.len();
        let gone = self.kind.gone;
        self.members.retain(|member| {
            let gone = |since: u64| unix >= since.saturating_add(gone);
            unix < member.until && !member.missing_since.is_some_and(gone)
        });
        changed |= self.members.len() != before;
        let usable = network.usable(needs.now);
        while self.members.len() < self.kind.size && self.add(network, &usable, needs, None, rng) {
            changed = true;
        }
        let most = self.kind.size + self.kind.substitutes;
        // One for each guard comes before a second one for any.
        for enough in 1..=ENOUGH {
            for guard in &needs.guards {
                while self.members.len() < most
                    && self.serving(&usable, guard, needs.length).len() < enough
                    && self.add(network, &usable, needs, Some(guard), rng)
                {
                    changed = true;
                }
            }
        }
        changed
    }

    /// Draws one more member by weight, one that can stand beside `guard` if that is given. One that can
    /// stand beside all guards, and in one path with no other member, comes first. False if there is none.
    fn add(
        &mut self,
        network: &Network,
        usable: &[&Relay],
        needs: &Needs<'_>,
        guard: Option<&Relay>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> bool {
        let known: Vec<&Relay> = self
            .members
            .iter()
            .filter_map(|member| network.relay_of(&member.relay.id))
            .collect();
        let speaks_against = |relay: &Relay| {
            let conflicts = |others: &[&Relay]| others.iter().any(|it| it.conflicts(relay));
            2 * u8::from(conflicts(&needs.guards)) + u8::from(conflicts(&known))
        };
        let mut candidates: Vec<(u8, &Relay)> = usable
            .iter()
            .filter(|relay| !self.contains(&relay.short))
            .filter(|relay| guard.is_none_or(|guard| !guard.conflicts(relay)))
            .map(|relay| (speaks_against(relay), *relay))
            .collect();
        let mut guards = guard.map_or_else(|| needs.guards.clone(), |guard| vec![guard]);
        // Those behind which nothing can be built at all need nobody.
        guards.retain(|guard| can_complete(&[*guard], usable, needs.length));
        if guards.is_empty() {
            return false;
        }
        for _ in 0..TRIES {
            let Some(least) = candidates.iter().map(|(against, _)| *against).min() else {
                break;
            };
            let best: Vec<&Relay> = candidates
                .iter()
                .filter(|(against, _)| *against == least)
                .map(|(_, relay)| *relay)
                .collect();
            let Some(relay) = draw(&best, rng) else { break };
            let fits = |guard: &&Relay| can_complete(&[*guard, relay], usable, needs.length);
            if guards.iter().any(fits) {
                let life = self.life(rng);
                self.members.push(Member {
                    relay: relay.id.into(),
                    until: needs.now.plus(life).0,
                    missing_since: None,
                });
                return true;
            }
            candidates.retain(|(_, other)| other.short != relay.short);
        }
        false
    }

    /// How long a new member is kept: the longer of two uniform draws, so that few change soon.
    fn life(&self, rng: &mut (impl CryptoRng + ?Sized)) -> u64 {
        let spread = self.kind.longest - self.kind.shortest;
        self.kind.shortest + below(spread, rng).max(below(spread, rng))
    }
}
