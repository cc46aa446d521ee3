//! Reads captures (pcap, of Ethernet and of tunnels that carry IP) as far as the tests need: who sends what kind of payload to whom.
//! <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/>

use anyhow::{Context, Result, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of frames (<https://www.tcpdump.org/linktypes.html>).
const ETHERNET: usize = 1;
const RAW: usize = 101;
/// `LINUX_SLL2`, which a capture on all interfaces at once has.
const ALL_INTERFACES: usize = 276;

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

/// `ARPHRD_LOOPBACK` (Linux, `linux/if_arp.h`).
pub const LOOPBACK: u16 = 772;
/// `ARPHRD_NONE`: interfaces that carry packets without a header, as a TUN's does.
pub const TUN: u16 = 0xfffe;

/// One frame of a capture on all interfaces.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The interface's number.
    #[expect(dead_code, reason = "for messages")]
    pub interface: u32,
    /// Its kind, `ARPHRD_*`.
    pub hardware: u16,
    /// What it carries.
    #[expect(dead_code, reason = "for messages")]
    pub frame: Frame<'a>,
    /// Its first bytes from the network layer's header on.
    #[expect(dead_code, reason = "for messages")]
    pub begin: String,
}

/// The frames of a capture file, with all their bytes.
pub fn frames(file: &[u8]) -> Result<Vec<(Frame<'_>, &[u8])>> {
    let (link, records) = records(file)?;
    let parse = match link {
        ETHERNET => parse_ethernet,
        RAW => parse_ip,
        other => bail!("frames of type {other}"),
    };
    let one = |(bytes, length)| {
        let bytes: &[u8] = bytes;
        ensure!(bytes.len() == length, "a frame was cut by the capture");
        let frame = parse(bytes);
        let frame = frame.unwrap_or_else(|e| Frame::Other(format!("{e:#}: {}", hex(bytes))));
        Ok((frame, bytes))
    };
    records.into_iter().map(one).collect()
}

/// The frames of a capture on all interfaces, which may be cut.
/// <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>
pub fn seen(file: &[u8]) -> Result<Vec<Seen<'_>>> {
    let (link, records) = records(file)?;
    ensure!(link == ALL_INTERFACES, "frames of type {link}");
    let one = |(bytes, _)| {
        let mut rest: &[u8] = bytes;
        let header = take(&mut rest, 20)?;
        Ok(Seen {
            interface: u32::from_be_bytes(header[4..8].try_into()?),
            hardware: u16::from_be_bytes(header[8..10].try_into()?),
            frame: network_layer(big(header, 0)?, rest)
                .unwrap_or_else(|error| Frame::Other(format!("{error:#}"))),
            begin: hex(rest),
        })
    };
    records.into_iter().map(one).collect()
}

/// The type of a capture file's frames, and what it has of each with the frame's length.
#[expect(clippy::type_complexity, reason = "said above")]
fn records(file: &[u8]) -> Result<(usize, Vec<(&[u8], usize)>)> {
    let mut rest = file;
    let magic = take(&mut rest, 4)?;
    ensure!(
        magic == [0xd4, 0xc3, 0xb2, 0xa1],
        "no little-endian pcap file"
    );
    take(&mut rest, 16)?;
    let link = little(take(&mut rest, 4)?, 0)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let header = take(&mut rest, 16)?;
        let captured = little(header, 8)?;
        records.push((take(&mut rest, captured)?, little(header, 12)?));
    }
    Ok((link, records))
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

fn little(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 4).context("too short")?;
    Ok(u32::from_le_bytes(field.try_into()?) as usize)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
