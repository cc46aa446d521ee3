//! Frames as they come from a wire, cut and changed.

extern crate std;
use std::vec::Vec;

use super::*;

/// A frame with one of our datagrams: type 4, index 7, tag 1..=16.
fn golden(v6: bool, vlan: bool) -> Vec<u8> {
    let mut frame = Vec::from([0u8; 12]);
    if vlan {
        frame.extend([0x81, 0, 0, 42]);
    }
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(UDP_LENGTH.to_be_bytes());
        frame.extend([PROTOCOL_UDP, 64]);
        frame.extend([0xfe; 16]);
        frame.extend([0xdd; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((IPV4 as u16 + UDP_LENGTH).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
        frame.extend([192, 0, 2, 1, 198, 51, 100, 2]);
    }
    frame.extend([0x1b, 0x58, 0x1b, 0x59]);
    frame.extend(UDP_LENGTH.to_be_bytes());
    frame.extend([0, 0]);
    let mut datagram = [0u8; DATAGRAM_LENGTH];
    datagram[0] = TYPE_DATA;
    datagram[7] = 7;
    for (i, b) in datagram[TAG_OFFSET..].iter_mut().enumerate() {
        *b = i as u8 + 1;
    }
    frame.extend(datagram);
    frame
}

fn all() -> [Vec<u8>; 4] {
    [
        golden(false, false),
        golden(false, true),
        golden(true, false),
        golden(true, true),
    ]
}

#[test]
fn our_datagram_is_found_behind_every_header() {
    for frame in all() {
        let found = udp(&frame[..]).unwrap();
        assert_eq!(found.port, 0x1b59);
        assert!(found.whole);
        assert_eq!(found.payload + DATAGRAM_LENGTH, frame.len());
        assert_eq!(message(&frame[..], found.payload), Some(Message::Data(7)));
        let tag = tag(&frame[..], found.payload).unwrap();
        assert_eq!(tag, [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09]);
    }
    let v4 = udp(&golden(false, false)[..]).unwrap();
    assert_eq!(v4.source, mapped([192, 0, 2, 1]));
    assert_eq!(v4.destination, mapped([198, 51, 100, 2]));
    let v6 = udp(&golden(true, false)[..]).unwrap();
    assert_eq!(
        v6.source,
        [
            0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(v6.destination, [0xdd; 16]);
}

#[test]
fn a_frame_cut_anywhere_is_not_a_datagram_of_ours() {
    for frame in all() {
        for n in 0..frame.len() {
            assert!(
                !udp(&frame[..n]).is_some_and(|u| u.whole),
                "cut to {n} bytes"
            );
        }
    }
}

#[test]
fn a_trailer_does_not_matter() {
    for mut frame in all() {
        frame.extend([0; 4]);
        assert!(udp(&frame[..]).unwrap().whole);
    }
}

#[test]
fn options_fragments_and_other_protocols_are_the_kernels() {
    let change = |at: usize, to: u8| {
        let mut frame = golden(false, false);
        frame[at] = to;
        udp(&frame[..])
    };
    assert!(change(ETHERNET, 0x46).is_none(), "options");
    assert!(change(ETHERNET + 6, 0x20).is_none(), "more fragments");
    assert!(change(ETHERNET + 7, 1).is_none(), "a later fragment");
    assert!(change(ETHERNET + 9, 6).is_none(), "TCP");
    assert!(change(12, 8).is_some());
    assert!(change(13, 6).is_none(), "ARP");
    let mut v6 = golden(true, false);
    v6[ETHERNET + 6] = 44;
    assert!(udp(&v6[..]).is_none(), "an IPv6 fragment header");
}

/// A frame with these bytes between IP header and UDP header.
fn between(v6: bool, vlan: bool, protocol: u8, more: &[u8]) -> Vec<u8> {
    let mut frame = golden(v6, vlan);
    let ip = if vlan { ETHERNET + TAG } else { ETHERNET };
    if v6 {
        frame[ip + 6] = protocol;
        frame.splice(ip + IPV6..ip + IPV6, more.iter().copied());
    } else {
        frame[ip] = 0x45 + (more.len() / 4) as u8;
        frame.splice(ip + IPV4..ip + IPV4, more.iter().copied());
    }
    frame
}

#[test]
fn what_hides_its_port_from_a_plain_look_is_found() {
    for vlan in [false, true] {
        let options = between(false, vlan, PROTOCOL_UDP, &[1; 8]);
        let fragment_v6 = between(true, vlan, FRAGMENT, &[PROTOCOL_UDP, 0, 0, 1, 0, 0, 0, 9]);
        let mut fragment = golden(false, vlan);
        fragment[if vlan { ETHERNET + TAG } else { ETHERNET } + 6] = 0x20;
        for (frame, v6) in [(options, false), (fragment, false), (fragment_v6, true)] {
            assert_eq!(udp(&frame[..]), None);
            let (found, plain) = (unread(&frame[..]).unwrap(), udp(&golden(v6, false)[..]));
            let plain = plain.unwrap();
            assert_eq!(found.port, Some(0x1b59));
            assert_eq!(found.source, plain.source);
            assert_eq!(found.destination, plain.destination);
            // Cut anywhere, it is found or not; nothing beyond the end is read.
            for n in 0..frame.len() {
                let whole = n >= frame.len() - DATAGRAM_LENGTH;
                assert_eq!(unread(&frame[..n]).is_some(), whole, "{n}");
            }
        }
    }
    let later = between(true, false, FRAGMENT, &[PROTOCOL_UDP, 0, 0, 8, 0, 0, 0, 9]);
    assert_eq!(unread(&later[..]), None, "a later fragment");
    let tcp = between(true, false, HOP_BY_HOP, &[6, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(unread(&tcp[..]), None, "TCP");
    let header = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
    let deep = between(
        true,
        false,
        DESTINATION_OPTIONS,
        &header.repeat(MAX_EXTENSIONS),
    );
    assert_eq!(unread(&deep[..]).unwrap().port, None);
    let mut short = golden(false, false);
    short[ETHERNET] = 0x44;
    assert_eq!(unread(&short[..]), None, "a header of four words");
}

#[test]
fn lengths_must_agree() {
    for (at, what) in [(ETHERNET + 3, "IP"), (ETHERNET + IPV4 + 5, "UDP")] {
        let mut frame = golden(false, false);
        frame[at] ^= 1;
        assert!(!udp(&frame[..]).unwrap().whole, "{what}");
    }
    let mut frame = golden(true, true);
    frame[ETHERNET + TAG + 5] ^= 1;
    assert!(!udp(&frame[..]).unwrap().whole);
}

#[test]
fn types_and_zeros_are_checked() {
    let frame = golden(false, false);
    let payload = udp(&frame[..]).unwrap().payload;
    let with = |bytes: [u8; 4]| {
        let mut frame = frame.clone();
        frame[payload..payload + 4].copy_from_slice(&bytes);
        message(&frame[..], payload)
    };
    assert_eq!(with([1, 0, 0, 0]), Some(Message::Initiation));
    assert_eq!(with([2, 0, 0, 0]), Some(Message::Answer(7)));
    assert_eq!(with([3, 0, 0, 0]), Some(Message::Answer(7)));
    assert_eq!(with([4, 0, 0, 0]), Some(Message::Data(7)));
    assert_eq!(with([5, 0, 0, 0]), Some(Message::Probe));
    for bytes in [
        [0, 0, 0, 0],
        [6, 0, 0, 0],
        [5, 0, 0, 1],
        [255, 0, 0, 0],
        [4, 1, 0, 0],
        [1, 0, 0, 9],
    ] {
        assert_eq!(with(bytes), Some(Message::Unknown));
    }
}

#[test]
fn the_whole_address_of_the_sender_is_found() {
    for (v6, vlan) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = golden(v6, vlan);
        let payload = udp(&frame[..]).unwrap().payload;
        let address = if v6 {
            [0xfe; 16]
        } else {
            mapped([192, 0, 2, 1])
        };
        assert_eq!(sender(&frame[..], payload), Some((address, 0x1b58)));
    }
}

#[test]
fn headers_written_are_headers_read() {
    let datagram: [u8; DATAGRAM_LENGTH] = core::array::from_fn(|i| (i * 7) as u8);
    for (from, to) in [
        (mapped([192, 0, 2, 1]), mapped([198, 51, 100, 2])),
        ([0xfd; 16], [0x3f; 16]),
    ] {
        let is_ipv4 = is_mapped(&to);
        let route = Route {
            from_mac: [1; 6],
            to_mac: [2; 6],
            from,
            to,
            from_port: 7000,
            to_port: 7001,
        };
        let mut frame = std::vec![0; headers_length(is_ipv4)];
        assert!(write_headers(&mut frame, &route, &datagram));
        assert!(!write_headers(&mut frame[1..], &route, &datagram));
        let ip_length = if is_ipv4 { IPV4 } else { IPV6 };
        let (ip, udp_header) = frame[ETHERNET..].split_at(ip_length);
        // a checksum over what it covers, itself included, is all ones
        if is_ipv4 {
            assert_eq!(Sum::new().with(ip).fold(), [0xff; 2]);
            assert_eq!(udp_header[6..], [0, 0]);
        } else {
            let sum = Sum::pseudo_header(&ip[8..40], PROTOCOL_UDP, UDP_LENGTH);
            assert_eq!(sum.with(udp_header).with(&datagram).fold(), [0xff; 2]);
        }
        // Left to somebody else, it is completed from where it is: what is there, and all behind the front.
        let mut left = std::vec![0; headers_length(is_ipv4)];
        assert!(write_headers_for_offload(&mut left, &route));
        assert!(!write_headers_for_offload(&mut left[1..], &route));
        let front = usize::from(super::udp_header(is_ipv4));
        let place = front + usize::from(CHECKSUM_IN_UDP);
        let completed = Sum::new()
            .with(&left[front..])
            .with(&datagram)
            .udp_checksum();
        left[place..].copy_from_slice(&completed);
        let addresses = &left[ETHERNET..front];
        let addresses = &addresses[if is_ipv4 { 12 } else { 8 }..];
        let sum = Sum::pseudo_header(addresses, PROTOCOL_UDP, UDP_LENGTH);
        assert_eq!(sum.with(&left[front..]).with(&datagram).fold(), [0xff; 2]);
        if is_ipv4 {
            left[place..].copy_from_slice(&[0, 0]);
        }
        assert_eq!(left, frame);
        frame.extend(datagram);
        let found = udp(&frame[..]).unwrap();
        assert!(found.whole);
        assert_eq!(found.destination, to);
        assert_eq!(found.port, 7001);
        assert_eq!(sender(&frame[..], found.payload), Some((from, 7000)));
    }
}

#[test]
fn a_probe_may_be_short_and_nothing_else() {
    for mut frame in all() {
        let payload = udp(&frame[..]).unwrap().payload;
        let mut is_probe = |length: usize, kind: [u8; 4]| {
            frame[payload - UDP + 4..][..2].copy_from_slice(&(8 + length as u16).to_be_bytes());
            frame[payload..payload + 4].copy_from_slice(&kind);
            let found = udp(&frame[..]).unwrap();
            is_short_probe(message(&frame[..], payload), &found)
        };
        let probe = [5, 0, 0, 0];
        assert!(is_probe(64, probe) && is_probe(1407, probe));
        for length in [0, 16, 63, 1408, 1409, 2 * DATAGRAM_LENGTH] {
            assert!(!is_probe(length, probe), "{length}");
        }
        for kind in [[4, 0, 0, 0], [6, 0, 0, 0], [5, 0, 1, 0]] {
            assert!(!is_probe(100, kind), "{kind:?}");
        }
    }
}

#[test]
fn merged_datagrams_are_told_from_wrong_lengths() {
    let with = |length: usize| {
        let mut frame = golden(false, false);
        frame[ETHERNET + IPV4 + 4..][..2].copy_from_slice(&(8 + length as u16).to_be_bytes());
        udp(&frame[..]).unwrap()
    };
    assert!(!with(DATAGRAM_LENGTH).is_merged());
    assert!(!with(0).is_merged());
    assert!(!with(DATAGRAM_LENGTH + 1).is_merged());
    assert!(with(2 * DATAGRAM_LENGTH).is_merged());
    assert!(with(44 * DATAGRAM_LENGTH).is_merged());
}
