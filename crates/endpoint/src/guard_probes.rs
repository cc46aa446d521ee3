//! Measuring the way to the guards: reached or not, round trip, loss, path MTU, NAT.
//!
//! Nothing here needs a link: the questions are probes of the link protocol, which a relay answers
//! to whoever knows its link key, and which may be shorter than what links send. So the answers say
//! what is wrong where no link comes to be.

mod nat;
mod search;
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use mixline_endpoint_engine::GuardTarget;
use mixline_endpoint_engine::status::{GuardStatus, RoundTrip};
use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::probe::MIN_PROBE;
use mixline_protocol::size::DATAGRAM;
use serde::Serialize;
use tokio::task::JoinSet;

use socket::ProbeSocket;

/// The most questions to one address for round trip and loss.
const MAX_QUESTIONS: u32 = 20;
/// Time between two of them.
const BETWEEN: Duration = Duration::from_millis(50);
/// How long the last answer is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long answers are waited for at least once a round trip is known.
const LEAST_PATIENCE: Duration = Duration::from_millis(300);

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Questions to each address for round trip and loss, 1 to 20.
    pub questions: u32,
    /// Whether path MTUs are searched for.
    pub mtu: bool,
    /// For how long mappings of a NAT, or what a firewall remembers, are left alone to see whether they
    /// live: one socket for each. At most 8, of at most 120 s. The measurement takes as long as the
    /// longest that is tried.
    pub mappings: Vec<Duration>,
    /// Whether all of them are tried where nobody translates; otherwise only the shortest.
    pub all_without_nat: bool,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            questions: 10,
            mtu: true,
            mappings: Vec::new(),
            all_without_nat: false,
        }
    }
}

/// What was found out about all guards.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GuardsProbed {
    /// Each guard.
    pub guards: Vec<GuardProbe>,
    /// The NAT between here and the guards' IPv4 addresses.
    pub nat_v4: Nat,
    /// The same for IPv6.
    pub nat_v6: Nat,
}

/// What was found out about one guard.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GuardProbe {
    /// The guard and its link, as `status` shows it.
    pub guard: GuardStatus,
    /// Each of its addresses, the one in use first.
    pub addresses: Vec<AddressProbe>,
}

/// What was found out about the way to one address of a guard.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AddressProbe {
    /// The address and port.
    pub address: String,
    /// Small questions sent.
    pub sent: u32,
    /// Of these, answered. None: UDP to there is blocked, or nobody is there.
    pub answered: u32,
    /// Their round trips; none if none was answered.
    pub rtt_ms: Option<RoundTrip>,
    /// Bytes of the IP packet around a datagram: what the path has to let through.
    pub mtu_needed: u16,
    /// The largest IP packet that gets there, bytes; at most `mtu_needed`, which means enough.
    /// None if it was not searched for, or nothing is answered.
    pub mtu_out: Option<u16>,
    /// The largest IP packet that comes back. An answer is never longer than its question, so this
    /// is known up to `mtu_out` only.
    pub mtu_in: Option<u16>,
    /// The MTU of the way out as the kernel knows it, bytes.
    pub mtu_known: Option<u16>,
    /// The own address and port as this host has them.
    pub local: Option<String>,
    /// The own address and port as the guard sees them.
    pub seen_as: Option<String>,
    /// What went wrong here, in the words of the system.
    pub error: Option<String>,
}

/// What stands between this host and its guards.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Nat {
    /// Of which kind it is.
    pub kind: NatKind,
    /// The longest silence that a mapping has survived, seconds. Without a NAT: after which an answer
    /// still came in.
    pub mapping_lives_s: Option<u64>,
    /// The shortest one that it has not, seconds.
    pub mapping_gone_s: Option<u64>,
}

/// What a NAT does with the address and port of one socket (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// Nothing was answered.
    #[default]
    Unknown,
    /// There is none: the guards see this host's own address.
    None,
    /// All guards see the same address and port.
    EndpointIndependent,
    /// Each guard sees another one.
    AddressDependent,
    /// There is one, and only one guard has answered.
    Some,
}

/// Bytes of headers around a datagram: IP without options, and UDP.
fn headers(address: &SocketAddr) -> u16 {
    if address.is_ipv4() { 28 } else { 48 }
}

/// Measures the way to each guard, over all its addresses at once. Takes some two seconds, and some
/// ten where a path MTU has to be searched for.
pub async fn probe_guards(guards: Vec<GuardTarget>, options: &ProbeOptions) -> GuardsProbed {
    let mut measuring = JoinSet::new();
    for (guard, target) in guards.iter().enumerate() {
        for (number, address) in target.addresses.iter().copied().enumerate() {
            let (link, options) = (target.link, options.clone());
            measuring.spawn(async move {
                let found = probe_address(address, link, &options).await;
                (guard, number, found)
            });
        }
    }
    let everywhere: Vec<(SocketAddr, X25519Public)> = guards
        .iter()
        .flat_map(|target| {
            target
                .addresses
                .iter()
                .map(|address| (*address, target.link))
        })
        .collect();
    let of_family = |v4: bool| -> Vec<_> {
        let same = |(address, _): &&(SocketAddr, X25519Public)| address.is_ipv4() == v4;
        everywhere.iter().filter(same).copied().collect()
    };
    let (v4, v6) = (of_family(true), of_family(false));
    let (nat_v4, nat_v6) = tokio::join!(nat::find(&v4, options), nat::find(&v6, options));
    let mut found: Vec<(usize, usize, AddressProbe)> = Vec::new();
    while let Some(one) = measuring.join_next().await {
        found.extend(one.ok());
    }
    found.sort_by_key(|(guard, number, _)| (*guard, *number));
    let mut probed = GuardsProbed {
        guards: guards
            .into_iter()
            .map(|target| GuardProbe {
                guard: target.status,
                addresses: Vec::new(),
            })
            .collect(),
        nat_v4,
        nat_v6,
    };
    for (guard, _, address) in found {
        if let Some(guard) = probed.guards.get_mut(guard) {
            guard.addresses.push(address);
        }
    }
    probed
}

/// Measures the way to one address of a relay.
pub async fn probe_address(
    address: SocketAddr,
    relay: X25519Public,
    options: &ProbeOptions,
) -> AddressProbe {
    let headers = headers(&address);
    let mut found = AddressProbe {
        address: address.to_string(),
        mtu_needed: whole(DATAGRAM, headers),
        ..AddressProbe::default()
    };
    let mut socket = match ProbeSocket::connect(address, relay) {
        Ok(socket) => socket,
        Err(error) => {
            found.error = Some(error.to_string());
            return found;
        }
    };
    found.local = socket.local().map(|local| local.to_string());
    let questions = options.questions.clamp(1, MAX_QUESTIONS);
    let small = vec![(MIN_PROBE, MIN_PROBE); usize::try_from(questions).unwrap_or(1)];
    let answers = socket.ask(&small, 1, PATIENCE, BETWEEN).await;
    let trips: Vec<Duration> = answers.iter().flatten().map(|(trip, _)| *trip).collect();
    found.sent = questions;
    found.answered = u32::try_from(trips.len()).unwrap_or(u32::MAX);
    found.seen_as = answers
        .iter()
        .flatten()
        .next()
        .map(|(_, answer)| answer.seen.to_string());
    found.rtt_ms = RoundTrip::of(trips.iter().copied());
    if let (true, Some(longest)) = (options.mtu, trips.iter().max()) {
        let patience = LEAST_PATIENCE.max(*longest * 3);
        let out = socket.search(DATAGRAM, patience, |length| (length, MIN_PROBE));
        let out = out.await;
        found.mtu_out = Some(whole(out, headers));
        let back = socket.search(out, patience, |length| (out, length)).await;
        found.mtu_in = Some(whole(back, headers));
    }
    found.mtu_known = socket.known_mtu();
    found.error = socket.error().map(ToString::to_string);
    found
}

fn whole(payload: usize, headers: u16) -> u16 {
    u16::try_from(payload)
        .unwrap_or(u16::MAX)
        .saturating_add(headers)
}
