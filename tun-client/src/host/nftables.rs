//! Sentences of nftables, as netlink has them (Linux, `include/uapi/linux/netfilter/nf_tables.h`).
//!
//! Attributes stand in the order in which the kernel gives them back, so that what is there can be
//! compared with what was asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

use super::filter::Sentence;
use super::outside::Transport;
use super::prefix::Prefix;

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_PAYLOAD_INNER_HEADER`: what is behind the transport header (Linux 5.16).
const INNER_HEADER: u32 = 3;
/// The bit by which a letter's two cases differ.
const CASE: u8 = 0x20;
/// Bytes that one comparison takes (Linux, `struct nft_data`).
const COMPARED: usize = 16;
/// `NFT_BITWISE_MASK_XOR`.
const MASK_XOR: u32 = 0;
/// `NF_DROP`, `NF_ACCEPT` (Linux, `linux/netfilter.h`).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `IPPROTO_ICMP`.
const ICMP: u8 = 1;
/// `IPPROTO_ICMPV6`, and the type of a neighbour solicitation (RFC 4861, section 4.3), whose target
/// stands behind eight bytes.
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const SOLICITED_TARGET: u32 = 8;
/// Offsets of the ports (RFC 768, RFC 9293).
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
/// Offsets of source and destination in the headers (RFC 791, section 3.1; RFC 8200, section 3).
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
/// Offsets of the sender's and the target's protocol address for Ethernet and IPv4 (RFC 826).
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;
/// Bytes of an interface's name, the zeros behind it included (`IFNAMSIZ`).
const INTERFACE_NAME: usize = 16;

/// Which interface of a packet is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The one that it arrived on.
    In,
    /// The one that it leaves by.
    Out,
}

/// An address of a packet, and what it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    offset: u32,
    address: IpAddr,
}

/// A part of a sentence.
pub type Part = Vec<Expressions>;

/// One sentence of all parts.
pub fn all<const N: usize>(parts: [Part; N]) -> Sentence {
    parts.into_iter().flatten().map(Into::into).collect()
}

/// One sentence of a list of parts.
pub fn sentence(parts: Vec<Part>) -> Sentence {
    parts.into_iter().flatten().map(Into::into).collect()
}

/// The packet passes this chain.
pub fn accept() -> Part {
    verdict(ACCEPT)
}

/// The packet ends.
pub fn drop() -> Part {
    verdict(DROP)
}

/// The source of a packet of this address's family.
pub fn source(address: IpAddr) -> Field {
    Field {
        offset: if address.is_ipv4() {
            IPV4_SOURCE
        } else {
            IPV6_SOURCE
        },
        address,
    }
}

/// The destination of a packet of this address's family.
pub fn destination(address: IpAddr) -> Field {
    Field {
        offset: if address.is_ipv4() {
            IPV4_DESTINATION
        } else {
            IPV6_DESTINATION
        },
        address,
    }
}

/// The packet arrived on, or leaves by, the interface of this name.
pub fn interface(direction: Direction, name: &str) -> Part {
    interface_is(direction, name, Operator::Equal)
}

/// The same for every other interface.
pub fn not_interface(direction: Direction, name: &str) -> Part {
    interface_is(direction, name, Operator::NotEqual)
}

/// The field is exactly its address.
pub fn is_address(field: Field) -> Part {
    let bytes = octets(field.address);
    let mut part = family(field.address);
    part.push(load(NETWORK_HEADER, field.offset, bytes.len()));
    part.push(compare(Operator::Equal, bytes));
    part
}

/// The field, which is known to be of its address's family, is another one.
pub fn not_address(field: Field) -> Part {
    let bytes = octets(field.address);
    vec![
        load(NETWORK_HEADER, field.offset, bytes.len()),
        compare(Operator::NotEqual, bytes),
    ]
}

/// The field lies in a network of its address's family.
pub fn in_network(field: Field, network: Prefix) -> Part {
    let mut part = family(field.address);
    part.extend(network_is(field.offset, network, Operator::Equal));
    part
}

/// The field, which is known to be of the network's family, does not lie in it.
pub fn not_in_network(field: Field, network: Prefix) -> Part {
    network_is(field.offset, network, Operator::NotEqual)
}

/// The packet goes to this port.
pub fn to_port(transport: Transport, port: u16) -> Part {
    port_is(transport, DESTINATION_PORT, port)
}

/// The packet goes to another port, whatever is spoken there.
pub fn not_to_port(port: u16) -> Part {
    vec![
        load(TRANSPORT_HEADER, DESTINATION_PORT, 2),
        compare(Operator::NotEqual, port.to_be_bytes().to_vec()),
    ]
}

/// These bytes stand so far behind the transport header, letters in whatever case.
pub fn bytes_at(offset: usize, bytes: &[u8]) -> Part {
    let mut part = Vec::new();
    for (number, bytes) in bytes.chunks(COMPARED).enumerate() {
        let mask = |byte: &u8| {
            if byte.is_ascii_alphabetic() {
                !CASE
            } else {
                u8::MAX
            }
        };
        let offset = (offset + number * COMPARED) as u32;
        part.push(load(INNER_HEADER, offset, bytes.len()));
        part.push(masked(bytes.iter().map(mask).collect()));
        part.push(compare(Operator::Equal, bytes.to_ascii_uppercase()));
    }
    part
}

/// Bytes between these two, which are of one length, at most 16, stand so far behind the transport
/// header.
pub fn bytes_between(offset: usize, first: &[u8], last: &[u8]) -> Part {
    vec![
        load(INNER_HEADER, offset as u32, first.len()),
        compare(Operator::GreatherThanEqual, first.to_vec()),
        compare(Operator::LessThanEqual, last.to_vec()),
    ]
}

/// The packet comes from this port.
pub fn from_port(transport: Transport, port: u16) -> Part {
    port_is(transport, SOURCE_PORT, port)
}

/// The packet has come from elsewhere (Linux 5.7).
pub fn is_forwarded() -> Part {
    vec![meta(MetaKey::Iif), compare(Operator::NotEqual, vec![0; 4])]
}

/// The packet is of a kind that may be answered from another address than it came to: neither of TCP
/// nor of ICMP, where the kernel answers.
pub fn answers_without_source() -> Part {
    let other = |number| {
        [
            meta(MetaKey::L4Proto),
            compare(Operator::NotEqual, vec![number]),
        ]
    };
    [Transport::Tcp.number(), ICMP, ICMPV6]
        .into_iter()
        .flat_map(other)
        .collect()
}

fn port_is(transport: Transport, offset: u32, port: u16) -> Part {
    vec![
        meta(MetaKey::L4Proto),
        compare(Operator::Equal, vec![transport.number()]),
        load(TRANSPORT_HEADER, offset, 2),
        compare(Operator::Equal, port.to_be_bytes().to_vec()),
    ]
}

fn network_is(offset: u32, network: Prefix, operator: Operator) -> Part {
    let bytes = octets(network.network().address);
    let mask: Vec<u8> = (0..bytes.len())
        .map(|index| {
            let ones = usize::from(network.length).saturating_sub(index * 8).min(8);
            u8::MAX.checked_shl(8 - ones as u32).unwrap_or(0)
        })
        .collect();
    vec![
        load(NETWORK_HEADER, offset, bytes.len()),
        masked(mask),
        compare(operator, bytes),
    ]
}

/// The packet asks a neighbour for this address.
pub fn neighbour_solicitation_for(address: Ipv6Addr) -> Part {
    vec![
        meta(MetaKey::L4Proto),
        compare(Operator::Equal, vec![ICMPV6]),
        load(TRANSPORT_HEADER, 0, 1),
        compare(Operator::Equal, vec![NEIGHBOUR_SOLICITATION]),
        load(TRANSPORT_HEADER, SOLICITED_TARGET, 16),
        compare(Operator::Equal, address.octets().to_vec()),
    ]
}

/// The sender of an ARP packet has this address.
pub fn arp_sender(address: Ipv4Addr) -> Part {
    arp(ARP_SENDER, address)
}

/// An ARP packet is about this address.
pub fn arp_target(address: Ipv4Addr) -> Part {
    arp(ARP_TARGET, address)
}

/// The sender of an ARP packet has an address of a network, or has not.
pub fn arp_sender_in(first: Ipv4Addr, length: u8) -> Part {
    network_is(ARP_SENDER, Prefix::new(first, length), Operator::Equal)
}

/// See [`arp_sender_in`].
pub fn arp_sender_not_in(first: Ipv4Addr, length: u8) -> Part {
    network_is(ARP_SENDER, Prefix::new(first, length), Operator::NotEqual)
}

fn arp(offset: u32, address: Ipv4Addr) -> Part {
    vec![
        load(NETWORK_HEADER, offset, 4),
        compare(Operator::Equal, address.octets().to_vec()),
    ]
}

fn interface_is(direction: Direction, name: &str, operator: Operator) -> Part {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_NAME, 0);
    let key = match direction {
        Direction::In => MetaKey::Iifname,
        Direction::Out => MetaKey::Oifname,
    };
    vec![meta(key), compare(operator, padded)]
}

/// The packet is of an address's family.
fn family(address: IpAddr) -> Part {
    let family = if address.is_ipv4() { IPV4 } else { IPV6 };
    vec![
        meta(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family]),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![
        Meta::Key(key),
        Meta::DestinationRegister(Register::Reg1),
    ])
}

fn load(base: u32, offset: u32, length: usize) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length as u32),
    ])
}

fn masked(mask: Vec<u8>) -> Expressions {
    let length = mask.len();
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(length as u32),
        Bitwise::Op(MASK_XOR),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; length])),
    ])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn verdict(code: u32) -> Part {
    vec![Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            Verdict::Other(code),
        )])),
    ])]
}
