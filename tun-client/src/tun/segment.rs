//! Cutting what the kernel hands over into IP packets.
//!
//! With the interface's offloads on, one read yields a packet whose transport checksum
//! may be unfinished, or a superpacket: TCP data of up to 64 KiB behind one header, or
//! UDP datagrams of one length. [`Split`] goes through such a read packet by packet, so
//! that it can stop where a batch is full and go on with the next.

use mixline_relay_common::checksum::Sum;

use super::headers::{
    CWR, FIN, IPV4_HEADER, IPV6_HEADER, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, UDP,
    UDP_CHECKSUM, UDP_HEADER, pseudo_header, set_length,
};
use super::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Malformed, NEEDS_CHECKSUM, VirtioHeader,
};

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
        let (network, transport) = out.split_at_mut(self.ip);
        self.network_header(network, length)?;
        self.transport_header(network, transport, last)?;
        self.next += payload.len();
        self.index += 1;
        Some(length)
    }

    fn network_header(&self, network: &mut [u8], length: usize) -> Option<()> {
        if !self.ipv6 {
            let id = network.get_mut(4..6)?;
            let first = u16::from_be_bytes(id.try_into().ok()?);
            id.copy_from_slice(&first.wrapping_add(self.index as u16).to_be_bytes());
        }
        set_length(network, self.ipv6, length)
    }

    fn transport_header(&self, network: &[u8], transport: &mut [u8], last: bool) -> Option<()> {
        let length = transport.len();
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
            let field = transport.get_mut(4..6)?;
            field.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
            UDP_CHECKSUM
        };
        transport.get_mut(at..at + 2)?.fill(0);
        let sum = pseudo_header(network, self.ipv6, self.protocol, length)?.with(transport);
        let checksum = match self.protocol {
            UDP => sum.udp_checksum(),
            _ => sum.checksum(),
        };
        transport.get_mut(at..at + 2)?.copy_from_slice(&checksum);
        Some(())
    }
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
