//! IP packets by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_relay_common::checksum::Sum;

/// An IPv4 or IPv6 packet.
pub fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, protocol, payload),
        _ => panic!("one family"),
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = Sum::new().with(&packet).checksum();
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A UDP datagram (without checksum, which nobody here looks at).
pub fn udp(
    from: impl Into<IpAddr>,
    to: impl Into<IpAddr>,
    ports: (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    let mut payload = Vec::new();
    for part in [ports.0, ports.1, length, 0] {
        payload.extend_from_slice(&part.to_be_bytes());
    }
    payload.extend_from_slice(data);
    ip_packet(from.into(), to.into(), 17, &payload)
}

/// A TCP segment without data.
pub fn tcp(
    from: impl Into<IpAddr>,
    to: impl Into<IpAddr>,
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    ack: u32,
) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&ports.0.to_be_bytes());
    payload.extend_from_slice(&ports.1.to_be_bytes());
    payload.extend_from_slice(&sequence.to_be_bytes());
    payload.extend_from_slice(&ack.to_be_bytes());
    payload.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ip_packet(from.into(), to.into(), 6, &payload)
}

/// Protocol number, and for ICMP errors type and code.
pub fn kind_of(packet: &[u8]) -> (u8, Option<(u8, u8)>) {
    let (protocol, at) = if packet[0] >> 4 == 4 {
        (packet[9], 20)
    } else {
        (packet[6], 40)
    };
    let icmp = matches!(protocol, 1 | 58).then(|| (packet[at], packet[at + 1]));
    (protocol, icmp)
}
