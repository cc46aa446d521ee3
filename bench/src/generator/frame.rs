//! Frames, as a neighbour's network card would hand them over.

use std::net::Ipv4Addr;

use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_common::frame::{Route, write_headers};
use mixline_relay_common::maps::mapped;

use super::abi::{FRAME, Frame, REMARK, ROOM, SPOOF};
use super::addresses::PORT;

/// Bytes before a datagram.
const HEADERS: usize = FRAME - DATAGRAM;
/// Where the IPv4 header stands.
const IP: usize = 14;
/// Where the UDP header stands.
const UDP: usize = IP + 20;

/// The two ends of a wire.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The neighbours' Ethernet address: all are behind one.
    pub from_mac: [u8; 6],
    /// The relay's.
    pub to_mac: [u8; 6],
    /// The relay's address.
    pub to: Ipv4Addr,
}

/// A datagram from a neighbour's address in its frame, with a checksum: without one, the kernel
/// does not merge datagrams for UDP sockets.
#[must_use]
pub fn frame_of(ends: &Ends, from: Ipv4Addr, datagram: &Datagram) -> Frame {
    let mut frame = bare(ends, from, datagram);
    let sum = checksum(&frame[IP + 12..FRAME], u32::from(frame[IP + 9]) + 8 + 1408);
    frame[UDP + 6..UDP + 8].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A datagram whose frame gets another source address each time that it is sent.
#[must_use]
pub fn spoofed(ends: &Ends, datagram: &Datagram) -> Frame {
    let mut frame = bare(ends, Ipv4Addr::UNSPECIFIED, datagram);
    frame[REMARK] = SPOOF;
    frame
}

fn bare(ends: &Ends, from: Ipv4Addr, datagram: &Datagram) -> Frame {
    let mut frame = [0; ROOM];
    let route = Route {
        from_mac: ends.from_mac,
        to_mac: ends.to_mac,
        from: mapped(from.octets()),
        to: mapped(ends.to.octets()),
        from_port: PORT,
        to_port: PORT,
    };
    let written = write_headers(&mut frame[..HEADERS], &route, datagram);
    debug_assert!(written, "headers of IPv4 are as long as the room for them");
    frame[HEADERS..FRAME].copy_from_slice(datagram);
    frame
}

/// The checksum of UDP (RFC 768) over addresses, header and payload, and `sum` of the rest of
/// the pseudo header.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum = words.fold(sum, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_datagram_and_both_checksums() {
        let ends = Ends {
            from_mac: [2; 6],
            to_mac: [4; 6],
            to: Ipv4Addr::new(10, 77, 1, 254),
        };
        let mut datagram = [0xa5; DATAGRAM];
        datagram[77] = 3;
        let frame = frame_of(&ends, Ipv4Addr::new(10, 77, 1, 9), &datagram);
        assert_eq!(frame[HEADERS..FRAME], datagram);
        // What includes its own checksum sums up to nothing.
        assert_eq!(checksum(&frame[IP..UDP], 0), 0xffff);
        assert_eq!(checksum(&frame[IP + 12..FRAME], 17 + 8 + 1408), 0xffff);
        assert_eq!(spoofed(&ends, &datagram)[26..30], [0; 4]);
    }
}
