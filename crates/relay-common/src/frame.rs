//! Finds our datagrams in Ethernet frames, and puts them into frames.
//!
//! ```text
//! Ethernet 14 | [802.1Q tag 4] | IPv4 20 or IPv6 40 | UDP 8 | datagram 1408
//! ```
//!
//! What is not plainly a UDP datagram to our port is the kernel's business: more than one VLAN
//! tag, and IPv4 with options or in fragments, IPv6 with extension headers. Of these, what is for our
//! port is found all the same, so that it can be limited: the kernel would give it to our socket.

use crate::checksum::Sum;
use crate::maps::{Address, mapped};
use crate::wire::{
    DATAGRAM_LENGTH, INDEX_OFFSET, MIN_PROBE_LENGTH, TAG_OFFSET, TYPE_COOKIE, TYPE_DATA,
    TYPE_INITIATION, TYPE_OFFSET, TYPE_PROBE, TYPE_RESPONSE,
};

/// Bytes of a frame, read with a bounds check each time.
pub trait Frame {
    /// The `N` bytes at `offset`, if the frame has them.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// How many bytes the frame has.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// Bytes of an Ethernet header without a tag.
const ETHERNET: usize = 14;
/// Bytes of an 802.1Q tag.
const TAG: usize = 4;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Bytes of a UDP header.
const UDP: usize = 8;
/// What the length field of UDP says for one of our datagrams.
const UDP_LENGTH: u16 = (UDP + DATAGRAM_LENGTH) as u16;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_UDP: u8 = 17;

/// A UDP datagram that may be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Who sent it: the IPv4 address mapped, or the /64 of the IPv6 address, which is what
    /// one host can be assumed to own.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// To which port.
    pub port: u16,
    /// Where the payload starts.
    pub payload: usize,
    /// Whether the lengths of IP, UDP and frame agree on one datagram of ours.
    pub whole: bool,
    /// What UDP says of the payload's length, in bytes.
    pub length: u16,
}

impl Udp {
    /// Whether this is several datagrams of ours in one, as the kernel merges them.
    #[inline(always)]
    #[must_use]
    pub const fn is_merged(&self) -> bool {
        self.length as usize > DATAGRAM_LENGTH
            && (self.length as usize).is_multiple_of(DATAGRAM_LENGTH)
    }
}

/// Finds the UDP datagram in an Ethernet frame; `None` if there is none that could be ours.
#[inline(always)]
pub fn udp<F: Frame + ?Sized>(frame: &F) -> Option<Udp> {
    let mut ip = ETHERNET;
    let mut ethertype = u16::from_be_bytes(frame.bytes(12)?);
    if ethertype == ETHERTYPE_VLAN {
        ethertype = u16::from_be_bytes(frame.bytes(16)?);
        ip = ETHERNET + TAG;
    }
    match ethertype {
        ETHERTYPE_IPV4 => udp_in_ipv4(frame, ip),
        ETHERTYPE_IPV6 => udp_in_ipv6(frame, ip),
        _ => None,
    }
}

#[inline(always)]
fn udp_in_ipv4<F: Frame + ?Sized>(frame: &F, ip: usize) -> Option<Udp> {
    let header: [u8; IPV4] = frame.bytes(ip)?;
    // version 4, five words: no options
    if header[0] != 0x45 || header[9] != PROTOCOL_UDP {
        return None;
    }
    // more fragments, or an offset (RFC 791, section 3.1)
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    let udp: [u8; UDP] = frame.bytes(ip + IPV4)?;
    let total = u16::from_be_bytes([header[2], header[3]]);
    let payload = ip + IPV4 + UDP;
    Some(Udp {
        source: mapped([header[12], header[13], header[14], header[15]]),
        destination: mapped([header[16], header[17], header[18], header[19]]),
        port: u16::from_be_bytes([udp[2], udp[3]]),
        payload,
        whole: total == IPV4 as u16 + UDP_LENGTH && has_datagram(frame, udp, payload),
        length: length_of(udp),
    })
}

#[inline(always)]
fn udp_in_ipv6<F: Frame + ?Sized>(frame: &F, ip: usize) -> Option<Udp> {
    let header: [u8; IPV6] = frame.bytes(ip)?;
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_UDP {
        return None;
    }
    let udp: [u8; UDP] = frame.bytes(ip + IPV6)?;
    let mut source = [0; 16];
    source[..8].copy_from_slice(&header[8..16]);
    let mut destination = [0; 16];
    destination.copy_from_slice(&header[24..40]);
    let length = u16::from_be_bytes([header[4], header[5]]);
    let payload = ip + IPV6 + UDP;
    Some(Udp {
        source,
        destination,
        port: u16::from_be_bytes([udp[2], udp[3]]),
        payload,
        whole: length == UDP_LENGTH && has_datagram(frame, udp, payload),
        length: length_of(udp),
    })
}

/// A UDP datagram that may be ours, in a form that [`udp`] does not look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// Who sent it, as in [`Udp`].
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// To which port; `None` if it stands behind more headers than are looked at, so that it may be any.
    pub port: Option<u16>,
}

/// Extension headers of IPv6 that are looked at in search of UDP. Nothing that we know of sends more.
const MAX_EXTENSIONS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Finds the UDP header of a frame in which [`udp`] found none: behind options of IPv4 or extension
/// headers of IPv6, in a whole packet or in the first of several fragments. Later fragments have no
/// port, and without the first one the kernel makes nothing of them.
#[inline(always)]
pub fn unread<F: Frame + ?Sized>(frame: &F) -> Option<Unread> {
    let mut ip = ETHERNET;
    let mut ethertype = u16::from_be_bytes(frame.bytes(12)?);
    if ethertype == ETHERTYPE_VLAN {
        ethertype = u16::from_be_bytes(frame.bytes(16)?);
        ip = ETHERNET + TAG;
    }
    match ethertype {
        ETHERTYPE_IPV4 => unread_ipv4(frame, ip),
        ETHERTYPE_IPV6 => unread_ipv6(frame, ip),
        _ => None,
    }
}

#[inline(always)]
fn unread_ipv4<F: Frame + ?Sized>(frame: &F, ip: usize) -> Option<Unread> {
    let header: [u8; IPV4] = frame.bytes(ip)?;
    let words = (header[0] & 0x0f) as usize;
    if header[0] >> 4 != 4 || words < 5 || header[9] != PROTOCOL_UDP {
        return None;
    }
    // An offset (RFC 791, section 3.1): not the first fragment.
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return None;
    }
    let udp: [u8; UDP] = frame.bytes(ip + words * 4)?;
    Some(Unread {
        source: mapped([header[12], header[13], header[14], header[15]]),
        destination: mapped([header[16], header[17], header[18], header[19]]),
        port: Some(u16::from_be_bytes([udp[2], udp[3]])),
    })
}

#[inline(always)]
fn unread_ipv6<F: Frame + ?Sized>(frame: &F, ip: usize) -> Option<Unread> {
    let header: [u8; IPV6] = frame.bytes(ip)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut source = [0; 16];
    source[..8].copy_from_slice(&header[8..16]);
    let mut destination = [0; 16];
    destination.copy_from_slice(&header[24..40]);
    let (mut next, mut at) = (header[6], ip + IPV6);
    for _ in 0..MAX_EXTENSIONS {
        // All of them begin alike (RFC 8200, section 4).
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [after, units]: [u8; 2] = frame.bytes(at)?;
                next = after;
                at += (units as usize + 1) * 8;
            }
            FRAGMENT => {
                let fragment: [u8; 8] = frame.bytes(at)?;
                if u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 != 0 {
                    return None;
                }
                next = fragment[0];
                at += 8;
            }
            _ => break,
        }
    }
    let port = match next {
        PROTOCOL_UDP => {
            let udp: [u8; UDP] = frame.bytes(at)?;
            Some(u16::from_be_bytes([udp[2], udp[3]]))
        }
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => None,
        _ => return None,
    };
    Some(Unread {
        source,
        destination,
        port,
    })
}

/// Bytes of the payload.
#[inline(always)]
fn length_of(udp: [u8; UDP]) -> u16 {
    u16::from_be_bytes([udp[4], udp[5]]).wrapping_sub(UDP as u16)
}

/// Whether UDP says 1416 bytes, and the frame holds them. A frame may be longer: short ones
/// are padded by Ethernet, and some drivers leave a trailer.
#[inline(always)]
fn has_datagram<F: Frame + ?Sized>(frame: &F, udp: [u8; UDP], payload: usize) -> bool {
    u16::from_be_bytes([udp[4], udp[5]]) == UDP_LENGTH
        && frame.bytes::<1>(payload + DATAGRAM_LENGTH - 1).is_some()
}

/// An IP packet of at least so many bytes is as large as they come: a datagram of ours, or a
/// segment of a TCP connection that has much to say.
pub const LARGE: usize = 1400;

/// How a frame compares with the IP packet in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// No IP packet, or a whole one of less than [`LARGE`] bytes.
    Small,
    /// A whole IP packet of at least [`LARGE`] bytes.
    Large,
    /// The frame ends before the packet does: something on the way has cut it, and that was no
    /// router, since a router drops it (RFC 1812, section 5.2.2).
    Cut,
}

/// Whether a frame holds all of the IP packet that begins in it.
#[inline(always)]
#[must_use]
pub fn extent<F: Frame + ?Sized>(frame: &F) -> Extent {
    let Some(ethertype) = frame.bytes(12) else {
        return Extent::Small;
    };
    let (ip, ethertype) = match u16::from_be_bytes(ethertype) {
        ETHERTYPE_VLAN => match frame.bytes(16) {
            Some(inner) => (ETHERNET + TAG, u16::from_be_bytes(inner)),
            None => return Extent::Small,
        },
        ethertype => (ETHERNET, ethertype),
    };
    let (field, header) = match ethertype {
        ETHERTYPE_IPV4 => (2, 0),
        ETHERTYPE_IPV6 => (4, IPV6),
        _ => return Extent::Small,
    };
    let Some(said) = frame.bytes(ip + field) else {
        return Extent::Small;
    };
    let packet = u16::from_be_bytes(said) as usize + header;
    if frame.length() < ip + packet {
        Extent::Cut
    } else if packet >= LARGE {
        Extent::Large
    } else {
        Extent::Small
    }
}

/// Where an IP packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The address, IPv4 mapped.
    pub address: Address,
    /// Whether its frame has a VLAN tag. A card may have taken it off.
    pub tagged: bool,
}

/// The destination of the IP packet in a frame.
#[inline(always)]
#[must_use]
pub fn destination<F: Frame + ?Sized>(frame: &F) -> Option<Destination> {
    let mut ip = ETHERNET;
    let mut ethertype = u16::from_be_bytes(frame.bytes(12)?);
    let tagged = ethertype == ETHERTYPE_VLAN;
    if tagged {
        ethertype = u16::from_be_bytes(frame.bytes(16)?);
        ip = ETHERNET + TAG;
    }
    let address = match ethertype {
        ETHERTYPE_IPV4 => mapped(frame.bytes(ip + 16)?),
        ETHERTYPE_IPV6 => frame.bytes(ip + 24)?,
        _ => return None,
    };
    Some(Destination { address, tagged })
}

/// The sender's whole address and port, of a frame in which [`udp`] found a datagram at
/// `payload`.
#[inline(always)]
pub fn sender<F: Frame + ?Sized>(frame: &F, payload: usize) -> Option<(Address, u16)> {
    let port = u16::from_be_bytes(frame.bytes(payload.checked_sub(UDP)?)?);
    // the destination stands right before the UDP header, the source before the destination
    let address = match frame.bytes::<2>(payload.checked_sub(UDP + IPV4)?)? {
        [0x45, _] if is_behind_ethernet(payload - UDP - IPV4) => {
            mapped(frame.bytes(payload - UDP - 8)?)
        }
        _ => frame.bytes(payload.checked_sub(UDP + 32)?)?,
    };
    Some((address, port))
}

/// Whether an IP header can start here.
#[inline(always)]
const fn is_behind_ethernet(offset: usize) -> bool {
    offset == ETHERNET || offset == ETHERNET + TAG
}

/// What the first bytes of a datagram say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Opens a handshake; the index is the sender's.
    Initiation,
    /// Answers a handshake of ours with this index: a response or a cookie.
    Answer(u32),
    /// Data for the session with this index.
    Data(u32),
    /// A question about the path.
    Probe,
    /// None of ours.
    Unknown,
}

/// Reads type and index of the datagram at `payload`.
#[inline(always)]
pub fn message<F: Frame + ?Sized>(frame: &F, payload: usize) -> Option<Message> {
    let head: [u8; 4] = frame.bytes(payload + TYPE_OFFSET)?;
    let index = u32::from_be_bytes(frame.bytes(payload + INDEX_OFFSET)?);
    if head[1] | head[2] | head[3] != 0 {
        return Some(Message::Unknown);
    }
    Some(match head[0] {
        TYPE_INITIATION => Message::Initiation,
        TYPE_RESPONSE | TYPE_COOKIE => Message::Answer(index),
        TYPE_DATA => Message::Data(index),
        TYPE_PROBE => Message::Probe,
        _ => Message::Unknown,
    })
}

/// Whether what is not a whole datagram is a probe, the only one of our messages that may be
/// shorter. The kernel sees to it that the packet holds what it says.
#[inline(always)]
#[must_use]
pub fn is_short_probe(message: Option<Message>, udp: &Udp) -> bool {
    let length = udp.length as usize;
    matches!(message, Some(Message::Probe)) && (MIN_PROBE_LENGTH..DATAGRAM_LENGTH).contains(&length)
}

/// The authentication tag of the datagram at `payload`, as two little-endian words.
#[inline(always)]
pub fn tag<F: Frame + ?Sized>(frame: &F, payload: usize) -> Option<[u64; 2]> {
    let low = u64::from_le_bytes(frame.bytes(payload + TAG_OFFSET)?);
    let high = u64::from_le_bytes(frame.bytes(payload + TAG_OFFSET + 8)?);
    Some([low, high])
}

/// Bytes before the datagram in a frame that [`write_headers`] makes.
#[must_use]
pub const fn headers_length(is_ipv4: bool) -> usize {
    ETHERNET + if is_ipv4 { IPV4 } else { IPV6 } + UDP
}

/// Where the UDP header of such a frame begins.
#[must_use]
pub const fn udp_header(is_ipv4: bool) -> u16 {
    (headers_length(is_ipv4) - UDP) as u16
}

/// Where the checksum is in a UDP header (RFC 768).
pub const CHECKSUM_IN_UDP: u16 = 6;

/// The addresses of a frame to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Our Ethernet address.
    pub from_mac: [u8; 6],
    /// The next hop's Ethernet address.
    pub to_mac: [u8; 6],
    /// Our address, IPv4 mapped; of the same family as `to`.
    pub from: Address,
    /// The destination's address, IPv4 mapped.
    pub to: Address,
    /// Our port.
    pub from_port: u16,
    /// The destination's port.
    pub to_port: u16,
}

/// Whether an address is a mapped IPv4 one.
#[must_use]
pub const fn is_mapped(address: &Address) -> bool {
    let mut i = 0;
    while i < 10 {
        if address[i] != 0 {
            return false;
        }
        i += 1;
    }
    address[10] == 0xff && address[11] == 0xff
}

/// Writes the headers of a frame: `headers` are the [`headers_length`] bytes before
/// `datagram`. The UDP checksum of IPv4 is left out (RFC 768), since the datagram
/// authenticates itself; IPv6 requires it (RFC 8200, section 8.1). False if `headers` has
/// another length.
pub fn write_headers(headers: &mut [u8], route: &Route, datagram: &[u8; DATAGRAM_LENGTH]) -> bool {
    let Some((addresses, udp)) = write_without_checksum(headers, route) else {
        return false;
    };
    if addresses.len() == 2 * size_of::<Address>() {
        let checksum = Sum::pseudo_header(addresses, PROTOCOL_UDP, UDP_LENGTH)
            .with(udp)
            .with(datagram)
            .udp_checksum();
        udp[6..8].copy_from_slice(&checksum);
    }
    true
}

/// Writes the headers of a frame whose UDP checksum somebody else completes, the kernel or the card: what it is to
/// complete, the pseudo-header's sum (Linux, `include/linux/skbuff.h`, `CHECKSUM_PARTIAL`), is where the
/// checksum belongs. False if `headers` is not [`headers_length`] bytes.
pub fn write_headers_for_offload(headers: &mut [u8], route: &Route) -> bool {
    let Some((addresses, udp)) = write_without_checksum(headers, route) else {
        return false;
    };
    let sum = Sum::pseudo_header(addresses, PROTOCOL_UDP, UDP_LENGTH).fold();
    udp[usize::from(CHECKSUM_IN_UDP)..].copy_from_slice(&sum);
    true
}

/// Writes headers with a UDP checksum of zero. The two IP addresses in them, and the UDP header; none if `headers`
/// has another length.
fn write_without_checksum<'a>(
    headers: &'a mut [u8],
    route: &Route,
) -> Option<(&'a [u8], &'a mut [u8])> {
    let is_ipv4 = is_mapped(&route.to);
    if headers.len() != headers_length(is_ipv4) {
        return None;
    }
    headers[..6].copy_from_slice(&route.to_mac);
    headers[6..12].copy_from_slice(&route.from_mac);
    let ethertype = if is_ipv4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    headers[12..14].copy_from_slice(&ethertype.to_be_bytes());
    let (ip, udp) = headers[ETHERNET..].split_at_mut(if is_ipv4 { IPV4 } else { IPV6 });
    udp[..2].copy_from_slice(&route.from_port.to_be_bytes());
    udp[2..4].copy_from_slice(&route.to_port.to_be_bytes());
    udp[4..6].copy_from_slice(&UDP_LENGTH.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
    if is_ipv4 {
        let total = (IPV4 as u16 + UDP_LENGTH).to_be_bytes();
        // no fragments (RFC 791), and so no identification (RFC 6864)
        ip[..12].copy_from_slice(&[
            0x45,
            0,
            total[0],
            total[1],
            0,
            0,
            0x40,
            0,
            HOP_LIMIT,
            PROTOCOL_UDP,
            0,
            0,
        ]);
        ip[12..16].copy_from_slice(&route.from[12..]);
        ip[16..20].copy_from_slice(&route.to[12..]);
        let checksum = Sum::new().with(ip).checksum();
        ip[10..12].copy_from_slice(&checksum);
        Some((&ip[12..20], udp))
    } else {
        let length = UDP_LENGTH.to_be_bytes();
        ip[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], PROTOCOL_UDP, HOP_LIMIT]);
        ip[8..24].copy_from_slice(&route.from);
        ip[24..40].copy_from_slice(&route.to);
        Some((&ip[8..40], udp))
    }
}

/// Time to live, or hop limit, of what we send.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests;
