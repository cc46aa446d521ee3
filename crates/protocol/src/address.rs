//! Virtual addresses: what applications see of an anonymous ID.
//!
//! The IPv6 address is 120 bits of a hash of the ID and needs no confirmation. The IPv4
//! address is the first free one of a sequence of candidates that the ID determines;
//! 24 bits collide, so the directory *leases* it (see [`crate::records::Lease`]), and
//! it is never taken for an identity.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ring::digest::{Context, SHA256};

use crate::identity::{AnonymousId, first_bytes};
use crate::{Error, Result};

/// Where virtual IPv6 addresses are: `fd00::/8` (RFC 4193, locally assigned).
pub const IPV6_FIRST_BYTE: u8 = 0xfd;
/// Addresses at the beginning of the virtual network that are given to nobody: its first /24.
pub const RESERVED: u64 = 256;
/// The resolver is this address of the reserved ones.
const RESOLVER: u32 = 53;
const WHAT: &str = "virtual network";

/// The IPv4 network of virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtualNetwork {
    /// Its first address.
    pub prefix: Ipv4Addr,
    /// The bits that all of its addresses share: 8 to 22.
    pub length: u8,
}

impl Default for VirtualNetwork {
    /// `10.0.0.0/8`.
    fn default() -> Self {
        Self {
            prefix: Ipv4Addr::new(10, 0, 0, 0),
            length: 8,
        }
    }
}

impl VirtualNetwork {
    /// A network.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the length is not 8 to 22, or bits are set behind it.
    pub fn new(prefix: Ipv4Addr, length: u8) -> Result<Self> {
        let network = Self { prefix, length };
        if !(8..=22).contains(&length) || prefix.to_bits() & !network.mask() != 0 {
            return Err(Error::Malformed { what: WHAT });
        }
        Ok(network)
    }

    /// Ones where the network's addresses agree.
    #[must_use]
    pub fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.length.min(32)))
            .unwrap_or(0)
    }

    /// Whether the address is one of the network's, reserved ones included.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.prefix.to_bits()) & self.mask() == 0
    }

    /// Whether an ID can hold the address: in the network, neither reserved nor the last one.
    #[must_use]
    pub fn leasable(&self, address: Ipv4Addr) -> bool {
        let host = u64::from(address.to_bits() & !self.mask());
        self.contains(address) && host >= RESERVED && host < u64::from(!self.mask())
    }

    /// Where the client's resolver listens: `x.x.x.53` in the reserved part.
    #[must_use]
    pub fn resolver(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.prefix.to_bits() | RESOLVER)
    }

    /// How many addresses can be leased.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(!self.mask()).saturating_sub(RESERVED)
    }
}

impl fmt::Display for VirtualNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.length)
    }
}

impl FromStr for VirtualNetwork {
    type Err = Error;

    /// `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: WHAT };
        let (prefix, length) = text.split_once('/').ok_or_else(|| malformed.clone())?;
        Self::new(
            prefix.parse().map_err(|_| malformed.clone())?,
            length.parse().map_err(|_| malformed.clone())?,
        )
    }
}

/// The ID's candidate number `attempt` in the network, always a leasable address.
///
/// The first 8 bytes of SHA-256("mixline/v1/ipv4" | ID | attempt), modulo the number of
/// leasable addresses, counted from the first of them.
#[must_use]
pub fn ipv4_candidate(id: &AnonymousId, attempt: u32, network: &VirtualNetwork) -> Ipv4Addr {
    let mut hash = Context::new(&SHA256);
    hash.update(b"mixline/v1/ipv4");
    hash.update(&id.0);
    hash.update(&attempt.to_be_bytes());
    let number = u64::from_be_bytes(first_bytes(hash.finish().as_ref()));
    let host = RESERVED + number % network.size().max(1);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below 2^24 + 256 for every network"
    )]
    Ipv4Addr::from_bits(network.prefix.to_bits() | host as u32)
}

/// The ID's IPv6 address: `fd` and the first 15 bytes of SHA-256("mixline/v1/ipv6" | ID).
#[must_use]
pub fn ipv6(id: &AnonymousId) -> Ipv6Addr {
    let mut hash = Context::new(&SHA256);
    hash.update(b"mixline/v1/ipv6");
    hash.update(&id.0);
    let tail: [u8; 15] = first_bytes(hash.finish().as_ref());
    let mut octets = [IPV6_FIRST_BYTE; 16];
    for (to, from) in octets.iter_mut().skip(1).zip(tail) {
        *to = from;
    }
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_addresses() {
        let network = VirtualNetwork::default();
        assert_eq!(network.resolver(), Ipv4Addr::new(10, 0, 0, 53));
        assert!(!network.leasable(Ipv4Addr::new(10, 0, 0, 255)));
        assert!(network.leasable(Ipv4Addr::new(10, 0, 1, 0)));
        assert!(network.leasable(Ipv4Addr::new(10, 255, 255, 254)));
        assert!(!network.leasable(Ipv4Addr::new(10, 255, 255, 255)));
        assert!(!network.leasable(Ipv4Addr::new(11, 0, 1, 0)));
        assert_eq!("10.0.0.0/8".parse(), Ok(network));
        for wrong in [
            "10.0.0.1/8",
            "10.0.0.0/7",
            "10.0.0.0/23",
            "10.0.0.0",
            "x/8",
            "10.0.0.0/256",
        ] {
            assert!(wrong.parse::<VirtualNetwork>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn known_addresses() {
        // From `hashlib.sha256` of the same bytes.
        let id = AnonymousId([1; 32]);
        assert_eq!(ipv6(&id).to_string(), KNOWN_IPV6);
        let network = VirtualNetwork::default();
        assert_eq!(ipv4_candidate(&id, 0, &network).to_string(), KNOWN_IPV4[0]);
        assert_eq!(ipv4_candidate(&id, 1, &network).to_string(), KNOWN_IPV4[1]);
    }
    const KNOWN_IPV6: &str = "fd5d:9480:4ab0:73fb:32ba:67c8:d950:b4e7";
    const KNOWN_IPV4: [&str; 2] = ["10.45.92.10", "10.151.24.167"];

    proptest! {
        #[test]
        fn candidates_can_be_leased(id: [u8; 32], attempt: u32, length in 8u8..=22, prefix: u32) {
            let shared = u32::MAX << (32 - u32::from(length));
            let network = VirtualNetwork::new(Ipv4Addr::from_bits(prefix & shared), length).unwrap();
            let id = AnonymousId(id);
            prop_assert!(network.leasable(ipv4_candidate(&id, attempt, &network)));
            prop_assert_eq!(ipv6(&id).octets()[0], 0xfd);
        }
    }
}
