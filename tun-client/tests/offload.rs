//! Cutting and gathering superpackets, checked with pnet's view of TCP and UDP.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_client::testing::{
    Coalescer, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, MAX_SEGMENTS, NEEDS_CHECKSUM,
    Split, VIRTIO_HEADER, VirtioHeader,
};
use mixline_endpoint::PacketBatch;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::tcp::{MutableTcpPacket, TcpPacket};
use pnet::packet::udp::{MutableUdpPacket, UdpPacket};
use pnet::packet::{Packet, ipv4, tcp, udp};
use proptest::prelude::*;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

fn addresses(ipv6: bool, peer: u8) -> (IpAddr, IpAddr) {
    if ipv6 {
        let address = |host| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host));
        (address(peer.into()), address(99))
    } else {
        (
            Ipv4Addr::new(10, 1, 0, peer).into(),
            Ipv4Addr::new(10, 2, 0, 1).into(),
        )
    }
}

/// An IP packet around a transport one; TCP and UDP checksums right.
fn ip(ipv6: bool, peer: u8, id: u16, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let (source, destination) = addresses(ipv6, peer);
    let protocol = pnet::packet::ip::IpNextHeaderProtocol::new(protocol);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = vec![0; 20 + transport.len()];
            let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
            packet.set_version(4);
            packet.set_header_length(5);
            packet.set_total_length((20 + transport.len()) as u16);
            packet.set_identification(id);
            packet.set_flags(ipv4::Ipv4Flags::DontFragment);
            packet.set_ttl(64);
            packet.set_next_level_protocol(protocol);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(transport);
            let sum = ipv4::checksum(&packet.to_immutable());
            packet.set_checksum(sum);
            bytes
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0; 40 + transport.len()];
            let mut packet = MutableIpv6Packet::new(&mut bytes).unwrap();
            packet.set_version(6);
            packet.set_flow_label(7);
            packet.set_payload_length(transport.len() as u16);
            packet.set_next_header(protocol);
            packet.set_hop_limit(64);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(transport);
            bytes
        }
        _ => unreachable!(),
    }
}

#[derive(Debug, Clone)]
struct Tcp {
    ipv6: bool,
    peer: u8,
    id: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Tcp {
    fn new(sequence: u32, payload: Vec<u8>) -> Self {
        Self {
            ipv6: false,
            peer: 1,
            id: 100,
            sequence,
            acknowledgment: 5,
            flags: ACK,
            // A timestamp option with its padding.
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload,
        }
    }

    fn headers(&self) -> usize {
        (if self.ipv6 { 40 } else { 20 }) + 20 + self.options.len()
    }

    fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0; header + self.payload.len()];
        bytes[20..header].copy_from_slice(&self.options);
        bytes[header..].copy_from_slice(&self.payload);
        let mut packet = MutableTcpPacket::new(&mut bytes).unwrap();
        packet.set_source(1000 + u16::from(self.peer));
        packet.set_destination(80);
        packet.set_sequence(self.sequence);
        packet.set_acknowledgement(self.acknowledgment);
        packet.set_data_offset((header / 4) as u8);
        packet.set_flags(self.flags);
        packet.set_window(500);
        let ends = addresses(self.ipv6, self.peer);
        packet.set_checksum(tcp_checksum(&packet.to_immutable(), ends));
        ip(
            self.ipv6,
            self.peer,
            self.id,
            IpNextHeaderProtocols::Tcp.0,
            &bytes,
        )
    }
}

/// A UDP datagram in an IP packet; its checksums right.
fn datagram(ipv6: bool, peer: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(payload);
    let mut udp = MutableUdpPacket::new(&mut body).unwrap();
    udp.set_source(5000);
    udp.set_destination(53);
    udp.set_length((8 + payload.len()) as u16);
    let mut packet = ip(ipv6, peer, 7, IpNextHeaderProtocols::Udp.0, &body);
    mend(&mut packet);
    packet
}

/// Has the checksums of a packet fit again, after it was changed.
fn mend(packet: &mut [u8]) {
    let (at, ends) = if is_ipv6(packet) {
        let ip = Ipv6Packet::new(packet).unwrap();
        (40, (ip.get_source().into(), ip.get_destination().into()))
    } else {
        let mut ip = MutableIpv4Packet::new(packet).unwrap();
        ip.set_checksum(ipv4::checksum(&ip.to_immutable()));
        (20, (ip.get_source().into(), ip.get_destination().into()))
    };
    let is_udp = packet[if at == 40 { 6 } else { 9 }] == IpNextHeaderProtocols::Udp.0;
    let transport = &mut packet[at..];
    if is_udp {
        let mut udp = MutableUdpPacket::new(transport).unwrap();
        udp.set_checksum(udp_checksum(&udp.to_immutable(), ends));
    } else {
        let mut tcp = MutableTcpPacket::new(transport).unwrap();
        tcp.set_checksum(tcp_checksum(&tcp.to_immutable(), ends));
    }
}

fn tcp_checksum(packet: &TcpPacket<'_>, ends: (IpAddr, IpAddr)) -> u16 {
    match ends {
        (IpAddr::V4(a), IpAddr::V4(b)) => tcp::ipv4_checksum(packet, &a, &b),
        (IpAddr::V6(a), IpAddr::V6(b)) => tcp::ipv6_checksum(packet, &a, &b),
        _ => unreachable!(),
    }
}

fn udp_checksum(packet: &UdpPacket<'_>, ends: (IpAddr, IpAddr)) -> u16 {
    match ends {
        (IpAddr::V4(a), IpAddr::V4(b)) => udp::ipv4_checksum(packet, &a, &b),
        (IpAddr::V6(a), IpAddr::V6(b)) => udp::ipv6_checksum(packet, &a, &b),
        _ => unreachable!(),
    }
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6
}

fn transport(packet: &[u8]) -> &[u8] {
    &packet[if is_ipv6(packet) { 40 } else { 20 }..]
}

/// All checksums and lengths of a packet hold.
fn assert_sound(packet: &[u8]) {
    let body = transport(packet);
    let (protocol, ends) = if is_ipv6(packet) {
        let ip = Ipv6Packet::new(packet).unwrap();
        assert_eq!(usize::from(ip.get_payload_length()), body.len());
        (
            ip.get_next_header(),
            (ip.get_source().into(), ip.get_destination().into()),
        )
    } else {
        let ip = Ipv4Packet::new(packet).unwrap();
        assert_eq!(usize::from(ip.get_total_length()), packet.len());
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        (
            ip.get_next_level_protocol(),
            (ip.get_source().into(), ip.get_destination().into()),
        )
    };
    if protocol == IpNextHeaderProtocols::Tcp {
        let packet = TcpPacket::new(body).unwrap();
        assert_eq!(packet.get_checksum(), tcp_checksum(&packet, ends));
    } else {
        let packet = UdpPacket::new(body).unwrap();
        assert_eq!(usize::from(packet.get_length()), body.len());
        let expected = udp_checksum(&packet, ends);
        assert_ne!(packet.get_checksum(), 0);
        assert!(packet.get_checksum() == expected || expected == 0);
    }
}

fn split(header: &VirtioHeader, packet: &mut [u8]) -> Vec<Vec<u8>> {
    let mut split = Split::new(header, packet).unwrap();
    let mut out = vec![0; 65535];
    std::iter::from_fn(|| {
        let length = split.next(packet, &mut out)?;
        Some(out[..length].to_vec())
    })
    .collect()
}

fn tcp_header(packet: &Tcp, segment: usize) -> VirtioHeader {
    VirtioHeader {
        flags: NEEDS_CHECKSUM,
        gso_type: if packet.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 },
        header_length: packet.headers() as u16,
        segment: segment as u16,
        checksum_start: if packet.ipv6 { 40 } else { 20 },
        checksum_offset: 16,
    }
}

proptest! {
    #[test]
    fn tcp_superpackets_are_cut(
        ipv6: bool,
        length in 1usize..60000,
        segment in 400usize..1461,
        sequence: u32,
        seed: u8,
    ) {
        let mut packet = Tcp::new(sequence, (0..length).map(|i| (i as u8).wrapping_mul(seed)).collect());
        packet.ipv6 = ipv6;
        packet.flags = ACK | PSH | FIN | CWR;
        let mut header = tcp_header(&packet, segment);
        header.gso_type |= GSO_ECN;
        let mut bytes = packet.bytes();
        let cut = split(&header, &mut bytes);
        prop_assert_eq!(cut.len(), length.div_ceil(segment));
        let mut payload = Vec::new();
        for (index, bytes) in cut.iter().enumerate() {
            assert_sound(bytes);
            let tcp = TcpPacket::new(transport(bytes)).unwrap();
            prop_assert_eq!(tcp.get_sequence(), sequence.wrapping_add(payload.len() as u32));
            let last = index + 1 == cut.len();
            let expected = ACK | if last { PSH | FIN } else { 0 } | if index == 0 { CWR } else { 0 };
            prop_assert_eq!(tcp.get_flags(), expected);
            prop_assert_eq!(tcp.get_options_raw(), packet.options.as_slice());
            prop_assert!(last || tcp.payload().len() == segment);
            payload.extend_from_slice(tcp.payload());
            if !ipv6 {
                let ip = Ipv4Packet::new(bytes).unwrap();
                prop_assert_eq!(ip.get_identification(), packet.id + index as u16);
            }
        }
        prop_assert_eq!(payload, packet.payload);
    }

    #[test]
    fn udp_superpackets_are_cut(ipv6: bool, length in 1usize..30000, segment in 100usize..1473) {
        let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let mut bytes = datagram(ipv6, 1, &payload);
        let header = VirtioHeader {
            flags: NEEDS_CHECKSUM,
            gso_type: GSO_UDP_L4,
            header_length: 0,
            segment: segment as u16,
            checksum_start: if ipv6 { 40 } else { 20 },
            checksum_offset: 6,
        };
        let cut = split(&header, &mut bytes);
        let mut gathered = Vec::new();
        for bytes in &cut {
            assert_sound(bytes);
            gathered.extend_from_slice(&transport(bytes)[8..]);
        }
        prop_assert_eq!(gathered, payload);
    }

    #[test]
    fn an_unfinished_checksum_is_finished(ipv6: bool, length in 1usize..1400, seed: u8) {
        let mut packet = Tcp::new(1, (0..length).map(|i| (i as u8) ^ seed).collect());
        packet.ipv6 = ipv6;
        let whole = packet.bytes();
        let mut bytes = whole.clone();
        let start = if ipv6 { 40 } else { 20 };
        // What the kernel leaves there: the folded sum of the pseudo-header.
        let ends = if ipv6 { &whole[8..40] } else { &whole[12..20] };
        let words = ends.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let mut sum: u32 = words.sum::<u32>() + 6 + (whole.len() - start) as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[start + 16..start + 18].copy_from_slice(&(sum as u16).to_be_bytes());
        let header = VirtioHeader {
            flags: NEEDS_CHECKSUM,
            gso_type: GSO_NONE,
            checksum_start: start as u16,
            checksum_offset: 16,
            ..VirtioHeader::default()
        };
        prop_assert_eq!(split(&header, &mut bytes), vec![whole]);
    }

    #[test]
    fn any_read_is_survived(
        flags: u8, gso_type: u8, header_length: u16, segment: u16, checksum_start in 0u16..100,
        checksum_offset in 0u16..40, bytes in proptest::collection::vec(any::<u8>(), 0..300),
        version in prop_oneof![Just(0x45u8), Just(0x60u8), any::<u8>()],
        kind in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81)],
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        for gso_type in [gso_type, kind] {
            let header = VirtioHeader {
                flags, gso_type, header_length, segment, checksum_start, checksum_offset,
            };
            let mut out = vec![0; 65535];
            if let Ok(mut split) = Split::new(&header, &mut bytes) {
                let mut packets = 0;
                while split.next(&bytes, &mut out).is_some() {
                    packets += 1;
                    prop_assert!(packets <= bytes.len() + 1);
                }
            }
        }
    }

    #[test]
    fn virtio_headers_there_and_back(bytes: [u8; VIRTIO_HEADER]) {
        prop_assert_eq!(VirtioHeader::decode(&bytes).encode(), bytes);
    }
}

/// What the kernel would be given, as whole writes.
fn writes(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let batch = batch_of(packets);
    coalescer.plan(&batch);
    planned(coalescer, &batch)
}

fn batch_of(packets: &[Vec<u8>]) -> PacketBatch {
    let mut batch = PacketBatch::new();
    for packet in packets {
        assert!(batch.push(packet));
    }
    batch
}

/// The writes of a batch that has been planned.
fn planned(coalescer: &mut Coalescer, batch: &PacketBatch) -> Vec<Vec<u8>> {
    (0..coalescer.writes())
        .map(|index| {
            let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
            let count = coalescer.pieces(index, batch, &mut pieces);
            pieces[..count]
                .iter()
                .flat_map(|piece| piece.to_vec())
                .collect()
        })
        .collect()
}

/// What the kernel makes of a write: the packets that it stands for.
fn as_the_kernel_cuts(write: &[u8]) -> Vec<Vec<u8>> {
    let (header, packet) = write.split_first_chunk().unwrap();
    split(&VirtioHeader::decode(header), &mut packet.to_vec())
}

/// A packet without what merging does not keep: the IPv4 ID and its checksum.
fn essence(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if !is_ipv6(&packet) {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

#[test]
fn a_bulk_transfer_becomes_few_writes() {
    for ipv6 in [false, true] {
        let packets: Vec<Vec<u8>> = (0..100u32)
            .map(|index| {
                let mut packet = Tcp::new(u32::MAX - 5000 + 1448, vec![index as u8; 1448]);
                packet.sequence = packet.sequence.wrapping_add(1448 * index);
                packet.ipv6 = ipv6;
                packet.bytes()
            })
            .collect();
        let writes = writes(&mut Coalescer::new(true), &packets);
        // 65535 bytes hold 45 of them.
        assert_eq!(writes.len(), 3, "ipv6: {ipv6}");
        let header = VirtioHeader::decode(writes[0].first_chunk().unwrap());
        assert_eq!(header.segment, 1448);
        assert_eq!(header.flags, NEEDS_CHECKSUM);
        let again: Vec<Vec<u8>> = writes
            .iter()
            .flat_map(|write| as_the_kernel_cuts(write))
            .collect();
        assert_eq!(
            again.iter().map(|p| essence(p)).collect::<Vec<_>>(),
            packets.iter().map(|p| essence(p)).collect::<Vec<_>>()
        );
    }
}

fn assert_apart(what: &str, packets: &[Vec<u8>]) {
    let writes = writes(&mut Coalescer::new(true), packets);
    assert_eq!(writes.len(), 2, "{what}");
    for (write, packet) in writes.iter().zip(packets) {
        assert_eq!(&write[..VIRTIO_HEADER], [0; VIRTIO_HEADER], "{what}");
        assert_eq!(&write[VIRTIO_HEADER..], packet, "{what}");
    }
}

#[test]
fn what_differs_stays_apart() {
    for ipv6 in [false, true] {
        let base = |sequence| {
            let mut packet = Tcp::new(sequence, vec![7; 1000]);
            packet.ipv6 = ipv6;
            packet
        };
        let change = |change: &dyn Fn(&mut Tcp)| {
            let mut second = base(1000);
            change(&mut second);
            [base(0).bytes(), second.bytes()]
        };
        let together = change(&|_| {});
        assert_eq!(writes(&mut Coalescer::new(true), &together).len(), 1);
        for (what, packets) in [
            ("a gap", change(&|p| p.sequence = 1001)),
            ("an overlap", change(&|p| p.sequence = 999)),
            ("another acknowledgment", change(&|p| p.acknowledgment += 1)),
            ("another flow", change(&|p| p.peer = 2)),
            ("another option", change(&|p| p.options[4] = 9)),
            ("no options", change(&|p| p.options.clear())),
            ("a longer one", change(&|p| p.payload.push(1))),
            ("no payload", change(&|p| p.payload.clear())),
            ("the end", change(&|p| p.flags |= FIN)),
            ("a beginning", change(&|p| p.flags |= SYN)),
            ("congestion", change(&|p| p.flags |= CWR)),
            ("another version", change(&|p| p.ipv6 = !ipv6)),
        ] {
            assert_apart(what, &packets);
        }

        // One byte that differs, and checksums that fit.
        let tcp = if ipv6 { 40 } else { 20 };
        let differences: &[(&str, usize, u8)] = if ipv6 {
            &[
                ("another traffic class", 1, 0x30),
                ("another flow label", 3, 1),
                ("another hop limit", 7, 1),
                ("a shorter packet than it says", 5, 1),
            ]
        } else {
            &[
                ("another type of service", 1, 3),
                ("may be fragmented", 6, 0x40),
                ("a fragment to be continued", 6, 0x20),
                ("a later fragment", 7, 1),
                ("a reserved flag", 6, 0x80),
                ("another time to live", 8, 1),
                ("a shorter packet than it says", 3, 1),
            ]
        };
        for (what, at, bits) in differences.iter().copied().chain([
            ("reserved bits", tcp + 12, 1),
            ("another window", tcp + 15, 1),
            ("urgent data", tcp + 19, 1),
        ]) {
            let mut packets = together.clone();
            packets[1][at] ^= bits;
            mend(&mut packets[1]);
            assert_apart(what, &packets);
        }
        // The same in both, and still nothing that a superpacket could say.
        let same: &[(&str, usize, u8)] = if ipv6 {
            &[("an extension header", 6, 6 ^ 60)]
        } else {
            &[
                ("fragments to be continued", 6, 0x20),
                ("later fragments", 7, 1),
                ("a reserved flag", 6, 0x80),
            ]
        };
        for (what, at, bits) in same
            .iter()
            .copied()
            .chain([("reserved bits", tcp + 12, 1), ("urgent data", tcp + 19, 1)])
        {
            let mut packets = together.clone();
            for packet in &mut packets {
                packet[at] ^= bits;
                mend(packet);
            }
            assert_apart(what, &packets);
        }
        if !ipv6 {
            // An IP header of 40 bytes, with options that look like a TCP header.
            let options = together.clone().map(|mut packet| {
                packet[0] = 0x4a;
                // A checksum that would hold for 20 bytes.
                packet[10] = packet[10].checked_sub(5).unwrap();
                packet
            });
            assert_apart("IP options", &options);
        }

        for index in [0, 1] {
            let mut corrupt = together.clone();
            corrupt[index][tcp + 100] ^= 1;
            assert_apart("a wrong checksum", &corrupt);
            if !ipv6 {
                let mut corrupt = together.clone();
                corrupt[index][10] ^= 1;
                assert_apart("a wrong checksum of the IP header", &corrupt);
            }
        }
        let mut padded = together.clone();
        padded[1].push(0);
        assert_apart("a longer packet than it says", &padded);
    }
}

#[test]
fn nothing_follows_a_push_or_a_short_packet() {
    let mut pushed = Tcp::new(1000, vec![1; 1000]);
    pushed.flags |= PSH;
    let packets = [
        Tcp::new(0, vec![0; 1000]).bytes(),
        pushed.bytes(),
        Tcp::new(2000, vec![2; 1000]).bytes(),
    ];
    let gathered = writes(&mut Coalescer::new(true), &packets);
    assert_eq!(gathered.len(), 2);
    let merged = TcpPacket::new(&gathered[0][VIRTIO_HEADER + 20..]).unwrap();
    assert_eq!(merged.get_flags(), ACK | PSH);
    let packets = [
        Tcp::new(0, vec![0; 1000]).bytes(),
        Tcp::new(1000, vec![1; 500]).bytes(),
        Tcp::new(1500, vec![2; 500]).bytes(),
    ];
    assert_eq!(writes(&mut Coalescer::new(true), &packets).len(), 2);
}

#[test]
fn datagrams_become_few_writes() {
    for ipv6 in [false, true] {
        // 65535 bytes hold 46 of the long ones, and a superpacket 64 of any.
        for (length, expected) in [(1400, 3), (50, 2)] {
            let mut packets: Vec<_> = (0..99)
                .map(|index| datagram(ipv6, 1, &vec![index; length]))
                .collect();
            packets.push(datagram(ipv6, 1, &[100; 20]));
            let gathered = writes(&mut Coalescer::new(true), &packets);
            assert_eq!(gathered.len(), expected);
            let header = VirtioHeader::decode(gathered[0].first_chunk().unwrap());
            assert_eq!(header.gso_type, GSO_UDP_L4);
            assert_eq!(usize::from(header.segment), length);
            assert_eq!((header.flags, header.checksum_offset), (NEEDS_CHECKSUM, 6));
            let merged = UdpPacket::new(transport(&gathered[0][VIRTIO_HEADER..])).unwrap();
            assert_eq!(usize::from(merged.get_length()), 8 + merged.payload().len());
            let again: Vec<_> = gathered
                .iter()
                .flat_map(|w| as_the_kernel_cuts(w))
                .collect();
            for packet in &again {
                assert_sound(packet);
            }
            assert_eq!(
                again.iter().map(|p| essence(p)).collect::<Vec<_>>(),
                packets.iter().map(|p| essence(p)).collect::<Vec<_>>()
            );
            // A kernel that takes none.
            assert_eq!(writes(&mut Coalescer::new(false), &packets).len(), 100);
        }
    }
}

#[test]
fn what_the_kernel_refuses_together_goes_one_by_one() {
    let tcp: Vec<_> = (0..3)
        .map(|at| Tcp::new(at * 1000, vec![at as u8; 1000]).bytes())
        .collect();
    let udp: Vec<_> = (0..3).map(|at| datagram(false, 1, &[at; 100])).collect();
    // Two flows, each among the other's packets.
    let packets: Vec<_> = [&tcp[0], &udp[0], &tcp[1], &udp[1], &tcp[2], &udp[2]]
        .map(Clone::clone)
        .into();
    let batch = batch_of(&packets);
    let mut coalescer = Coalescer::new(true);
    coalescer.plan(&batch);
    assert_eq!(coalescer.writes(), 2);
    assert!(coalescer.refused(0));
    assert_eq!(coalescer.writes(), 4);
    let written = planned(&mut coalescer, &batch);
    for (written, packet) in written.iter().zip(&tcp) {
        let (header, bytes) = written.split_first_chunk().unwrap();
        assert_eq!(VirtioHeader::decode(header), VirtioHeader::default());
        assert_eq!(bytes, packet);
    }
    // A packet by itself that is refused is lost.
    assert!(!coalescer.refused(0) && !coalescer.refused(4));
    // From then on only the other protocol's are gathered, until those are refused.
    coalescer.plan(&batch);
    assert_eq!(coalescer.writes(), 4);
    let gathered = (0..4).find(|index| coalescer.refused(*index));
    assert!(gathered.is_some());
    coalescer.plan(&batch);
    assert_eq!(coalescer.writes(), 6);
}

#[test]
fn datagrams_that_differ_stay_apart() {
    for ipv6 in [false, true] {
        let base = |length| datagram(ipv6, 1, &vec![7; length]);
        let together = [base(100), base(100)];
        assert_eq!(writes(&mut Coalescer::new(true), &together).len(), 1);
        assert_apart("a longer one", &[base(100), base(101)]);
        assert_apart("an empty one", &[base(100), base(0)]);
        assert_apart("empty ones", &[base(0), base(0)]);
        assert_apart("another peer", &[base(100), datagram(ipv6, 2, &[7; 100])]);
        let short = [base(100), base(50), base(50)];
        assert_eq!(writes(&mut Coalescer::new(true), &short).len(), 2);

        let udp = if ipv6 { 40 } else { 20 };
        for (what, at, bits) in [
            ("another port of the source", udp + 1, 1),
            ("another port of the destination", udp + 3, 1),
            ("bytes behind the datagram", udp + 5, 4),
            ("another traffic class or type of service", 1, 0x20),
            (
                "another hop limit or time to live",
                if ipv6 { 7 } else { 8 },
                1,
            ),
        ] {
            let mut packets = together.clone();
            packets[1][at] ^= bits;
            mend(&mut packets[1]);
            assert_apart(what, &packets);
        }
        for index in [0, 1] {
            let mut corrupt = together.clone();
            corrupt[index][udp + 20] ^= 1;
            assert_apart("a wrong checksum", &corrupt);
            let mut without = together.clone();
            without[index][udp + 6..udp + 8].fill(0);
            assert_apart("no checksum", &without);
        }
        // Of a datagram whose checksum is zero the sum holds without one.
        let zero = (0..=u16::MAX)
            .map(|number| {
                datagram(
                    ipv6,
                    1,
                    &[[7; 98].as_slice(), &number.to_be_bytes()].concat(),
                )
            })
            .find(|packet| packet[udp + 6..udp + 8] == [0, 0])
            .unwrap();
        assert_apart("no checksum, by chance", &[zero.clone(), zero]);
    }
}

proptest! {
    #[test]
    fn every_flow_arrives_whole_and_in_order(
        steps in proptest::collection::vec(
            (0u8..5, 1usize..900, any::<bool>(), 0u8..20, any::<bool>()), 1..200),
    ) {
        // Per flow: the next sequence number. Every other flow is IPv6.
        let mut next = [0u32; 5];
        let mut coalescer = Coalescer::new(true);
        let mut packets = Vec::new();
        for (flow, length, full, event, push) in steps {
            let length = if full { 900 } else { length };
            let mut packet = Tcp::new(next[usize::from(flow)], vec![flow; length]);
            packet.peer = flow;
            packet.ipv6 = flow % 2 == 1;
            match event {
                0 => packet.flags |= FIN,
                1 => packet.payload.clear(),
                2 => packet.sequence = packet.sequence.wrapping_sub(17),
                3 => packet.acknowledgment = 6,
                _ if push && length < 900 => packet.flags |= PSH,
                _ => {}
            }
            next[usize::from(flow)] = packet.sequence.wrapping_add(packet.payload.len() as u32);
            packets.push(packet.bytes());
        }
        for chunk in packets.chunks(60) {
            let writes = writes(&mut coalescer, chunk);
            prop_assert!(writes.len() <= chunk.len());
            let arrived: Vec<Vec<u8>> = writes.iter().flat_map(|w| as_the_kernel_cuts(w)).collect();
            prop_assert_eq!(arrived.len(), chunk.len());
            for flow in 0..5u8 {
                let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    packets
                        .iter()
                        .filter(|p| TcpPacket::new(transport(p)).unwrap().get_source() == 1000 + u16::from(flow))
                        .map(|p| essence(p))
                        .collect()
                };
                prop_assert_eq!(of_flow(&arrived), of_flow(chunk));
            }
            for packet in &arrived {
                assert_sound(packet);
            }
        }
    }

    #[test]
    fn any_batch_is_written_whole(packets in proptest::collection::vec(
        (prop_oneof![Just(0x45u8), Just(0x60u8), any::<u8>()],
         proptest::collection::vec(any::<u8>(), 0..120)), 0..40)) {
        let packets: Vec<Vec<u8>> = packets
            .into_iter()
            .map(|(first, mut bytes)| {
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                bytes
            })
            .collect();
        let writes = writes(&mut Coalescer::new(true), &packets);
        prop_assert_eq!(writes.len(), packets.len());
        for (write, packet) in writes.iter().zip(&packets) {
            prop_assert_eq!(&write[VIRTIO_HEADER..], packet.as_slice());
        }
    }
}
