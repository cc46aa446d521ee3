//! TCP connections of this host with peers that do not answer at present.
//!
//! A peer that is silent may sleep, or be in a tunnel. TCP lives through that: it repeats what it has
//! said for a quarter of an hour (RFC 9293, section 3.8.3, R2), and an idle connection waits for ever.
//! So the connections are not reset when their session ends, but remembered. When the peer is back they
//! belong to the new session. Only the side that can open one finds that out, which need not have
//! anything to say, so it tries now and then. If the peer does not come back, those that were in the
//! midst of something end after as long as TCP itself would give them: an application that only receives
//! would wait for ever.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::identity::{AnonymousId, X25519Public};

use crate::packets::headers::{IpPacket, protocol};
use crate::packets::icmp::Segment;
use crate::session::flows::OpenConnection;

/// Connections that are remembered. For one more, those of the peer that has the most are reset, and
/// those of peers that came by themselves before all others.
pub const MAX_CONNECTIONS: usize = 4096;
/// How long a peer may be away before connections in the midst of something are reset: what Linux
/// gives them (tcp(7), `tcp_retries2`).
pub const GIVEN_UP: Duration = Duration::from_secs(15 * 60);
/// A connection is in the midst of something if this host has sent on it so shortly before.
const IN_USE: Duration = Duration::from_secs(60);
/// Silent ones are remembered for so long: as they hold a session while the peer is there.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// A peer is tried again after a quarter of the time that it has been away, within these bounds.
const FIRST_TRY: Duration = Duration::from_secs(2);
const LAST_TRY: Duration = Duration::from_secs(600);
/// So many peers are tried at once.
const TRIES: usize = 4;
/// Who has come by itself, and is not known to be reached in any other way, is asked for so often.
const ASK_EVERY: Duration = Duration::from_secs(60);

struct Peer {
    since: Instant,
    /// When it is tried next.
    next: Instant,
    addresses: Vec<IpAddr>,
    open: Vec<OpenConnection>,
    /// It has opened the session: when the directory was last asked for it.
    came_by_itself: Option<Instant>,
    /// It has begun the session, as this client of the own list, or as none.
    guest: Option<Option<X25519Public>>,
}

/// Peers that are away while connections with them are open.
#[derive(Default)]
pub struct Away {
    peers: HashMap<AnonymousId, Peer>,
}

impl OpenConnection {
    /// Whether it was in the midst of something then.
    fn was_in_use(&self, then: Instant) -> bool {
        then.saturating_duration_since(self.used) < IN_USE
    }
}

impl Away {
    /// A peer does not answer any more. `came_by_itself`: it is not known how to reach it. Gives resets
    /// for those connections for which there is no room.
    pub fn leave(
        &mut self,
        peer: AnonymousId,
        addresses: Vec<IpAddr>,
        open: Vec<OpenConnection>,
        came_by_itself: bool,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        if open.is_empty() {
            return Vec::new();
        }
        let entry = Peer {
            since: now,
            next: now + FIRST_TRY,
            addresses,
            open,
            came_by_itself: came_by_itself.then_some(now),
            guest: None,
        };
        self.peers.insert(peer, entry);
        let mut resets = Vec::new();
        while self.connections() > MAX_CONNECTIONS {
            // Strangers first: IDs cost nothing, and peers that this host has looked up are its own choice.
            let rank = |peer: &Peer| {
                let stranger = peer.came_by_itself.is_some();
                (stranger, peer.open.len(), Reverse(peer.since))
            };
            let most = self.peers.iter().max_by_key(|(_, peer)| rank(peer));
            let Some(most) = most.map(|(id, _)| *id) else {
                break;
            };
            let open = self.peers.remove(&most).map(|peer| peer.open);
            resets.extend(open.iter().flatten().map(OpenConnection::reset));
        }
        resets
    }

    /// A peer is there again: its connections. Those that were in the midst of something still are, if it
    /// goes away again before anything was said.
    pub fn come_back(&mut self, peer: &AnonymousId, now: Instant) -> Vec<OpenConnection> {
        let Some(mut known) = self.peers.remove(peer) else {
            return Vec::new();
        };
        for open in &mut known.open {
            if open.was_in_use(known.since) {
                open.used = now;
            }
        }
        known.open
    }

    /// Whether the directory may be asked whose address this is. Who has come by itself comes again,
    /// and need not have published anything.
    pub fn may_ask(&mut self, address: &IpAddr, now: Instant) -> bool {
        let mut peers = self.peers.values_mut();
        let Some(peer) = peers.find(|peer| peer.addresses.contains(address)) else {
            return true;
        };
        let Some(asked) = &mut peer.came_by_itself else {
            return true;
        };
        let due = now.saturating_duration_since(*asked) >= ASK_EVERY;
        if due {
            *asked = now;
        }
        due
    }

    /// An address of each peer that is to be tried again now.
    pub fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let due = |peer: &&mut Peer| peer.came_by_itself.is_none() && now >= peer.next;
        let peers = self.peers.values_mut().filter(due).take(TRIES);
        peers
            .filter_map(|peer| {
                let away = now.saturating_duration_since(peer.since);
                peer.next = now + (away / 4).clamp(FIRST_TRY, LAST_TRY);
                peer.addresses.first().copied()
            })
            .collect()
    }

    /// It may have been this host that was away: all peers are tried again.
    pub fn try_soon(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.next = peer.next.min(now + FIRST_TRY);
        }
    }

    /// A packet of this host to a peer that is away. One that ends its connection is the last.
    pub fn sent(&mut self, packet: &IpPacket<'_>) {
        if packet.flow.protocol == protocol::TCP
            && Segment::read(packet.payload).is_some_and(|it| it.reset || it.finishes)
        {
            for peer in self.peers.values_mut() {
                peer.open.retain(|open| open.flow != packet.flow);
            }
            self.peers.retain(|_, peer| !peer.open.is_empty());
        }
    }

    /// Resets for the connections that have waited for long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut resets = Vec::new();
        self.peers.retain(|_, peer| {
            let away = now.saturating_duration_since(peer.since);
            if away >= GIVEN_UP {
                let over = peer.open.extract_if(.., |open| open.was_in_use(peer.since));
                resets.extend(over.map(|open| open.reset()));
            }
            away < REMEMBERED && !peer.open.is_empty()
        });
        resets
    }

    /// A peer that is away had begun the session, as a client of the own list if it is one.
    pub fn was_guest(&mut self, peer: &AnonymousId, client: Option<X25519Public>) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.guest = Some(client);
        }
    }

    /// Resets for the connections of guests that are let in no more.
    pub fn end_of_guests(
        &mut self,
        lets_in: impl Fn(Option<&X25519Public>) -> bool,
    ) -> Vec<Vec<u8>> {
        let is_over = |peer: &Peer| {
            peer.guest
                .as_ref()
                .is_some_and(|client| !lets_in(client.as_ref()))
        };
        let guests = self.peers.extract_if(|_, peer| is_over(peer));
        guests
            .flat_map(|(_, peer)| peer.open)
            .map(|open| open.reset())
            .collect()
    }

    fn connections(&self) -> usize {
        self.peers.values().map(|peer| peer.open.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::headers::FlowKey;

    fn open(port: u16, used: Instant) -> OpenConnection {
        OpenConnection {
            flow: FlowKey {
                source: [10, 0, 1, 1].into(),
                destination: [10, 0, 1, 2].into(),
                protocol: protocol::TCP,
                ports: (port, 80),
            },
            expects: 7,
            used,
        }
    }

    fn id(n: u8) -> AnonymousId {
        AnonymousId([n; 32])
    }

    #[test]
    fn who_has_the_most_makes_room() {
        let now = Instant::now();
        let mut away = Away::default();
        let some = |count: u16| (0..count).map(|port| open(port, now)).collect::<Vec<_>>();
        assert!(away.leave(id(1), Vec::new(), some(3), true, now).is_empty());
        let mut reset = 0;
        for n in 2..12 {
            reset += away.leave(id(n), Vec::new(), some(512), true, now).len();
        }
        assert!(away.connections() <= MAX_CONNECTIONS);
        assert_eq!(reset + away.connections(), 3 + 10 * 512);
        assert_eq!(away.come_back(&id(1), now).len(), 3);
        assert!(away.come_back(&id(1), now).is_empty());
    }

    #[test]
    fn only_what_was_in_use_is_given_up() {
        let now = Instant::now();
        let mut away = Away::default();
        let both = vec![open(1, now), open(2, now)];
        let later = now + IN_USE;
        let both = both.into_iter().enumerate();
        let both = both.map(|(n, it)| OpenConnection {
            used: if n == 0 { later } else { now },
            ..it
        });
        away.leave(id(1), Vec::new(), both.collect(), true, later);
        assert!(away.expire(later + GIVEN_UP / 2).is_empty());
        assert_eq!(away.expire(later + GIVEN_UP).len(), 1);
        assert!(away.expire(later + 2 * GIVEN_UP).is_empty());
        assert_eq!(away.connections(), 1);
        away.expire(later + REMEMBERED);
        assert_eq!(away.connections(), 0);
    }

    #[test]
    fn strangers_make_room_for_peers_of_this_hosts_choice() {
        let now = Instant::now();
        let mut away = Away::default();
        let some = |count: u16| (0..count).map(|port| open(port, now)).collect::<Vec<_>>();
        away.leave(id(1), Vec::new(), some(9), false, now);
        for n in 0..5000_u16 {
            let [high, low] = n.to_be_bytes();
            let mut stranger = AnonymousId([2; 32]);
            stranger.0[..2].copy_from_slice(&[high, low]);
            away.leave(stranger, Vec::new(), some(1), true, now);
        }
        assert_eq!(away.come_back(&id(1), now).len(), 9);
    }

    #[test]
    fn a_peer_that_comes_and_goes_is_given_up_in_the_end() {
        let now = Instant::now();
        let mut away = Away::default();
        away.leave(id(1), Vec::new(), vec![open(1, now)], true, now);
        let there = now + Duration::from_secs(300);
        let open = away.come_back(&id(1), there);
        let gone = there + Duration::from_secs(5);
        away.leave(id(1), Vec::new(), open, true, gone);
        assert_eq!(away.expire(gone + GIVEN_UP).len(), 1);
    }

    #[test]
    fn who_can_be_reached_is_tried_now_and_then() {
        let now = Instant::now();
        let mut away = Away::default();
        let it = IpAddr::from([10, 0, 1, 2]);
        away.leave(id(1), vec![it], vec![open(1, now)], false, now);
        away.leave(id(2), vec![it], vec![open(2, now)], true, now);
        let tries = |away: &mut Away, seconds: std::ops::Range<u64>| {
            let at = seconds.map(|second| now + Duration::from_secs(second));
            at.map(|at| away.due(at).len()).sum::<usize>()
        };
        assert_eq!(tries(&mut away, 0..2), 0);
        let (soon, later) = (tries(&mut away, 2..60), tries(&mut away, 60..3600));
        assert!((10..=20).contains(&soon), "{soon}");
        assert!((10..=30).contains(&later), "{later}");
        assert_eq!(tries(&mut away, 7200..7800), 1);
    }

    #[test]
    fn the_directory_is_asked_now_and_then_for_who_came_by_itself() {
        let now = Instant::now();
        let mut away = Away::default();
        let (it, other) = (IpAddr::from([10, 0, 1, 2]), IpAddr::from([10, 0, 1, 3]));
        away.leave(id(1), vec![it], vec![open(1, now)], true, now);
        away.leave(id(2), vec![other], vec![open(1, now)], false, now);
        assert!(!away.may_ask(&it, now + ASK_EVERY / 2));
        assert!(away.may_ask(&it, now + ASK_EVERY));
        assert!(!away.may_ask(&it, now + ASK_EVERY));
        assert!(away.may_ask(&other, now) && away.may_ask(&other, now));
    }
}
