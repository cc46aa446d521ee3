//! How packets to a peer are spread over the paths to it, and the rules that choose.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use mixline_protocol::identity::AnonymousId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most paths that carry copies of one packet.
pub const MAX_DUPLICATES: usize = 4;
/// The most rules of a configuration.
pub const MAX_RULES: usize = 64;

/// Why a text is no part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is no policy.
    #[error(
        "path policy {0:?} is none of per-flow, per-packet, duplicate 2 to duplicate \
         {MAX_DUPLICATES}"
    )]
    Policy(String),
    /// It is no range of addresses.
    #[error("{0:?} is no address and no address/length")]
    Range(String),
}

/// How the packets to a peer use the paths to it.
///
/// In configurations: `per-flow`, `per-packet` or `duplicate N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathPolicy {
    /// All packets of one flow (addresses, protocol, ports) over one path, chosen by a hash, as
    /// ECMP routers do: TCP sees no reordering.
    #[default]
    PerFlow,
    /// One cell after the other over another path: one flow uses all of them, and anyone who
    /// sees one path sees a part of it.
    PerPacket,
    /// Every packet over this many paths with distinct heads and tails, 2 to
    /// [`MAX_DUPLICATES`]: the first copy to arrive counts. Fewer if fewer paths are alive.
    Duplicate(usize),
}

impl fmt::Display for PathPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerFlow => f.write_str("per-flow"),
            Self::PerPacket => f.write_str("per-packet"),
            Self::Duplicate(copies) => write!(f, "duplicate {copies}"),
        }
    }
}

impl FromStr for PathPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        let policy = match (words.next(), words.next(), words.next()) {
            (Some("per-flow"), None, None) => Some(Self::PerFlow),
            (Some("per-packet"), None, None) => Some(Self::PerPacket),
            (Some("duplicate"), Some(copies), None) => copies
                .parse()
                .ok()
                .filter(|copies| (2..=MAX_DUPLICATES).contains(copies))
                .map(Self::Duplicate),
            _ => None,
        };
        policy.ok_or_else(|| PolicyError::Policy(text.to_owned()))
    }
}

/// Addresses that share a prefix. In configurations: `10.1.2.3`, `10.1.0.0/16`, `fd00::/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// Whether an address is among them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AddressRange {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = match text.split_once('/') {
            Some((address, length)) => address
                .parse()
                .ok()
                .zip(length.parse().ok())
                .and_then(|(address, length)| IpNet::new(address, length).ok()),
            None => text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        range
            .map(Self)
            .ok_or_else(|| PolicyError::Range(text.to_owned()))
    }
}

/// Which packets use which policy. The first rule whose conditions all hold decides; without
/// one it is `per-flow`.
///
/// ```yaml
/// policies:
///   - { port: 5060, policy: duplicate 2 }
///   - { to: 10.7.0.0/16, policy: per-packet }
///   - { id: 4gxq...52 characters, port: 22, policy: per-flow }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// The peer is this one.
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub id: Option<AnonymousId>,
    /// The peer's address (where the packet goes) is in this range.
    #[serde(
        default,
        with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub to: Option<AddressRange>,
    /// The TCP or UDP source or destination port is this one: a rule that holds for a
    /// service's answers as well as for the requests to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How such packets are sent.
    pub policy: PathPolicy,
}

impl Serialize for PathPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Optional values that are written as text.
mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(serde::de::Error::custom))
            .transpose()
    }
}
