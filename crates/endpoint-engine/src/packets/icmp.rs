//! Rejecting packets: ICMP errors for what cannot be delivered, and TCP resets.
//!
//! A packet that cannot go to its peer is answered at once, so that no application waits for a
//! timeout. ICMP (RFC 792, RFC 4443) ends the opening of a TCP connection. One that is established
//! takes it for news that may be outdated soon (RFC 1122, section 4.2.3.9), and goes on trying, at a
//! steady pace (RFC 6069): the peer may only sleep. It is reset when its peer says that it is over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_relay_common::checksum::Sum;

use crate::packets::headers::{FlowKey, IpPacket, is_group, parse, protocol};

/// At most so many answers in a second, so that no flood becomes two (RFC 1812, section 4.3.2.8).
pub const PER_SECOND: u32 = 200;
/// At most so many answers at once.
pub const BURST: u32 = 100;
/// The longest ICMPv6 error: the minimum MTU (RFC 4443, section 2.4). ICMP errors quote as much
/// as fits 576 bytes (RFC 1812, section 4.3.2.3).
const LONGEST_V6: usize = 1280;
const LONGEST_V4: usize = 576;
const TTL: u8 = 64;

/// Why a packet does not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody has that address, or cannot be reached: host unreachable (type 3 code 1), address
    /// unreachable (type 1 code 3); no route (type 1 code 0) about a TCP connection that is open, which
    /// is what has it go on at a steady pace over IPv6 (RFC 6069, section 4.1).
    Unreachable,
    /// It is not allowed from this source address: type 3 code 13, type 1 code 5.
    Prohibited,
    /// It is longer than this, and must not be fragmented: type 3 code 4, type 2.
    TooBig(u16),
}

/// The answer to a packet that does not go, as if from its destination. `None` if it must not be
/// answered: an error, something to or from more than one host, a later fragment, a reset.
#[must_use]
pub fn error_for(bytes: &[u8], why: Rejection) -> Option<Vec<u8>> {
    let packet = parse(bytes)?;
    let source_ok = match packet.flow.source {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_loopback(),
    };
    if !source_ok
        || is_group(&packet.flow.source)
        || is_group(&packet.flow.destination)
        || packet.later_fragment
        || is_error(&packet)
    {
        return None;
    }
    let segment = (packet.flow.protocol == protocol::TCP)
        .then(|| Segment::read(packet.payload))
        .flatten();
    if segment.is_some_and(|segment| segment.reset) {
        return None;
    }
    let open = segment.is_some_and(|segment| !segment.syn || segment.acknowledges);
    match (packet.flow.destination, packet.flow.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(error_v4(bytes, from, to, why)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(error_v6(bytes, from, to, why, open)),
        _ => None,
    }
}

/// ICMP errors are never answered by ICMP errors (RFC 1122, section 3.2.2).
fn is_error(packet: &IpPacket<'_>) -> bool {
    match (packet.flow.protocol, packet.payload.first()) {
        (protocol::ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (protocol::ICMPV6, Some(kind)) => *kind < 128,
        (protocol::ICMP | protocol::ICMPV6, None) => true,
        _ => false,
    }
}

/// What of a TCP segment decides how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Number of its first byte, or of its SYN.
    pub sequence: u32,
    /// What its sender expects next.
    pub ack: u32,
    /// It opens a connection.
    pub syn: bool,
    /// It resets one.
    pub reset: bool,
    /// It is the last of its direction.
    pub finishes: bool,
    /// Its `ack` means something.
    pub acknowledges: bool,
}

impl Segment {
    /// Reads a TCP header (RFC 9293, section 3.1); `None` if it is cut short.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let header = payload.first_chunk::<20>()?;
        let [_, _, _, _, e, f, g, h, a, b, c, d, _, flags, ..] = *header;
        Some(Self {
            sequence: u32::from_be_bytes([e, f, g, h]),
            ack: u32::from_be_bytes([a, b, c, d]),
            finishes: flags & 0x01 != 0,
            syn: flags & 0x02 != 0,
            reset: flags & 0x04 != 0,
            acknowledges: flags & 0x10 != 0,
        })
    }
}

/// A TCP reset of a flow, towards its source. `sequence` is what the source expects next, which
/// is what makes it believe the reset (RFC 5961, section 3.2). `acknowledge` is for the answer
/// to a connection that is only being opened.
#[must_use]
pub fn reset(flow: &FlowKey, sequence: u32, acknowledge: Option<u32>) -> Vec<u8> {
    let (source_port, destination_port) = flow.ports;
    let mut tcp = Vec::with_capacity(20);
    tcp.extend_from_slice(&destination_port.to_be_bytes());
    tcp.extend_from_slice(&source_port.to_be_bytes());
    tcp.extend_from_slice(&sequence.to_be_bytes());
    tcp.extend_from_slice(&acknowledge.unwrap_or(0).to_be_bytes());
    tcp.extend_from_slice(&[5 << 4, if acknowledge.is_some() { 0x14 } else { 0x04 }]);
    tcp.extend_from_slice(&[0; 6]);
    match (flow.destination, flow.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let sum = Sum::pseudo_header(&addresses, protocol::TCP, 20).with(&tcp);
            tcp[16..18].copy_from_slice(&sum.checksum());
            packet_v4(from, to, protocol::TCP, &tcp)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let sum = Sum::pseudo_header(&addresses, protocol::TCP, 20).with(&tcp);
            tcp[16..18].copy_from_slice(&sum.checksum());
            packet_v6(from, to, protocol::TCP, &tcp)
        }
        // A flow has one family: its key is read from one packet.
        _ => Vec::new(),
    }
}

fn error_v4(about: &[u8], from: Ipv4Addr, to: Ipv4Addr, why: Rejection) -> Vec<u8> {
    let (code, mtu) = match why {
        Rejection::Unreachable => (1, 0),
        Rejection::Prohibited => (13, 0),
        Rejection::TooBig(mtu) => (4, mtu),
    };
    let quoted = &about[..about.len().min(LONGEST_V4 - 28)];
    let [high, low] = mtu.to_be_bytes();
    let mut icmp = vec![3, code, 0, 0, 0, 0, high, low];
    icmp.extend_from_slice(quoted);
    let sum = Sum::new().with(&icmp).checksum();
    icmp[2..4].copy_from_slice(&sum);
    packet_v4(from, to, protocol::ICMP, &icmp)
}

fn error_v6(about: &[u8], from: Ipv6Addr, to: Ipv6Addr, why: Rejection, open: bool) -> Vec<u8> {
    let (kind, code, mtu) = match why {
        Rejection::Unreachable if open => (1, 0, 0),
        Rejection::Unreachable => (1, 3, 0),
        Rejection::Prohibited => (1, 5, 0),
        Rejection::TooBig(mtu) => (2, 0, mtu),
    };
    let quoted = &about[..about.len().min(LONGEST_V6 - 48)];
    let [high, low] = mtu.to_be_bytes();
    let mut icmp = vec![kind, code, 0, 0, 0, 0, high, low];
    icmp.extend_from_slice(quoted);
    let addresses = [from.octets(), to.octets()].concat();
    let length = u16::try_from(icmp.len()).unwrap_or(0);
    let sum = Sum::pseudo_header(&addresses, protocol::ICMPV6, length).with(&icmp);
    icmp[2..4].copy_from_slice(&sum.checksum());
    packet_v6(from, to, protocol::ICMPV6, &icmp)
}

fn packet_v4(from: Ipv4Addr, to: Ipv4Addr, number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut packet = vec![
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, TTL, number, 0, 0,
    ];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = Sum::new().with(&packet).checksum();
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(payload);
    packet
}

fn packet_v6(from: Ipv6Addr, to: Ipv6Addr, number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], number, TTL];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(payload);
    packet
}
