//! The flows between this host and one peer: which path each uses, and how to end it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use mixline_protocol::identity::AnonymousId;

use crate::packets::headers::{FlowKey, IpPacket, protocol};
use crate::packets::icmp::{Segment, reset};
use crate::policy::{PathPolicy, PolicyRule};
use crate::session::paths::{Health, Paths};

/// Flows with one peer that are remembered. One more replaces another, which then only loses
/// its place on a path; open TCP connections are replaced last, since a session is held for them.
pub const MAX_FLOWS: usize = 512;
/// Connections that have been silent for longer are not reset when the peer goes.
const RESET_WITHIN: Duration = Duration::from_secs(600);

struct Flow {
    policy: PathPolicy,
    path: Option<u32>,
    used: Instant,
    /// TCP only. `None` once it is closing.
    connection: Option<Connection>,
    /// TCP only: this host has said that it is over, or the peer has reset it. What still comes of it
    /// opens it no more.
    closed: bool,
}

impl Flow {
    fn is_open(&self) -> bool {
        matches!(self.connection, Some(Connection::Open(_)))
    }

    /// A segment of this host.
    fn sent(&mut self, segment: &Segment) {
        if segment.syn {
            self.closed = false;
        }
        self.closed |= segment.reset || segment.finishes;
        self.connection = if self.closed {
            None
        } else {
            Connection::after(segment)
        };
    }
}

/// What this host waits for on a TCP connection.
#[derive(Clone, Copy)]
enum Connection {
    /// An answer to its SYN of this number.
    Opening(u32),
    /// The byte of this number.
    Open(u32),
}

impl Connection {
    /// After a segment of this host.
    fn after(segment: &Segment) -> Option<Self> {
        if segment.acknowledges {
            Some(Self::Open(segment.ack))
        } else {
            segment.syn.then_some(Self::Opening(segment.sequence))
        }
    }

    /// What makes this host believe that it is over.
    fn reset(self, flow: &FlowKey) -> Vec<u8> {
        match self {
            Self::Opening(syn) => reset(flow, 0, Some(syn.wrapping_add(1))),
            Self::Open(expects) => reset(flow, expects, None),
        }
    }
}

/// A TCP connection of this host that is open, as far as is known.
#[derive(Debug, Clone, Copy)]
pub struct OpenConnection {
    /// Which one.
    pub flow: FlowKey,
    /// The number of the byte that this host waits for.
    pub expects: u32,
    /// When this host has sent on it.
    pub used: Instant,
}

impl OpenConnection {
    /// What makes this host believe that it is over.
    pub fn reset(&self) -> Vec<u8> {
        Connection::Open(self.expects).reset(&self.flow)
    }
}

/// The flows with one peer.
pub struct Flows {
    flows: HashMap<FlowKey, Flow>,
    /// Mixed into what ranks paths, so that nobody outside can choose which path a flow takes.
    salt: u64,
}

impl Flows {
    /// None yet. `salt` is random.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        Self {
            flows: HashMap::new(),
            salt,
        }
    }

    /// How a packet to `peer` is sent: by which policy, and if that is per flow, over which path.
    /// A flow stays on its path as long as that works; `None` if no path is known to.
    pub fn assign(
        &mut self,
        packet: &IpPacket<'_>,
        peer: &AnonymousId,
        rules: &[PolicyRule],
        paths: &Paths,
        now: Instant,
    ) -> (PathPolicy, Option<u32>) {
        let flow = match self.flows.get_mut(&packet.flow) {
            Some(flow) => flow,
            None => {
                self.make_room(now);
                self.flows.entry(packet.flow).or_insert_with(|| Flow {
                    policy: policy(rules, peer, &packet.flow),
                    path: None,
                    used: now,
                    connection: None,
                    closed: false,
                })
            }
        };
        flow.used = now;
        if packet.flow.protocol == protocol::TCP
            && let Some(segment) = Segment::read(packet.payload)
        {
            flow.sent(&segment);
        }
        if flow.policy == PathPolicy::PerFlow {
            let alive = |id: &u32| {
                paths.get(*id).is_some_and(|path| {
                    path.retiring.is_none() && path.health(now) == Health::Alive
                })
            };
            if !flow.path.is_some_and(|id| alive(&id)) {
                let mut hash = DefaultHasher::new();
                (self.salt, packet.flow).hash(&mut hash);
                flow.path = paths.for_flow(hash.finish(), now).filter(alive);
            }
        }
        (flow.policy, flow.path)
    }

    /// A packet to the peer has been rejected. What it says of a connection that is known holds.
    pub fn rejected(&mut self, packet: &IpPacket<'_>, now: Instant) {
        if packet.flow.protocol == protocol::TCP
            && let Some(flow) = self.flows.get_mut(&packet.flow)
            && let Some(segment) = Segment::read(packet.payload)
        {
            flow.used = now;
            flow.sent(&segment);
        }
    }

    /// Resets for the TCP connections that are being opened, which are over.
    pub fn refuse_opening(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let opening = |flow: &Flow| matches!(flow.connection, Some(Connection::Opening(_)));
        let refused = self.flows.extract_if(|_, flow| opening(flow));
        refused
            .filter(|(_, flow)| now.saturating_duration_since(flow.used) < RESET_WITHIN)
            .filter_map(|(key, flow)| Some(flow.connection?.reset(&key)))
            .collect()
    }

    /// Other rules count from now on, for the flows that there are as well.
    pub fn judge_again(&mut self, peer: &AnonymousId, rules: &[PolicyRule]) {
        for (key, flow) in &mut self.flows {
            flow.policy = policy(rules, peer, key);
        }
    }

    /// A packet of the peer's has come. A reset ends the connection that it is about.
    pub fn arrived(&mut self, packet: &IpPacket<'_>) {
        if packet.flow.protocol == protocol::TCP
            && Segment::read(packet.payload).is_some_and(|segment| segment.reset)
            && let Some(flow) = self.flows.get_mut(&packet.flow.reversed())
        {
            flow.closed = true;
            flow.connection = None;
        }
    }

    /// Whether a packet of the peer's belongs to a flow of this host's. Fragments, whose ports nobody knows,
    /// do not; what tells of errors does.
    #[must_use]
    pub fn is_answer(&self, packet: &IpPacket<'_>) -> bool {
        let is_known = self.flows.contains_key(&packet.flow.reversed());
        match (packet.flow.protocol, packet.payload.first()) {
            (protocol::TCP | protocol::UDP, _) => packet.flow.ports != (0, 0) && is_known,
            // Unreachable, time exceeded, parameter problem (RFC 792), and packet too big (RFC 4443).
            (protocol::ICMP, Some(3 | 11 | 12)) | (protocol::ICMPV6, Some(1..=4)) => true,
            // Answers to pings.
            (protocol::ICMP, Some(0)) | (protocol::ICMPV6, Some(129)) => is_known,
            _ => false,
        }
    }

    /// Whether a TCP connection with the peer is open, as far as is known.
    #[must_use]
    pub fn any_open(&self) -> bool {
        self.flows.values().any(Flow::is_open)
    }

    /// Resets for the TCP connections with the peer, those that are being opened included, as
    /// packets to this host.
    pub fn resets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.flows
            .drain()
            .filter(|(_, flow)| now.saturating_duration_since(flow.used) < RESET_WITHIN)
            .filter_map(|(key, flow)| Some(flow.connection?.reset(&key)))
            .collect()
    }

    /// The peer does not answer any more: resets for the TCP connections that are being opened, and those
    /// that are open.
    pub fn part(&mut self, now: Instant) -> (Vec<Vec<u8>>, Vec<OpenConnection>) {
        let (mut refused, mut open) = (Vec::new(), Vec::new());
        for (
            flow,
            Flow {
                connection, used, ..
            },
        ) in self.flows.drain()
        {
            match connection {
                Some(Connection::Open(expects)) => open.push(OpenConnection {
                    flow,
                    expects,
                    used,
                }),
                Some(opening) if now.saturating_duration_since(used) < RESET_WITHIN => {
                    refused.push(opening.reset(&flow));
                }
                Some(_) | None => {}
            }
        }
        (refused, open)
    }

    /// The peer is there again: connections that were open when it went.
    pub fn go_on(&mut self, open: Vec<OpenConnection>, peer: &AnonymousId, rules: &[PolicyRule]) {
        for OpenConnection {
            flow,
            expects,
            used,
        } in open
        {
            if self.flows.len() >= MAX_FLOWS {
                return;
            }
            self.flows.entry(flow).or_insert_with(|| Flow {
                policy: policy(rules, peer, &flow),
                path: None,
                used,
                connection: Some(Connection::Open(expects)),
                closed: false,
            });
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.flows.len() < MAX_FLOWS {
            return;
        }
        let oldest = self.flows.iter().max_by_key(|(_, flow)| {
            let age = now.saturating_duration_since(flow.used);
            (!flow.is_open(), age)
        });
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.flows.remove(&key);
        }
    }
}

/// What the first rule that fits says.
#[must_use]
pub fn policy(rules: &[PolicyRule], peer: &AnonymousId, flow: &FlowKey) -> PathPolicy {
    let fits = |rule: &&PolicyRule| {
        rule.id.is_none_or(|id| id == *peer)
            && rule.to.is_none_or(|range| range.contains(flow.destination))
            && rule.port.is_none_or(|port| {
                matches!(flow.protocol, protocol::TCP | protocol::UDP)
                    && (port == flow.ports.0 || port == flow.ports.1)
            })
    };
    rules
        .iter()
        .find(fits)
        .map(|rule| rule.policy)
        .unwrap_or_default()
}
