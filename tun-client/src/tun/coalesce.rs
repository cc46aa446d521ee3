//! Gathering TCP packets and UDP datagrams into superpackets for the kernel.
//!
//! Packets of one flow that follow each other without a gap, and differ in nothing but
//! sequence number and payload, go to the kernel as one: a header, and the payloads where
//! they lie, in one gathering write without a copy. The rules are those of the kernel's
//! own receive offload (`net/ipv4/tcp_offload.c`, `udp_offload.c`), and stricter: no flag
//! but ACK and PSH, no urgent pointer. Only IPv4's IDs may be any, since nothing of these
//! packets is a fragment. What is merged has its checksums verified first, because the
//! kernel takes the merged packet's for good.

use std::io::IoSlice;

use mixline_endpoint::PacketBatch;
use mixline_endpoint::device::BATCH_PACKETS;
use mixline_relay_common::checksum::Sum;

use super::headers::{
    ACK, IPV4_HEADER, IPV6_HEADER, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, UDP,
    UDP_CHECKSUM, UDP_HEADER, pseudo_header, set_length,
};
use super::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CHECKSUM, VIRTIO_HEADER, VirtioHeader};

/// A superpacket has at most this many packets: as many datagrams as every kernel takes that
/// takes any (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;
/// The longest packet that the kernel takes, headers included.
const MAX_LENGTH: usize = 65535;
/// Flows that are followed at once; of two with one slot, the later one is.
const SLOTS: usize = 64;
const MAX_TCP_HEADER: usize = 60;
/// No packet, or no group.
const NONE: u16 = u16::MAX;

const _: () = assert!(BATCH_PACKETS < NONE as usize);

/// One write: a packet, or several that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    first: u16,
    last: u16,
    count: u16,
    /// Present where the first packet is data that others may be added to.
    data: Option<Data>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Data {
    headers: Headers,
    /// Payload bytes of every packet but the last.
    segment: usize,
    /// Payload bytes in all.
    payload: usize,
    /// TCP's sequence number that has to follow.
    next: u32,
    /// Nothing may be added any more.
    closed: bool,
    push: bool,
    /// The first packet's checksum was verified.
    verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Headers {
    ipv6: bool,
    udp: bool,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of both headers.
    all: usize,
}

impl Headers {
    fn protocol(&self) -> u8 {
        if self.udp { UDP } else { TCP }
    }
}

/// What is decided about a batch, and the room for it, used again and again.
#[derive(Debug)]
pub struct Coalescer {
    /// Whether the kernel takes data of TCP in superpackets.
    tcp: bool,
    /// Whether it takes datagrams so: since Linux 6.2.
    datagrams: bool,
    groups: Vec<Group>,
    /// The packet that follows in its group.
    following: Box<[u16; BATCH_PACKETS]>,
    /// The latest group of a flow.
    slots: [u16; SLOTS],
    header: [u8; VIRTIO_HEADER + IPV6_HEADER + MAX_TCP_HEADER],
}

impl Coalescer {
    /// Room for a batch. `datagrams` says whether those of UDP are gathered too.
    #[must_use]
    pub fn new(datagrams: bool) -> Self {
        Self {
            tcp: true,
            datagrams,
            groups: Vec::with_capacity(BATCH_PACKETS),
            following: Box::new([NONE; BATCH_PACKETS]),
            slots: [NONE; SLOTS],
            header: [0; VIRTIO_HEADER + IPV6_HEADER + MAX_TCP_HEADER],
        }
    }

    /// Decides what goes together. The packets of a flow stay in their order, but for fragments, which belong to none.
    pub fn plan(&mut self, packets: &PacketBatch) {
        self.groups.clear();
        self.slots.fill(NONE);
        for (index, packet) in packets.iter().enumerate().take(BATCH_PACKETS) {
            let index = index as u16;
            let Some(flow) = flow(packet, self.tcp, self.datagrams) else {
                self.groups.push(Group {
                    first: index,
                    last: index,
                    count: 1,
                    data: None,
                });
                continue;
            };
            let data = data(packet);
            if let Some(data) = &data
                && self.append(flow, index, packet, data, packets)
            {
                continue;
            }
            // What follows in this flow must not overtake this packet: from here on
            // its group is the only one that may grow.
            if let Some(slot) = self.slots.get_mut(flow) {
                *slot = if data.is_some() {
                    self.groups.len() as u16
                } else {
                    NONE
                };
            }
            self.groups.push(Group {
                first: index,
                last: index,
                count: 1,
                data,
            });
        }
    }

    /// The kernel has refused a write: if it was a superpacket, its packets take its place, each by itself, and no more of
    /// its protocol are gathered. False if it was a packet.
    ///
    /// Some kernels of 2024 take none, or not all (those with commit e269d79c7d35 and without 89add40066f9).
    pub fn refused(&mut self, index: usize) -> bool {
        let Some(Group {
            first,
            count,
            data: Some(data),
            ..
        }) = self.groups.get(index).copied()
        else {
            return false;
        };
        if count < 2 {
            return false;
        }
        if data.headers.udp {
            self.datagrams = false;
        } else {
            self.tcp = false;
        }
        let following = &self.following;
        let members = std::iter::successors(Some(first), |member| {
            following.get(usize::from(*member)).copied()
        });
        let single = |member| Group {
            first: member,
            last: member,
            count: 1,
            data: None,
        };
        let members = members.take(count.into()).map(single);
        self.groups.splice(index..=index, members);
        true
    }

    /// How many writes there are.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.groups.len()
    }

    /// The pieces of one write: the virtio header with the headers of a superpacket, then
    /// payloads. `pieces` is filled from its front; the value is how many. `packets` is
    /// the batch that was planned.
    pub fn pieces<'a>(
        &'a mut self,
        index: usize,
        packets: &'a PacketBatch,
        pieces: &mut [IoSlice<'a>; MAX_SEGMENTS + 1],
    ) -> usize {
        let Some(group) = self.groups.get(index).copied() else {
            return 0;
        };
        let Some(first) = packets.get(group.first.into()) else {
            return 0;
        };
        let Some(data) = group.data.filter(|_| group.count > 1) else {
            let (front, _) = self.header.split_at_mut(VIRTIO_HEADER);
            front.copy_from_slice(&VirtioHeader::default().encode());
            pieces[0] = IoSlice::new(front);
            pieces[1] = IoSlice::new(first);
            return 2;
        };
        let Some(header) = merged_header(&mut self.header, first, &data) else {
            return 0;
        };
        pieces[0] = IoSlice::new(header);
        let mut count = 1;
        let mut member = group.first;
        while let (Some(packet), Some(piece)) = (packets.get(member.into()), pieces.get_mut(count))
        {
            *piece = IoSlice::new(packet.get(data.headers.all..).unwrap_or_default());
            count += 1;
            if member == group.last {
                break;
            }
            member = self
                .following
                .get(usize::from(member))
                .copied()
                .unwrap_or(NONE);
        }
        count
    }

    /// Adds a packet to the latest group of its flow; whether it fits there.
    fn append(
        &mut self,
        flow: usize,
        index: u16,
        packet: &[u8],
        new: &Data,
        packets: &PacketBatch,
    ) -> bool {
        let Some(group) = self
            .slots
            .get(flow)
            .and_then(|slot| self.groups.get_mut(usize::from(*slot)))
        else {
            return false;
        };
        let (Some(data), Some(first)) = (&mut group.data, packets.get(group.first.into())) else {
            return false;
        };
        if data.closed
            || new.headers != data.headers
            || new.segment > data.segment
            || (!new.headers.udp && new.next.wrapping_sub(new.payload as u32) != data.next)
            || data.headers.all + data.payload + new.payload > MAX_LENGTH
            || usize::from(group.count) >= MAX_SEGMENTS
            || !same_headers(first, packet, data.headers)
            || !verifies(packet, new.headers)
        {
            return false;
        }
        if !data.verified && !verifies(first, data.headers) {
            data.closed = true;
            return false;
        }
        data.verified = true;
        data.payload += new.payload;
        data.next = new.next;
        data.push = new.push;
        data.closed = new.push || new.payload < data.segment;
        if let Some(following) = self.following.get_mut(usize::from(group.last)) {
            *following = index;
        }
        group.last = index;
        group.count += 1;
        true
    }
}

/// The slot of a packet's flow; `None` for what is not gathered.
fn flow(packet: &[u8], tcp: bool, datagrams: bool) -> Option<usize> {
    let gathered = |protocol| (tcp && protocol == TCP) || (datagrams && protocol == UDP);
    let (addresses, transport) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 15) * 4;
            // Of a fragment only the first has ports, and none can be merged.
            let fragment = packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0;
            let there = gathered(*packet.get(9)?) && !fragment && header >= IPV4_HEADER;
            (packet.get(12..20)?, packet.get(header..).filter(|_| there)?)
        }
        6 => {
            let there = gathered(*packet.get(6)?);
            (
                packet.get(8..40)?,
                packet.get(IPV6_HEADER..).filter(|_| there)?,
            )
        }
        _ => return None,
    };
    // Whoever sends on many flows at a time takes slots of others, whose packets then go by themselves; nothing is lost.
    let mut hash: u32 = 0;
    for word in addresses
        .chunks_exact(4)
        .chain(transport.get(..4)?.chunks_exact(4))
    {
        let word: [u8; 4] = word.try_into().ok()?;
        hash = (hash ^ u32::from_ne_bytes(word))
            .wrapping_mul(0x9e37_79b1)
            .rotate_left(15);
    }
    Some((hash >> 16) as usize % SLOTS)
}

/// Data that may be merged: no IP options, no fragment, and what [`tcp_data`] and [`udp_data`]
/// say. The packet has a [`flow`].
fn data(packet: &[u8]) -> Option<Data> {
    let ipv6 = match packet.first()? {
        0x45 => false,
        byte if byte >> 4 == 6 => true,
        _ => return None,
    };
    let (ip, protocol) = if ipv6 {
        (IPV6_HEADER, *packet.get(6)?)
    } else {
        (IPV4_HEADER, *packet.get(9)?)
    };
    let length = if ipv6 {
        usize::from(field(packet, 4)?) + IPV6_HEADER
    } else {
        field(packet, 2)?.into()
    };
    if length != packet.len() || (!ipv6 && *packet.get(6)? & 0x80 != 0) {
        return None;
    }
    let transport = packet.get(ip..)?;
    let udp = protocol == UDP;
    let (header, sequence, push) = if udp {
        udp_data(transport)?
    } else {
        tcp_data(transport)?
    };
    let payload = transport
        .len()
        .checked_sub(header)
        .filter(|payload| *payload > 0)?;
    Some(Data {
        headers: Headers {
            ipv6,
            udp,
            ip,
            all: ip + header,
        },
        segment: payload,
        payload,
        next: sequence.wrapping_add(payload as u32),
        closed: push,
        push,
        verified: false,
    })
}

/// Length of the header, sequence number and PSH of a packet with no other flag but ACK.
fn tcp_data(tcp: &[u8]) -> Option<(usize, u32, bool)> {
    let header = usize::from(*tcp.get(12)? >> 4) * 4;
    let flags = *tcp.get(TCP_FLAGS)?;
    if header < TCP_HEADER
        || *tcp.get(12)? & 15 != 0
        || (flags != ACK && flags != ACK | PSH)
        || tcp.get(18..20)? != [0, 0]
    {
        return None;
    }
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    Some((header, sequence, flags & PSH != 0))
}

/// The same for a datagram with a checksum, and nothing behind it.
fn udp_data(udp: &[u8]) -> Option<(usize, u32, bool)> {
    let length = usize::from(field(udp, 4)?);
    let fits = length == udp.len() && field(udp, UDP_CHECKSUM)? != 0;
    fits.then_some((UDP_HEADER, 0, false))
}

fn field(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

/// Whether two packets differ in nothing that a merged one could not say of both.
fn same_headers(a: &[u8], b: &[u8], headers: Headers) -> bool {
    let same = |from: usize, to: usize| a.get(from..to) == b.get(from..to);
    let network = if headers.ipv6 {
        same(0, 4) && same(6, IPV6_HEADER)
    } else {
        // Not the length, the ID and the checksum.
        same(0, 2) && same(6, 10) && same(12, IPV4_HEADER)
    };
    let transport = headers.ip;
    // Ports; of TCP also acknowledgment, length of the header, window, options.
    network
        && same(transport, transport + 4)
        && (headers.udp
            || (same(transport + 8, transport + 13)
                && same(transport + 14, transport + 16)
                && same(transport + 20, headers.all)))
}

/// Whether the checksums hold: that of TCP or UDP, and that of an IPv4 header.
fn verifies(packet: &[u8], headers: Headers) -> bool {
    let Some((network, transport)) = packet.split_at_checked(headers.ip) else {
        return false;
    };
    let holds = |sum: Sum| sum.checksum() == [0, 0];
    pseudo_header(network, headers.ipv6, headers.protocol(), transport.len())
        .is_some_and(|sum| holds(sum.with(transport)))
        && (headers.ipv6
            || network
                .first_chunk::<IPV4_HEADER>()
                .is_some_and(|header| holds(Sum::new().with(header))))
}

/// The headers of a merged packet, the virtio header before them.
fn merged_header<'a>(room: &'a mut [u8], first: &[u8], data: &Data) -> Option<&'a [u8]> {
    let Headers { ipv6, udp, ip, all } = data.headers;
    let checksum = if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let virtio = VirtioHeader {
        flags: NEEDS_CHECKSUM,
        gso_type: match (udp, ipv6) {
            (true, _) => GSO_UDP_L4,
            (false, true) => GSO_TCPV6,
            (false, false) => GSO_TCPV4,
        },
        header_length: all as u16,
        segment: data.segment as u16,
        checksum_start: ip as u16,
        checksum_offset: checksum as u16,
    };
    let room = room.get_mut(..VIRTIO_HEADER + all)?;
    let (front, headers) = room.split_at_mut(VIRTIO_HEADER);
    front.copy_from_slice(&virtio.encode());
    headers.copy_from_slice(first.get(..all)?);
    let (network, transport) = headers.split_at_mut(ip);
    set_length(network, ipv6, all + data.payload)?;
    let length = all - ip + data.payload;
    if udp {
        let length = u16::try_from(length).ok()?;
        transport
            .get_mut(4..6)?
            .copy_from_slice(&length.to_be_bytes());
    } else if data.push {
        *transport.get_mut(TCP_FLAGS)? |= PSH;
    }
    // The kernel, or a card, adds what follows.
    let sum = pseudo_header(network, ipv6, data.headers.protocol(), length)?;
    transport
        .get_mut(checksum..checksum + 2)?
        .copy_from_slice(&sum.fold());
    Some(room)
}
