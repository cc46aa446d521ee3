//! Headers of IP, TCP and UDP, as far as cutting and gathering rewrite them in place.

use mixline_relay_common::checksum::Sum;

pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
/// The shortest one, and the only one of UDP.
pub(super) const TCP_HEADER: usize = 20;
pub(super) const UDP_HEADER: usize = 8;
/// Protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Where the checksum is in the transport header.
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;
/// Where TCP's flags are (RFC 9293, section 3.1).
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// Source and destination, as the header has them.
fn addresses(network: &[u8], ipv6: bool) -> Option<&[u8]> {
    network.get(if ipv6 { 8..40 } else { 12..20 })
}

/// Writes a packet's length, headers included, into its IP header, and finishes the checksum that
/// IPv4 has there. `network` is the whole IP header.
#[inline]
pub(super) fn set_length(network: &mut [u8], ipv6: bool, length: usize) -> Option<()> {
    let (at, length) = if ipv6 {
        (4..6, length.checked_sub(IPV6_HEADER)?)
    } else {
        (2..4, length)
    };
    let length = u16::try_from(length).ok()?;
    network.get_mut(at)?.copy_from_slice(&length.to_be_bytes());
    if !ipv6 {
        network.get_mut(10..12)?.fill(0);
        let checksum = Sum::new().with(network).checksum();
        network.get_mut(10..12)?.copy_from_slice(&checksum);
    }
    Some(())
}

/// The sum of the pseudo-header of `protocol`, with a transport header and payload of `length` bytes.
#[inline]
pub(super) fn pseudo_header(
    network: &[u8],
    ipv6: bool,
    protocol: u8,
    length: usize,
) -> Option<Sum> {
    let length = u16::try_from(length).ok()?;
    Some(Sum::pseudo_header(
        addresses(network, ipv6)?,
        protocol,
        length,
    ))
}
