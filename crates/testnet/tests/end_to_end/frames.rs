//! Frames of a capture as far as the tests need: who sends what kind of payload to whom. What is not of the plain
//! shape that the programs and the kernel give it here is something else, and said as such.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::pcap::{ETHERNET, File, OnInterface, RAW};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Address resolution, IPv4's.
    Arp,
    /// ICMPv6 of neighbour discovery (RFC 4861) and multicast listeners (RFC 3810).
    Neighbours,
    /// An ICMP error of a kernel: nobody listens there (any more).
    Unreachable,
    /// A UDP datagram.
    Udp {
        from: IpAddr,
        to: IpAddr,
        ports: [u16; 2],
        payload: &'a [u8],
    },
    /// A TCP segment.
    Tcp {
        from: IpAddr,
        to: IpAddr,
        ports: [u16; 2],
        payload: &'a [u8],
    },
    /// Anything else.
    Other(String),
}

/// The frames of a capture file of one interface, with all their bytes.
pub fn frames(file: &[u8]) -> Result<Vec<(Frame<'_>, &[u8])>> {
    let file = File::read(file)?;
    let parse = match file.link {
        ETHERNET => parse_ethernet,
        RAW => parse_ip,
        other => bail!("frames of type {other}"),
    };
    let one = |bytes| {
        let frame = parse(bytes);
        let frame = frame.unwrap_or_else(|e| Frame::Other(format!("{e:#}: {}", hex(bytes))));
        (frame, bytes)
    };
    let frames = file.frames.iter();
    frames.map(|frame| Ok(one(frame.whole()?))).collect()
}

/// What a message says of a frame of a capture of all interfaces, which may be cut.
pub fn told(seen: &OnInterface<'_>) -> String {
    let frame = network_layer(seen.protocol.into(), seen.packet)
        .unwrap_or_else(|error| Frame::Other(format!("{error:#}")));
    let (interface, hardware) = (seen.interface, seen.hardware);
    let begin = hex(seen.packet);
    format!("{frame:?} on interface {interface} of kind {hardware}: {begin}")
}

/// IP without a header before it.
fn parse_ip(bytes: &[u8]) -> Result<Frame<'_>> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        other => bail!("IP version {other:?}"),
    }
}

fn parse_ethernet(bytes: &[u8]) -> Result<Frame<'_>> {
    let mut rest = bytes;
    let ethernet = take(&mut rest, 14)?;
    network_layer(big(ethernet, 12)?, rest)
}

fn network_layer(kind: usize, rest: &[u8]) -> Result<Frame<'_>> {
    match kind {
        0x0806 => Ok(Frame::Arp),
        0x0800 => ipv4(rest),
        0x86dd => ipv6(rest),
        other => bail!("EtherType {other:#06x}"),
    }
}

fn ipv4(packet: &[u8]) -> Result<Frame<'_>> {
    let length = big(packet, 2)?;
    let mut rest = packet.get(..length).context("a short IPv4 packet")?;
    let header = take(&mut rest, 20)?;
    ensure!(header[0] == 0x45, "IPv4 options");
    ensure!(big(header, 6)? & 0x3fff == 0, "an IPv4 fragment");
    let address = |at: usize| -> Result<IpAddr> {
        let octets: [u8; 4] = header[at..at + 4].try_into()?;
        Ok(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    // Destination unreachable: RFC 792, type 3.
    if header[9] == 1 && rest.first() == Some(&3) {
        return Ok(Frame::Unreachable);
    }
    transport(header[9], address(12)?, address(16)?, rest)
}

fn ipv6(packet: &[u8]) -> Result<Frame<'_>> {
    let length = big(packet, 4)?;
    let mut rest = packet.get(..40 + length).context("a short IPv6 packet")?;
    let header = take(&mut rest, 40)?;
    let address = |at: usize| -> Result<IpAddr> {
        let octets: [u8; 16] = header[at..at + 16].try_into()?;
        Ok(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let mut protocol = header[6];
    if protocol == 0 {
        // Hop-by-hop options, which listener reports carry (RFC 3810, section 5).
        let options = take(&mut rest, 8)?;
        ensure!(options[1] == 0, "long hop-by-hop options");
        protocol = options[0];
        ensure!(
            protocol == 58,
            "hop-by-hop options before protocol {protocol}"
        );
    }
    if protocol == 58 {
        match rest.first() {
            // Destination unreachable: RFC 4443, section 3.1.
            Some(1) => return Ok(Frame::Unreachable),
            Some(131..=137 | 143) => return Ok(Frame::Neighbours),
            other => bail!("ICMPv6 type {other:?}"),
        }
    }
    transport(protocol, address(8)?, address(24)?, rest)
}

fn transport(protocol: u8, from: IpAddr, to: IpAddr, segment: &[u8]) -> Result<Frame<'_>> {
    let ports = [big(segment, 0)?, big(segment, 2)?].map(|port| port as u16);
    match protocol {
        17 => {
            let payload = segment.get(8..).context("a short UDP header")?;
            ensure!(
                big(segment, 4)? == segment.len(),
                "UDP and IP disagree about the length"
            );
            Ok(Frame::Udp {
                from,
                to,
                ports,
                payload,
            })
        }
        6 => {
            let header = usize::from(segment.get(12).context("a short TCP header")? >> 4) * 4;
            let payload = segment.get(header..).context("a short TCP header")?;
            Ok(Frame::Tcp {
                from,
                to,
                ports,
                payload,
            })
        }
        other => bail!("IP protocol {other} from {from} to {to}"),
    }
}

/// Where `needle` is in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack.get(from..)?.iter().position(|byte| *byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length).context("too short")?;
    *rest = left;
    Ok(taken)
}

fn big(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 2).context("too short")?;
    Ok(usize::from(u16::from_be_bytes(field.try_into()?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
