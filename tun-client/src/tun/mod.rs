//! The TUN interface as the endpoint's packet device.
//!
//! The interface's offloads are on: the kernel hands over TCP and UDP data in
//! superpackets of up to 64 KiB, which [`segment`] cuts into packets of the interface's
//! MTU, and takes such superpackets back, which [`coalesce`] gathers from the packets
//! that arrive. A bulk transfer costs one system call and one pass through the host's
//! stack for some forty packets. Nothing is allocated per packet.

pub(crate) mod coalesce;
pub(crate) mod device;
mod headers;
pub(crate) mod mtu;
pub(crate) mod segment;

/// The header before each packet on a TUN with `IFF_VNET_HDR`: `struct virtio_net_hdr`
/// (Linux, `include/uapi/linux/virtio_net.h`), 10 bytes, in the host's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtioHeader {
    /// [`NEEDS_CHECKSUM`], or nothing.
    pub flags: u8,
    /// What kind of superpacket; [`GSO_NONE`] for a packet.
    pub gso_type: u8,
    /// Bytes of IP and transport header.
    pub header_length: u16,
    /// Bytes of payload in each packet of a superpacket.
    pub segment: u16,
    /// Where the transport header begins.
    pub checksum_start: u16,
    /// Where the checksum is in the transport header.
    pub checksum_offset: u16,
}

/// Bytes of a [`VirtioHeader`].
pub const VIRTIO_HEADER: usize = 10;
/// The transport checksum is that of the pseudo-header alone, and has to be completed.
pub const NEEDS_CHECKSUM: u8 = 1;
/// A packet by itself.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP datagrams of one length.
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type: the congestion window reduced flag is set.
pub const GSO_ECN: u8 = 0x80;

impl VirtioHeader {
    /// Reads a header.
    #[must_use]
    pub fn decode(bytes: &[u8; VIRTIO_HEADER]) -> Self {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            header_length: u16::from_ne_bytes([h0, h1]),
            segment: u16::from_ne_bytes([s0, s1]),
            checksum_start: u16::from_ne_bytes([c0, c1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes a header.
    #[must_use]
    pub fn encode(&self) -> [u8; VIRTIO_HEADER] {
        let [h0, h1] = self.header_length.to_ne_bytes();
        let [s0, s1] = self.segment.to_ne_bytes();
        let [c0, c1] = self.checksum_start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

/// Why a packet from the kernel could not be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed superpacket")]
pub struct Malformed;
