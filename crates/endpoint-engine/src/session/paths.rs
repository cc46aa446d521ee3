//! Paths to a peer: an own head joined to a tail of the peer's, and whether it works.
//!
//! A path in use is probed every [`PROBE_EVERY`]; an idle one rarely, so that it is known to
//! work when it is needed. A path without an answer for [`SUSPECT_AFTER`] is used only if there
//! is no better one, and after [`DEAD_AFTER`] it is gone; sooner when paths have worked and none
//! does any more. The peer answers a probe over several of its own paths, so that what dies is
//! what failed.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{Head, Hop, TailId};
use mixline_protocol::time::UnixTime;

use crate::relays::key_changes::KeyChanges;
use crate::relays::network::Network;

/// Time between two probes of a path in use.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// Time between two probes of a path that is kept for later.
pub const WARM_EVERY: Duration = Duration::from_secs(15);
/// An answer that is this late makes a path suspect.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1100);
/// An answer that is this late makes a path dead.
pub const DEAD_AFTER: Duration = Duration::from_millis(2500);
/// The same when paths have worked and none does any more: one has to be found soon.
pub const DEAD_IN_TROUBLE: Duration = Duration::from_millis(1500);
/// So many probes must be unanswered as well.
pub const DEAD_PROBES: usize = 3;
/// A new path that has not answered for so long is then not counted on.
pub const PROVEN_WITHIN: Duration = Duration::from_millis(400);
/// At most so many paths lead to one peer, those on their way out included.
pub const MAX_PATHS: usize = 10;
/// Probes of one path that are remembered.
const OUTSTANDING: usize = 16;
/// Probes of buried paths that are remembered.
const LATE: usize = 64;
/// An answer to one of them that is later than this says nothing: a peer that answers no sooner
/// counts as unreachable, and one that wants to be waited for is not.
const TOO_LATE: Duration = Duration::from_secs(4);
/// How long a path that is to be replaced is kept beside its replacement.
pub const OVERLAP: Duration = Duration::from_secs(5);

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It has answered lately.
    Alive,
    /// It is new and has not answered yet.
    Unproven,
    /// It should have answered by now.
    Suspect,
}

/// One path.
pub struct Path {
    /// Names it within its session.
    pub id: u32,
    /// What cells are wrapped in.
    pub head: Head,
    /// The head's relays, the guard first.
    pub relays: Vec<ShortId>,
    /// The same with the keys that it was built for.
    pub hops: Vec<Hop>,
    /// One of them has started anew: if the path fails, that is why.
    pub explained: bool,
    /// The peer's tail.
    pub tail: TailId,
    /// The first relay of the tail.
    pub tail_first: ShortId,
    /// When it ends.
    pub expires: UnixTime,
    /// When it should be replaced.
    pub renew: UnixTime,
    /// Since when it is to be replaced.
    pub retiring: Option<Instant>,
    /// The link to its guard does not work at the moment.
    pub link_down: bool,
    /// Cells sent over it.
    pub cells: u64,
    /// Round trip, smoothed.
    pub rtt: Option<Duration>,
    /// That of other paths, as long as it has none of its own.
    expected: Option<Duration>,
    outstanding: ArrayVec<(u32, Instant), OUTSTANDING>,
    answered: bool,
    /// When the first probe was sent that has not been answered, if a later one has not either.
    unanswered: Option<Instant>,
    probed: Option<Instant>,
}

/// What a path is built from.
pub struct NewPath {
    /// The head, joined to the tail.
    pub head: Head,
    /// Its relays, the guard first, with the keys that it was built for.
    pub hops: Vec<Hop>,
    /// The tail.
    pub tail: TailId,
    /// The tail's first relay.
    pub tail_first: ShortId,
    /// When it ends.
    pub expires: UnixTime,
    /// When it should be replaced.
    pub renew: UnixTime,
}

impl Path {
    /// The last relay of the head, where the tail is joined on.
    #[must_use]
    pub fn junction(&self) -> Option<ShortId> {
        self.relays.last().copied()
    }

    /// The relay that cells are sent to.
    #[must_use]
    pub fn guard(&self) -> ShortId {
        self.head.first()
    }

    /// What is known of it.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        let late = self.silent(now) >= self.patience(SUSPECT_AFTER, 3);
        match (late || self.link_down, self.answered) {
            (true, _) => Health::Suspect,
            (false, true) => Health::Alive,
            (false, false) => Health::Unproven,
        }
    }

    /// How long to wait for an answer: so many round trips, and no less than `least`.
    fn patience(&self, least: Duration, trips: u32) -> Duration {
        let trip = self.rtt.or(self.expected);
        trip.map_or(least, |trip| least.max(trip * trips))
    }

    /// How long an answer has been waited for.
    fn silent(&self, now: Instant) -> Duration {
        self.unanswered
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether a probe is due.
    #[must_use]
    pub fn probe_due(&self, in_use: bool, now: Instant) -> bool {
        let every = if in_use || self.unanswered.is_some() || !self.answered {
            PROBE_EVERY
        } else {
            WARM_EVERY
        };
        self.probed
            .is_none_or(|probed| now.saturating_duration_since(probed) >= every)
    }

    /// A probe was sent.
    pub fn probe_sent(&mut self, id: u32, now: Instant) {
        if self.outstanding.is_full() {
            self.outstanding.remove(0);
        }
        self.outstanding.push((id, now));
        self.unanswered.get_or_insert(now);
        self.probed = Some(now);
    }

    /// The probes that were not answered.
    #[cfg(feature = "testing")]
    pub fn unanswered(&self) -> impl Iterator<Item = u32> {
        self.outstanding.iter().map(|(id, _)| *id)
    }

    /// Whether a probe went over it that has not been answered.
    fn sent(&self, id: u32) -> bool {
        self.outstanding.iter().any(|(sent, _)| *sent == id)
    }

    /// A probe was answered.
    fn answer(&mut self, id: u32, now: Instant) {
        let Some(at) = self.outstanding.iter().position(|(sent, _)| *sent == id) else {
            return;
        };
        let (_, sent) = self.outstanding[at];
        // An answer to a later probe says that the path works: the earlier ones were lost.
        self.outstanding.drain(..=at);
        self.unanswered = self.outstanding.first().map(|(_, sent)| *sent);
        self.answered = true;
        let rtt = now.saturating_duration_since(sent);
        self.rtt = Some(self.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
    }
}

/// The paths to one peer.
#[derive(Default)]
pub struct Paths {
    paths: Vec<Path>,
    next_id: u32,
    next_probe: u32,
    next_in_rotation: usize,
    /// Round trip over the path that answered last.
    rtt: Option<Duration>,
    /// That of the last handshake.
    handshake: Option<Duration>,
    /// Probes of paths that have been given up, the latest ones.
    late: ArrayVec<(u32, Instant), LATE>,
}

impl Paths {
    /// Adds a path and names it.
    pub fn add(&mut self, new: NewPath) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.paths.push(Path {
            id,
            head: new.head,
            relays: new.hops.iter().map(|hop| hop.relay).collect(),
            hops: new.hops,
            explained: false,
            tail: new.tail,
            tail_first: new.tail_first,
            expires: new.expires,
            renew: new.renew,
            retiring: None,
            link_down: false,
            cells: 0,
            rtt: None,
            expected: self.round_trip(),
            outstanding: ArrayVec::new(),
            answered: false,
            unanswered: None,
            probed: None,
        });
        id
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// All of them, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.iter_mut()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The path of an ID.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Path> {
        self.paths.iter().find(|path| path.id == id)
    }

    /// The path of an ID.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    /// Removes the paths for which `keep` is false.
    pub fn retain(&mut self, keep: impl FnMut(&Path) -> bool) {
        self.paths.retain(keep);
    }

    /// Paths of relays that have forgotten their onion keys are to be replaced: they lead nowhere.
    pub fn check_keys(&mut self, network: &Network, changes: &KeyChanges, now: Instant) {
        for path in &mut self.paths {
            for hop in path.hops.iter().filter(|hop| network.has_forgotten(hop)) {
                path.retiring.get_or_insert(now);
                path.explained |= changes.explain(&hop.relay);
            }
        }
    }

    /// Gives a path up.
    pub fn bury(&mut self, id: u32) -> Option<Path> {
        let at = self.paths.iter().position(|path| path.id == id)?;
        let path = self.paths.remove(at);
        for probe in &path.outstanding {
            if self.late.is_full() {
                self.late.remove(0);
            }
            self.late.push(*probe);
        }
        Some(path)
    }

    /// Makes the next probe of every path due at once.
    pub fn probe_soon(&mut self) {
        for path in &mut self.paths {
            path.probed = None;
        }
    }

    /// Round trip over the path that answered last; that of the handshake as long as none has.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.or(self.handshake)
    }

    /// A handshake was answered after so long.
    pub fn handshake_took(&mut self, trip: Duration) {
        self.handshake = Some(trip);
    }

    /// The probe that was named last.
    #[must_use]
    pub fn last_probe(&self) -> u32 {
        self.next_probe
    }

    /// Names the next probe.
    pub fn next_probe(&mut self) -> u32 {
        self.next_probe = self.next_probe.wrapping_add(1);
        self.next_probe
    }

    /// A probe was answered. The path that it went over, if that has only now begun to answer, or
    /// begun again.
    pub fn answer(&mut self, id: u32, now: Instant) -> Option<&Path> {
        if let Some(at) = self.paths.iter().position(|path| path.sent(id)) {
            let path = &mut self.paths[at];
            let before = path.health(now);
            path.answer(id, now);
            self.rtt = path.rtt;
            return (before != Health::Alive).then_some(&self.paths[at]);
        }
        // Too late for its path, but the others may be as slow.
        let at = self.late.iter().position(|(probe, _)| *probe == id)?;
        let (_, sent) = self.late.remove(at);
        let trip = now.saturating_duration_since(sent);
        if trip < TOO_LATE {
            self.rtt = Some(trip);
            for path in &mut self.paths {
                path.expected = self.rtt;
            }
        }
        None
    }

    /// Whether paths have worked, and none does any more.
    fn in_trouble(&self, now: Instant) -> bool {
        self.rtt.is_some() && !self.any_alive(now)
    }

    /// Those that have failed.
    pub fn dead(&self, now: Instant) -> impl Iterator<Item = &Path> {
        let trouble = self.in_trouble(now);
        let least = if trouble { DEAD_IN_TROUBLE } else { DEAD_AFTER };
        self.paths.iter().filter(move |path| {
            path.outstanding.len() >= DEAD_PROBES && path.silent(now) >= path.patience(least, 4)
        })
    }

    /// The program did not run for a while: what was not answered says nothing.
    pub fn forgive(&mut self) {
        for path in &mut self.paths {
            path.outstanding.clear();
            path.unanswered = None;
        }
    }

    /// The best of the paths for a flow: among the healthiest, the one that the flow's hash
    /// ranks first. A path that comes or goes moves only the flows that are on it (rendezvous
    /// hashing: Thaler and Ravishankar, 1998).
    #[must_use]
    pub fn for_flow(&self, hash: u64, now: Instant) -> Option<u32> {
        let rank = |path: &Path| {
            let wish = (path.retiring.is_some(), path.health(now));
            (
                std::cmp::Reverse(wish),
                mix(hash ^ u64::from(path.id).wrapping_mul(GOLDEN)),
            )
        };
        self.paths
            .iter()
            .max_by_key(|path| rank(path))
            .map(|path| path.id)
    }

    /// The next path in rotation, among the healthiest.
    pub fn next_path(&mut self, now: Instant) -> Option<u32> {
        let wish = |path: &Path| (path.retiring.is_some(), path.health(now));
        let best = self.paths.iter().map(wish).min()?;
        self.next_in_rotation = self.next_in_rotation.wrapping_add(1);
        let count = self.paths.iter().filter(|path| wish(path) == best).count();
        self.paths
            .iter()
            .filter(|path| wish(path) == best)
            .nth(self.next_in_rotation % count)
            .map(|p| p.id)
    }

    /// Up to `N` paths for copies of one cell, the healthiest first, that do not meet. Other
    /// guards come before guards that carry a copy already.
    #[must_use]
    pub fn apart<const N: usize>(&self, copies: usize, now: Instant) -> ArrayVec<u32, N> {
        let mut chosen: ArrayVec<&Path, N> = ArrayVec::new();
        while chosen.len() < copies.min(N) {
            let left = self
                .paths
                .iter()
                .filter(|path| chosen.iter().all(|c| c.tail != path.tail));
            let next = left.min_by_key(|path| {
                let shares = chosen.iter().filter(|c| c.guard() == path.guard()).count();
                (path.health(now), path.retiring.is_some(), shares, path.id)
            });
            // Suspect paths are worth copies only if nothing better carries one.
            let better = chosen
                .first()
                .is_some_and(|c| c.health(now) != Health::Suspect);
            match next {
                Some(path) if !better || path.health(now) != Health::Suspect => chosen.push(path),
                _ => break,
            }
        }
        chosen.iter().map(|path| path.id).collect()
    }

    /// Two paths share a tail although another could be used: the later of them is to be
    /// replaced, if none is being replaced now.
    pub fn spread(&mut self, unused_tails: bool, now: Instant) {
        if !unused_tails || self.paths.iter().any(|path| path.retiring.is_some()) {
            return;
        }
        let shares = |at: &usize| {
            let (before, path) = (&self.paths[..*at], &self.paths[*at]);
            before.iter().any(|other| other.tail == path.tail)
        };
        if let Some(at) = (0..self.paths.len()).rev().find(shares) {
            self.paths[at].retiring = Some(now);
        }
    }

    /// How many paths work, or may well work, and are to stay. In trouble, a new one that has not
    /// answered within [`PROVEN_WITHIN`] is not counted on.
    #[must_use]
    pub fn good(&self, now: Instant) -> usize {
        let trouble = self.in_trouble(now);
        let good = |path: &&Path| {
            path.retiring.is_none()
                && match path.health(now) {
                    Health::Alive => true,
                    Health::Unproven => {
                        !trouble || path.silent(now) < path.patience(PROVEN_WITHIN, 3)
                    }
                    Health::Suspect => false,
                }
        };
        self.paths.iter().filter(good).count()
    }

    /// How many heads of paths that work, or may well work, a relay is in.
    #[must_use]
    pub fn uses(&self, relay: &ShortId, now: Instant) -> usize {
        self.paths
            .iter()
            .filter(|path| path.relays.contains(relay) && path.health(now) != Health::Suspect)
            .count()
    }

    /// How many heads of paths that do not answer a relay is in; 0 if it is in one that does.
    #[must_use]
    pub fn failing(&self, relay: &ShortId, now: Instant) -> usize {
        let count = |health: Health| {
            self.paths
                .iter()
                .filter(|path| path.relays.contains(relay) && path.health(now) == health)
                .count()
        };
        match count(Health::Alive) {
            0 => count(Health::Suspect),
            _ => 0,
        }
    }

    /// Whether any path has answered lately.
    #[must_use]
    pub fn any_alive(&self, now: Instant) -> bool {
        self.paths
            .iter()
            .any(|path| path.health(now) == Health::Alive)
    }
}

/// 2^64 divided by the golden ratio: spreads small numbers over all bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): each bit of the input moves each
/// bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
