//! Cutting what the kernel hands over into IP packets.
//!
//! With the interface's offloads on, one read yields a packet whose transport checksum
//! may be unfinished, or a superpacket: TCP data of up to 64 KiB behind one header, or
//! UDP datagrams of one length. [`Split`] goes through such a read packet by packet, so
//! that it can stop where a batch is full and go on with the next.

use mixline_relay_common::checksum::Sum;

use super::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Malformed, NEEDS_CHECKSUM, VirtioHeader,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Where the checksum is in the transport header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Where TCP's flags are (RFC 9293, section 3.1).
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A position in one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// A packet by itself, or nothing once it was taken.
    Whole(bool),
    /// A superpacket.
    Segments(Segments),
}

/// A position in a superpacket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    ipv6: bool,
    protocol: u8,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of both headers.
    headers: usize,
    /// Bytes of payload in each packet.
    segment: usize,
    /// Where in the superpacket the next payload begins.
    next: usize,
    /// How many packets were cut.
    index: usize,
}

impl Split {
    /// Looks at one read. A packet's unfinished checksum is finished in place.
    ///
    /// # Errors
    /// [`Malformed`] where header and packet do not fit each other.
    pub fn new(header: &VirtioHeader, packet: &mut [u8]) -> Result<Self, Malformed> {
        if header.gso_type == GSO_NONE {
            if header.flags & NEEDS_CHECKSUM != 0 {
                finish_checksum(header, packet)?;
            }
            return Ok(Self::Whole(true));
        }
        let ipv6 = match packet.first().map(|byte| byte >> 4) {
            Some(4) => false,
            Some(6) => true,
            _ => return Err(Malformed),
        };
        let protocol = match (header.gso_type & !GSO_ECN, ipv6) {
            (GSO_TCPV4, false) | (GSO_TCPV6, true) => TCP,
            (GSO_UDP_L4, _) if header.gso_type & GSO_ECN == 0 => UDP,
            _ => return Err(Malformed),
        };
        // The header's own `header_length` is a hint: on a forwarded packet it may cover
        // payload. The transport header says how long it is.
        let ip = usize::from(header.checksum_start);
        let transport = match protocol {
            TCP => usize::from(packet.get(ip + 12).ok_or(Malformed)? >> 4) * 4,
            _ => UDP_HEADER,
        };
        let shortest = if protocol == TCP {
            TCP_HEADER
        } else {
            UDP_HEADER
        };
        let headers = ip + transport;
        if ip < (if ipv6 { IPV6_HEADER } else { IPV4_HEADER })
            || transport < shortest
            || headers > packet.len()
            || header.segment == 0
            || packet.len() > usize::from(u16::MAX)
        {
            return Err(Malformed);
        }
        Ok(Self::Segments(Segments {
            ipv6,
            protocol,
            ip,
            headers,
            segment: header.segment.into(),
            next: headers,
            index: 0,
        }))
    }

    /// Writes the next packet to the front of `out`; its length, or `None` at the end.
    /// `packet` is the same bytes as in [`Self::new`]; `out` has room for the longest IP
    /// packet.
    pub fn next(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Whole(there) => {
                if !std::mem::take(there) {
                    return None;
                }
                out.get_mut(..packet.len())?.copy_from_slice(packet);
                Some(packet.len())
            }
            Self::Segments(segments) => segments.next(packet, out),
        }
    }
}

impl Segments {
    fn next(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let payload = packet.get(self.next..)?;
        let payload = payload.get(..self.segment).unwrap_or(payload);
        if payload.is_empty() {
            return None;
        }
        let last = self.next + payload.len() == packet.len();
        let length = self.headers + payload.len();
        let out = out.get_mut(..length)?;
        let (headers, body) = out.split_at_mut(self.headers);
        headers.copy_from_slice(packet.get(..self.headers)?);
        body.copy_from_slice(payload);
        self.network_header(out, length)?;
        self.transport_header(out, length, last)?;
        self.next += payload.len();
        self.index += 1;
        Some(length)
    }

    fn network_header(&self, out: &mut [u8], length: usize) -> Option<()> {
        if self.ipv6 {
            let payload = u16::try_from(length - IPV6_HEADER).ok()?;
            out.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
        } else {
            let id = u16::from_be_bytes([*out.get(4)?, *out.get(5)?]);
            let id = id.wrapping_add(self.index as u16);
            out.get_mut(2..4)?
                .copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
            out.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
            finish_ipv4(out.get_mut(..self.ip)?)?;
        }
        Some(())
    }

    fn transport_header(&self, out: &mut [u8], length: usize, last: bool) -> Option<()> {
        let transport_length = u16::try_from(length - self.ip).ok()?;
        let (ip, transport) = out.split_at_mut(self.ip);
        let at = if self.protocol == TCP {
            let sequence = transport.get_mut(4..8)?;
            let first = u32::from_be_bytes(sequence.try_into().ok()?);
            let advance = (self.next - self.headers) as u32;
            sequence.copy_from_slice(&first.wrapping_add(advance).to_be_bytes());
            let flags = transport.get_mut(TCP_FLAGS)?;
            if !last {
                *flags &= !(FIN | PSH);
            }
            if self.index > 0 {
                // Set once for the whole superpacket (RFC 3168, section 6.1.2).
                *flags &= !CWR;
            }
            TCP_CHECKSUM
        } else {
            transport
                .get_mut(4..6)?
                .copy_from_slice(&transport_length.to_be_bytes());
            UDP_CHECKSUM
        };
        transport.get_mut(at..at + 2)?.fill(0);
        let addresses = addresses(ip, self.ipv6)?;
        let sum = Sum::pseudo_header(addresses, self.protocol, transport_length).with(transport);
        let checksum = match self.protocol {
            UDP => sum.udp_checksum(),
            _ => sum.checksum(),
        };
        transport.get_mut(at..at + 2)?.copy_from_slice(&checksum);
        Some(())
    }
}

/// Source and destination, as the header has them.
pub(super) fn addresses(ip: &[u8], ipv6: bool) -> Option<&[u8]> {
    if ipv6 { ip.get(8..40) } else { ip.get(12..20) }
}

/// Computes an IPv4 header's checksum.
pub(super) fn finish_ipv4(header: &mut [u8]) -> Option<()> {
    header.get_mut(10..12)?.fill(0);
    let checksum = Sum::new().with(header).checksum();
    header.get_mut(10..12)?.copy_from_slice(&checksum);
    Some(())
}

/// Completes a checksum that covers the pseudo-header only (CHECKSUM_PARTIAL).
fn finish_checksum(header: &VirtioHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    let start = usize::from(header.checksum_start);
    let at = usize::from(header.checksum_offset);
    let transport = packet.get_mut(start..).ok_or(Malformed)?;
    // The sum of the pseudo-header is where the checksum belongs.
    let sum = Sum::new().with(transport);
    let checksum = match at {
        UDP_CHECKSUM => sum.udp_checksum(),
        _ => sum.checksum(),
    };
    transport
        .get_mut(at..at + 2)
        .ok_or(Malformed)?
        .copy_from_slice(&checksum);
    Ok(())
}
