//! Frames, as a neighbour's network card would hand them over.

use std::net::Ipv4Addr;

use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_common::checksum::Sum;
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
    let checksum = udp_sum(&frame).udp_checksum();
    frame[UDP + 6..UDP + 8].copy_from_slice(&checksum);
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

/// The sum over pseudo-header, UDP header and datagram.
fn udp_sum(frame: &Frame) -> Sum {
    let length = u16::from_be_bytes([frame[UDP + 4], frame[UDP + 5]]);
    Sum::pseudo_header(&frame[IP + 12..UDP], frame[IP + 9], length).with(&frame[UDP..FRAME])
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
        assert_eq!(frame[UDP + 4..UDP + 6], 1416u16.to_be_bytes());
        // What includes its own checksum sums up to all ones.
        assert_eq!(Sum::new().with(&frame[IP..UDP]).fold(), [0xff; 2]);
        assert_eq!(udp_sum(&frame).fold(), [0xff; 2]);
        assert_eq!(spoofed(&ends, &datagram)[26..30], [0; 4]);
    }
}
