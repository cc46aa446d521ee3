//! Networks of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_protocol::address::VirtualNetwork;

/// The IPv6 network of all derived addresses: `fd00::/8`.
pub const IPV6_NETWORK: Prefix = Prefix {
    address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)),
    length: 8,
};

/// An address and how many of its bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address; behind the prefix it may have bits set.
    pub address: IpAddr,
    /// How many bits: at most 32 or 128.
    pub length: u8,
}

impl Prefix {
    /// An address and a length in bits.
    #[must_use]
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self {
            address: address.into(),
            length,
        }
    }

    /// One address alone.
    #[must_use]
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self::new(address, bits(address))
    }

    /// All addresses of a family.
    #[must_use]
    pub fn everything(ipv6: bool) -> Self {
        if ipv6 {
            Self::new(Ipv6Addr::UNSPECIFIED, 0)
        } else {
            Self::new(Ipv4Addr::UNSPECIFIED, 0)
        }
    }

    /// Whether these are IPv6 addresses.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The network without bits behind the prefix.
    #[must_use]
    pub fn network(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let shift = 32 - u32::from(self.length.min(32));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let shift = 128 - u32::from(self.length.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self {
            address,
            length: self.length,
        }
    }

    /// Its last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let rest = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() | rest))
            }
            IpAddr::V6(address) => {
                let rest = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() | rest))
            }
        }
    }

    /// Whether an address lies in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv6() == address.is_ipv6()
            && Self::new(address, self.length).network() == self.network()
    }

    /// Whether all of `inner` lies in the network.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        inner.length >= self.length && self.contains(inner.address)
    }

    /// Whether the networks have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl From<VirtualNetwork> for Prefix {
    fn from(network: VirtualNetwork) -> Self {
        Self::new(network.prefix, network.length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Bits of an address of this family.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(
            address.parse::<IpAddr>().unwrap(),
            length.parse::<u8>().unwrap(),
        )
    }

    #[test]
    fn what_lies_in_what() {
        let ten = prefix("10.0.0.0/8");
        assert!(ten.contains("10.255.255.255".parse().unwrap()));
        assert!(!ten.contains("11.0.0.0".parse().unwrap()));
        assert!(!ten.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(ten.covers(&prefix("10.1.0.7/16")));
        assert!(!prefix("10.1.0.0/16").covers(&ten));
        assert!(prefix("10.1.0.0/16").overlaps(&ten));
        assert!(!prefix("10.1.0.0/16").overlaps(&prefix("10.2.0.0/16")));
        assert!(prefix("0.0.0.0/0").covers(&ten));
        assert!(!prefix("::/0").covers(&ten));
        assert!(IPV6_NETWORK.covers(&prefix("fd12:3456::1/64")));
        assert!(!IPV6_NETWORK.contains("fe80::1".parse().unwrap()));
        assert_eq!(prefix("10.1.2.3/16").network(), prefix("10.1.0.0/16"));
        assert_eq!(Prefix::host(Ipv4Addr::LOCALHOST), prefix("127.0.0.1/32"));
    }
}
