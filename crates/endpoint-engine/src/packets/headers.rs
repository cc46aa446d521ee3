//! What of an IP packet decides where it goes.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Addresses, protocol and ports: what ECMP routers hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// Where from.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// IP protocol; for IPv6 the first next header.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP; 0 for all else, and for all fragments of a
    /// packet, so that these stay together.
    pub ports: (u16, u16),
}

impl Hash for FlowKey {
    /// In as few pieces as possible: it is hashed for each packet, and a keyed hash takes longer for each piece.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (from, to) = self.ports;
        let rest = u64::from(self.protocol) << 32 | u64::from(from) << 16 | u64::from(to);
        match (self.source, self.destination) {
            // 104 bits.
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let both = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
                state.write_u128(u128::from(both) << 64 | u128::from(rest));
            }
            (source, destination) => {
                AddressKey::from(source).hash(state);
                AddressKey::from(destination).hash(state);
                state.write_u64(rest);
            }
        }
    }
}

/// An address of either family, which hashes in one piece: that of IPv4 is in the form that IPv6 has for it (RFC 4291,
/// section 2.5.5.2), and is not equal to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressKey {
    bits: u128,
    is_v4: bool,
}

impl Hash for AddressKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.bits);
    }
}

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for AddressKey {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            bits: address.to_ipv6_mapped().to_bits(),
            is_v4: true,
        }
    }
}

impl From<Ipv6Addr> for AddressKey {
    fn from(address: Ipv6Addr) -> Self {
        Self {
            bits: address.to_bits(),
            is_v4: false,
        }
    }
}

impl FlowKey {
    /// The flow of the answers.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            ports: (self.ports.1, self.ports.0),
        }
    }
}

/// A packet whose IP header is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// Which flow it belongs to.
    pub flow: FlowKey,
    /// What follows the IP header (without looking into IPv6 extension headers).
    pub payload: &'a [u8],
    /// IPv4 only: it must not be fragmented.
    pub dont_fragment: bool,
    /// It is a fragment, and not the first.
    pub later_fragment: bool,
}

/// Reads the header of an IPv4 or IPv6 packet. `None` if it is neither, or its lengths
/// disagree with its bytes.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<IpPacket<'_>> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if length < 20 || total < length || total != bytes.len() {
        return None;
    }
    let payload = bytes.get(length..)?;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let fragment = flags & 0x3fff != 0;
    let [.., a, b, c, d, e, f, g, h] = *header;
    Some(IpPacket {
        flow: FlowKey {
            source: Ipv4Addr::new(a, b, c, d).into(),
            destination: Ipv4Addr::new(e, f, g, h).into(),
            protocol: header[9],
            ports: if fragment {
                (0, 0)
            } else {
                ports(header[9], payload)
            },
        },
        payload,
        dont_fragment: flags & 0x4000 != 0,
        later_fragment: flags & 0x1fff != 0,
    })
}

fn parse_v6(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let (header, payload) = bytes.split_first_chunk::<40>()?;
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != payload.len() {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    Some(IpPacket {
        flow: FlowKey {
            source: address(8)?,
            destination: address(24)?,
            protocol: header[6],
            ports: ports(header[6], payload),
        },
        payload,
        dont_fragment: true,
        later_fragment: false,
    })
}

fn ports(number: u8, payload: &[u8]) -> (u16, u16) {
    match (number, payload) {
        (protocol::TCP | protocol::UDP, [a, b, c, d, ..]) => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => (0, 0),
    }
}

/// Whether a packet to this address is for more than one receiver.
#[must_use]
pub fn is_group(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    fn hash(flow: &FlowKey) -> u64 {
        let mut hasher = DefaultHasher::new();
        flow.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn all_of_a_flow_counts_in_its_hash() {
        let v4 = |last: u8| IpAddr::from([192, 0, 2, last]);
        let v6 = |last: u16| IpAddr::from([0xfd54, 0, 0, 0, 0, 0, 0, last]);
        for (a, b) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            let flow = FlowKey {
                source: a,
                destination: b,
                protocol: protocol::TCP,
                ports: (1, 2),
            };
            let udp = FlowKey {
                protocol: protocol::UDP,
                ..flow
            };
            let ports = [(2, 1), (1, 3), (3, 2)].map(|ports| FlowKey { ports, ..flow });
            let other = FlowKey { source: b, ..flow };
            let another = FlowKey {
                destination: a,
                ..flow
            };
            let others = [flow.reversed(), udp, other, another]
                .into_iter()
                .chain(ports);
            assert!(others.into_iter().all(|it| hash(&it) != hash(&flow)));
        }
    }

    #[test]
    fn addresses_of_both_families_are_apart() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(AddressKey::from(v4), IpAddr::from(v4).into());
        assert_ne!(AddressKey::from(v4), Ipv4Addr::new(192, 0, 2, 2).into());
        let v6 = Ipv6Addr::from_bits(u128::from(v4.to_bits()));
        assert_ne!(AddressKey::from(v4), v6.into());
        assert_ne!(AddressKey::from(v4), v4.to_ipv6_mapped().into());
    }
}
