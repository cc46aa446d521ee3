//! What must not leave a host, found in a capture: packets from or to virtual addresses, address
//! resolution for one, and questions that nobody but the client answers.
//!
//! It looks through whatever may be in the way: options, extension headers, fragments. Captures are of all
//! interfaces at once.

use anyhow::{Context, Result};
use mixline_testnet::pcap::File;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Something that left.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    /// When, seconds of Unix time.
    pub at: f64,
    /// The number of the interface it left by.
    pub interface: u32,
    /// What it is.
    pub kind: Kind,
}

/// What left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A packet from or to a virtual address.
    Packet { from: IpAddr, to: IpAddr },
    /// ARP or neighbour discovery from or for one.
    Neighbour(IpAddr),
    /// A question with these labels of ours, to somebody; no port if that was in another fragment.
    Question {
        to: IpAddr,
        port: Option<usize>,
        labels: &'static str,
    },
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Packet { from, to } => write!(f, "a packet from {from} to {to}")?,
            Kind::Neighbour(address) => write!(f, "address resolution about {address}")?,
            Kind::Question { to, port, labels } => {
                write!(f, "a question with `{labels}` to {to}, port {port:?}")?;
            }
        }
        write!(f, " by interface {} at {:.3}", self.interface, self.at)
    }
}

/// Labels of questions that are ours, as they are on the wire (RFC 1035, section 3.1).
const LABELS: [(&[u8], &str); 3] = [
    (b"\x04anon", "anon"),
    (b"\x0210\x07in-addr", "10.in-addr"),
    (b"\x01d\x01f\x03ip6", "d.f.ip6"),
];

/// The leaks in a capture file. What others have inside the virtual network is none: networks of 16 bits,
/// by their second octet.
pub fn find(file: &[u8], neighbourhoods: &[u8]) -> Result<Vec<Leak>> {
    let look = Look { neighbourhoods };
    let mut leaks = Vec::new();
    for (captured, seen) in File::read_all_interfaces(file)? {
        if seen.is_inside() {
            continue;
        }
        captured.whole()?;
        let (interface, packet) = (seen.interface, seen.packet);
        // What cannot be read is no packet of this host's kernel.
        let kind = look
            .frame(seen.protocol, packet)
            .with_context(|| format!("on interface {interface}: {packet:02x?}"))?;
        leaks.extend(kind.map(|kind| Leak {
            at: captured.at.as_secs_f64(),
            interface,
            kind,
        }));
    }
    Ok(leaks)
}

struct Look<'a> {
    neighbourhoods: &'a [u8],
}

impl Look<'_> {
    fn is_virtual(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let [first, second, ..] = address.octets();
                first == 10 && !self.neighbourhoods.contains(&second)
            }
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        }
    }

    fn frame(&self, protocol: u16, packet: &[u8]) -> Result<Option<Kind>> {
        match protocol {
            // RFC 826, with IPv4 on Ethernet.
            0x0806 => {
                let asked = [v4(packet, 14)?, v4(packet, 24)?];
                let mut ours = asked
                    .into_iter()
                    .filter(|address| self.is_virtual(*address));
                Ok(ours.next().map(Kind::Neighbour))
            }
            0x0800 => self.ipv4(packet),
            0x86dd => self.ipv6(packet),
            _ => Ok(None),
        }
    }

    fn ipv4(&self, packet: &[u8]) -> Result<Option<Kind>> {
        let (from, to) = (v4(packet, 12)?, v4(packet, 16)?);
        let header = usize::from(packet[0] & 15) * 4;
        let payload = packet.get(header..).context("a short IPv4 packet")?;
        // The rest of a fragment has no header of its own.
        let first = big(packet, 6)? & 0x1fff == 0;
        self.packet(from, to, packet[9], payload, first)
    }

    fn ipv6(&self, packet: &[u8]) -> Result<Option<Kind>> {
        let (from, to) = (v6(packet, 8)?, v6(packet, 24)?);
        let mut rest = packet.get(40..).context("a short IPv6 packet")?;
        let (mut protocol, mut first) = (packet[6], true);
        // RFC 8200, section 4.
        while let 0 | 43 | 44 | 60 = protocol {
            let length = match protocol {
                44 => {
                    first = big(rest, 2)? & 0xfff8 == 0;
                    8
                }
                _ => usize::from(*rest.get(1).context("a short header")?) * 8 + 8,
            };
            protocol = take(&mut rest, length)?[0];
        }
        // RFC 4861, sections 4.3 and 4.4.
        if protocol == 58 && matches!(rest.first(), Some(135 | 136)) {
            let target = v6(rest, 8)?;
            if self.is_virtual(target) {
                return Ok(Some(Kind::Neighbour(target)));
            }
        }
        self.packet(from, to, protocol, rest, first)
    }

    fn packet(
        &self,
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        rest: &[u8],
        first: bool,
    ) -> Result<Option<Kind>> {
        if self.is_virtual(from) || self.is_virtual(to) {
            return Ok(Some(Kind::Packet { from, to }));
        }
        let payload = match protocol {
            17 if first => rest.get(8..).context("a short UDP header")?,
            6 if first => {
                let header = usize::from(*rest.get(12).context("a short TCP header")? >> 4) * 4;
                rest.get(header..).context("a short TCP header")?
            }
            17 | 6 => rest,
            _ => return Ok(None),
        };
        let port = first.then(|| big(rest, 2)).transpose()?;
        let labels = self.question(payload);
        Ok(labels.map(|labels| Kind::Question { to, port, labels }))
    }

    /// The labels of ours in a payload, whatever port it goes to.
    fn question(&self, payload: &[u8]) -> Option<&'static str> {
        let payload = payload.to_ascii_lowercase();
        let is_neighbours = |before: &[u8]| {
            self.neighbourhoods.iter().any(|octet| {
                let label = octet.to_string();
                before
                    .strip_suffix(label.as_bytes())
                    .is_some_and(|rest| rest.last() == Some(&(label.len() as u8)))
            })
        };
        let found = LABELS.into_iter().find(|(wire, _)| {
            let mut places = (0..payload.len()).filter(|at| payload[*at..].starts_with(wire));
            places.any(|at| !wire.ends_with(b"in-addr") || !is_neighbours(&payload[..at]))
        });
        found.map(|(_, labels)| labels)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length).context("too short")?;
    *rest = left;
    Ok(taken)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let field = bytes.get(at..at + N).context("too short")?;
    Ok(field.try_into()?)
}

fn big(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(usize::from(u16::from_be_bytes(field(bytes, at)?)))
}

fn v4(bytes: &[u8], at: usize) -> Result<IpAddr> {
    Ok(Ipv4Addr::from(field::<4>(bytes, at)?).into())
}

fn v6(bytes: &[u8], at: usize) -> Result<IpAddr> {
    Ok(Ipv6Addr::from(field::<16>(bytes, at)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capture of one frame, on interface 5 of Ethernet unless it is of another kind.
    fn capture(protocol: u16, kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1];
        file.extend([0; 16]);
        file.extend(276u32.to_le_bytes());
        file.extend([0; 8]);
        let length = (packet.len() as u32 + 20).to_le_bytes();
        file.extend(length);
        file.extend(length);
        file.extend(protocol.to_be_bytes());
        file.extend([0, 0, 0, 0, 0, 5]);
        file.extend(kind.to_be_bytes());
        file.extend([4, 6]);
        file.extend([0; 8]);
        file.extend(packet);
        file
    }

    fn found(protocol: u16, packet: &[u8], near: &[u8]) -> Vec<Kind> {
        let leaks = find(&capture(protocol, 1, packet), near).unwrap();
        leaks.into_iter().map(|leak| leak.kind).collect()
    }

    fn udp4(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend([0; 8]);
        packet.extend(payload);
        packet
    }

    fn udp6(to: Ipv6Addr, headers: &[u8], first: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, first, 64];
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend(to.octets());
        packet.extend(headers);
        packet.extend(payload);
        packet
    }

    const HOST: [u8; 4] = [198, 18, 0, 2];
    const SERVER: [u8; 4] = [198, 18, 0, 1];

    #[test]
    fn virtual_packets_are_found_and_others_are_not() {
        let to = udp4(HOST, [10, 1, 2, 3], b"x");
        assert!(matches!(found(0x0800, &to, &[])[..], [Kind::Packet { .. }]));
        let from = udp4([10, 1, 2, 3], HOST, b"x");
        assert!(matches!(
            found(0x0800, &from, &[2])[..],
            [Kind::Packet { .. }]
        ));
        assert!(found(0x0800, &to, &[1]).is_empty());
        assert!(found(0x0800, &udp4(HOST, SERVER, b"x"), &[]).is_empty());
        let six = udp6("fd12::1".parse().unwrap(), &[], 17, &[0; 9]);
        assert!(matches!(
            found(0x86dd, &six, &[])[..],
            [Kind::Packet { .. }]
        ));
        // The same on the loopback is at home.
        assert!(find(&capture(0x0800, 772, &to), &[]).unwrap().is_empty());
    }

    #[test]
    fn resolution_of_virtual_addresses_is_found() {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0];
        arp.extend(HOST);
        arp.extend([0; 6]);
        arp.extend([10, 1, 2, 3]);
        let kind = found(0x0806, &arp, &[]);
        assert_eq!(kind, [Kind::Neighbour("10.1.2.3".parse().unwrap())]);
        let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
        let target: Ipv6Addr = "fd12::1".parse().unwrap();
        solicitation.extend(target.octets());
        let to = "ff02::1:ff00:1".parse().unwrap();
        let kind = found(0x86dd, &udp6(to, &[], 58, &solicitation), &[]);
        assert_eq!(kind, [Kind::Neighbour(target.into())]);
    }

    #[test]
    fn questions_are_found_wherever_they_go_and_however_they_are_written() {
        let labels = |payload: &[u8], near: &[u8]| {
            let kinds = found(0x0800, &udp4(HOST, SERVER, payload), near);
            kinds.into_iter().find_map(|kind| match kind {
                Kind::Question { labels, .. } => Some(labels),
                _ => None,
            })
        };
        assert_eq!(labels(b"head\x01x\x04AnOn\x04corp\0", &[]), Some("anon"));
        assert_eq!(labels(b"head\x01x\x05anons\0", &[]), None);
        let reverse = b"head\x013\x012\x011\x0210\x07in-addr\x04arpa\0";
        assert_eq!(labels(reverse, &[2]), Some("10.in-addr"));
        assert_eq!(labels(reverse, &[1]), None);
        let six = b"head\x011\x01d\x01f\x03ip6\x04arpa\0";
        assert_eq!(labels(six, &[1]), Some("d.f.ip6"));
        // Behind extension headers, too.
        let server = "2001:db8::1".parse().unwrap();
        let options = [17, 0, 0, 0, 0, 0, 0, 0];
        let packet = udp6(server, &options, 60, b"12345678head\x01x\x04anon\0");
        assert!(matches!(
            found(0x86dd, &packet, &[])[..],
            [Kind::Question { .. }]
        ));
    }

    #[test]
    fn a_capture_that_is_cut_is_an_error() {
        let whole = capture(0x0800, 1, &udp4(HOST, SERVER, b"x"));
        for length in 24..whole.len() {
            let cut = &whole[..length];
            assert_eq!(find(cut, &[]).is_ok(), length == 24, "{length}");
        }
        assert!(find(&[], &[]).is_err());
    }
}
