//! Corners of the network, of which none may fill a relay.

use std::net::{IpAddr, SocketAddr};

/// What counts as one corner of the network: an IPv4 /24 or an IPv6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(u64);

impl Prefix {
    /// The corner of an address.
    #[must_use]
    pub fn of(source: SocketAddr) -> Self {
        match source.ip() {
            // Not the front of any IPv6 address that is routed.
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => Self(u64::try_from(u128::from(ip) >> 80).unwrap_or(u64::MAX)),
        }
    }
}

/// What counts as one provider's: an IPv4 /16 or an IPv6 /32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Provider(u32);

impl Provider {
    /// The provider of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // Not the front of any IPv6 address that is routed.
            IpAddr::V4(ip) => Self(u32::from(ip) >> 16),
            IpAddr::V6(ip) => Self(u32::try_from(u128::from(ip) >> 96).unwrap_or(u32::MAX)),
        }
    }
}
