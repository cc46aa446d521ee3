//! Datagrams in frames: found where the XDP program found them, and given new headers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_common::frame::{
    self, CHECKSUM_IN_UDP, Route, headers_length, write_headers, write_headers_for_offload,
};
use mixline_relay_common::maps::{Address, mapped};
use mixline_xdp::{Kernel, Packet, Socket};

/// Bytes at the front of a frame that are looked at first: its headers, and the datagram's.
pub(super) const HEADERS: usize = 128;
/// Bytes of a frame over IPv6.
const LONGEST_FRAME: usize = headers_length(false) + DATAGRAM;

/// Bytes before the datagram that the XDP program found in a frame.
fn headers_of(frame: &[u8]) -> Option<usize> {
    frame::udp(frame)
        .filter(|udp| udp.whole)
        .map(|udp| udp.payload)
}

/// The datagram in a frame, and who sent it.
pub(super) fn datagram_of(packet: &mut Packet) -> Option<(&mut Datagram, SocketAddr)> {
    let payload = headers_of(packet)?;
    let (address, port) = frame::sender(&**packet, payload)?;
    let source = SocketAddr::new(ip_of(address), port);
    Some((packet.get_mut(payload..)?.first_chunk_mut()?, source))
}

/// The datagram in a frame.
pub(super) fn datagram_in(packet: &Packet) -> Option<&Datagram> {
    packet.get(headers_of(packet)?..)?.first_chunk()
}

/// Puts new headers before the datagram of a received frame. If they have another length, the
/// frame is exchanged for a free one; without one, it comes back.
pub(super) fn readdress<K: Kernel>(
    packet: Packet,
    route: &Route,
    socket: &mut Socket<K>,
) -> Result<Packet, Packet> {
    let length = headers_length(frame::is_mapped(&route.to));
    let mut packet = with_room_for(length, packet, socket)?;
    if write(&mut packet, route, length) {
        Ok(packet)
    } else {
        Err(packet)
    }
}

/// A frame with so many bytes before its datagram and none behind it: this one, or a free one instead.
fn with_room_for<K: Kernel>(
    length: usize,
    packet: Packet,
    socket: &mut Socket<K>,
) -> Result<Packet, Packet> {
    let Some(payload) = headers_of(&packet) else {
        return Err(packet);
    };
    if payload == length && packet.len() == length + DATAGRAM {
        return Ok(packet);
    }
    let mut bytes = [0; LONGEST_FRAME];
    let datagram = packet.get(payload..).and_then(|rest| rest.first_chunk());
    let Some(datagram): Option<&Datagram> = datagram else {
        return Err(packet);
    };
    bytes[length..length + DATAGRAM].copy_from_slice(datagram);
    let Some(mut other) = socket.take() else {
        return Err(packet);
    };
    if !other.fill(&bytes[..length + DATAGRAM]) {
        socket.free(other);
        return Err(packet);
    }
    socket.free(packet);
    Ok(other)
}

/// Writes the headers, whose UDP checksum the kernel or the card completes, if one of them does.
fn write(packet: &mut Packet, route: &Route, length: usize) -> bool {
    let offload = packet.has_checksum_offload();
    let (headers, datagram) = packet.split_at_mut(length);
    let Some(datagram) = datagram.first_chunk() else {
        return false;
    };
    if !offload {
        return write_headers(headers, route, datagram);
    }
    let udp = frame::udp_header(frame::is_mapped(&route.to));
    write_headers_for_offload(headers, route) && packet.offload_checksum(udp, CHECKSUM_IN_UDP)
}

/// An IP address as frames and maps have it.
pub(super) fn address_of(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn ip_of(address: Address) -> IpAddr {
    let v6 = Ipv6Addr::from(address);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}
