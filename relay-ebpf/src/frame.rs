//! Finds our datagrams in Ethernet frames.
//!
//! ```text
//! Ethernet 14 | [802.1Q tag 4] | IPv4 20 or IPv6 40 | UDP 8 | datagram 1408
//! ```
//!
//! Whatever is not plainly a UDP datagram to our port is the kernel's business: IPv4 with
//! options or in fragments, IPv6 with extension headers, more than one VLAN tag.

use mixline_relay_common::maps::{Address, mapped};
use mixline_relay_common::wire::{
    DATAGRAM_LENGTH, INDEX_OFFSET, TAG_OFFSET, TYPE_COOKIE, TYPE_DATA, TYPE_INITIATION,
    TYPE_OFFSET, TYPE_RESPONSE,
};

/// Bytes of a frame, read with a bounds check each time.
pub trait Frame {
    /// The `N` bytes at `offset`, if the frame has them.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
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
    })
}

/// Whether UDP says 1416 bytes, and the frame holds them. A frame may be longer: short ones
/// are padded by Ethernet, and some drivers leave a trailer.
#[inline(always)]
fn has_datagram<F: Frame + ?Sized>(frame: &F, udp: [u8; UDP], payload: usize) -> bool {
    u16::from_be_bytes([udp[4], udp[5]]) == UDP_LENGTH
        && frame.bytes::<1>(payload + DATAGRAM_LENGTH - 1).is_some()
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
        _ => Message::Unknown,
    })
}

/// The authentication tag of the datagram at `payload`, as two little-endian words.
#[inline(always)]
pub fn tag<F: Frame + ?Sized>(frame: &F, payload: usize) -> Option<[u64; 2]> {
    let low = u64::from_le_bytes(frame.bytes(payload + TAG_OFFSET)?);
    let high = u64::from_le_bytes(frame.bytes(payload + TAG_OFFSET + 8)?);
    Some([low, high])
}

#[cfg(test)]
mod tests;
