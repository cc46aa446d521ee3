//! The program and AF_XDP sockets on a veth pair, each test in a network namespace of its
//! own that ends with its thread.
//!
//! Needs root and a relay built with the program. Without either the tests say so and pass,
//! unless `MIXLINE_REQUIRE_ROOT=1`.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use mixline_relay_common::checksum::Sum;
use mixline_relay_common::verdict::Verdict;
use mixline_relay_common::wire::{
    DATAGRAM_LENGTH, TAG_OFFSET, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE,
};
use mixline_testnet::{netns, skip};
use mixline_xdp::{
    Attached, Card, Granted, Neighbours, Program, ProgramConfig, Socket, SocketConfig,
};
use nix::time::{ClockId, clock_gettime};

const PORT: u16 = 7000;
const INDEX: u32 = 0x0a0b_0c0d;

/// Runs a test in a new namespace with the veth pair `relay0`, `peer0`.
fn in_namespace(test: impl FnOnce() + Send) {
    if !Program::is_built() {
        skip::skip("built without the XDP program");
        return;
    }
    let Some(namespace) = skip::namespace_or_skip() else {
        return;
    };
    let wired = || {
        ip("link add relay0 type veth peer name peer0\n\
            addr add 198.51.100.2/24 dev relay0\n\
            link set relay0 up\n\
            link set peer0 up\n");
        test();
    };
    namespace.run(wired).unwrap();
}

fn ip(lines: &str) {
    netns::ip(lines).unwrap();
}

fn program(redirect: bool) -> Program {
    program_with(redirect, false)
}

fn program_with(redirect: bool, stamps: bool) -> Program {
    let config = ProgramConfig {
        port: PORT,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))],
        redirect,
        stamps,
        filter_bytes: 1 << 20,
        filter_key: [5, 6],
    };
    let mut program = Program::load(Card::of("relay0"), &config).unwrap();
    assert_eq!(program.attach().unwrap(), Attached::Native);
    program.sessions().add(INDEX).unwrap();
    program
}

fn small() -> SocketConfig {
    SocketConfig {
        frames: 512,
        zero_copy: true,
        ..SocketConfig::default()
    }
}

/// An Ethernet frame with a datagram of session `index`, told apart by `number`.
fn frame(index: u32, number: u64) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    frame.extend((28 + DATAGRAM_LENGTH as u16).to_be_bytes());
    frame.extend([
        0, 1, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2, 0x1b, 0x59,
    ]);
    frame.extend(PORT.to_be_bytes());
    frame.extend((8 + DATAGRAM_LENGTH as u16).to_be_bytes());
    frame.extend([0, 0]);
    let mut datagram = [0x77; DATAGRAM_LENGTH];
    datagram[..4].copy_from_slice(&[TYPE_DATA, 0, 0, 0]);
    datagram[4..8].copy_from_slice(&index.to_be_bytes());
    datagram[8..16].copy_from_slice(&number.to_be_bytes());
    datagram[TAG_OFFSET..].copy_from_slice(&tag(number));
    frame.extend(datagram);
    frame
}

fn tag(number: u64) -> [u8; 16] {
    let mut tag = [9; 16];
    tag[..8].copy_from_slice(&number.to_be_bytes());
    tag
}

/// Sends frames from a socket, waiting for room as long as it takes.
fn send(socket: &mut Socket, frames: impl IntoIterator<Item = Vec<u8>>) {
    let mut queue = VecDeque::new();
    let until = Instant::now() + Duration::from_secs(20);
    for bytes in frames {
        let mut packet = loop {
            assert!(Instant::now() < until, "no room to send");
            if let Some(packet) = socket.take() {
                break packet;
            }
            socket.send(&mut queue).unwrap();
        };
        assert!(packet.fill(&bytes));
        queue.push_back(packet);
        if queue.len() == 64 {
            socket.send(&mut queue).unwrap();
        }
    }
    while !queue.is_empty() || socket.in_flight() > 0 {
        assert!(Instant::now() < until, "frames stay unsent");
        socket.send(&mut queue).unwrap();
    }
}

/// Takes what comes until `wanted` frames are there or nothing more comes.
fn receive(socket: &mut Socket, wanted: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut packets = Vec::new();
    while got.len() < wanted && socket.wait(500).unwrap() {
        socket.receive(&mut packets).unwrap();
        for packet in packets.drain(..) {
            got.push(packet.to_vec());
            socket.free(packet);
        }
    }
    got
}

#[test]
fn what_a_frame_asks_for_is_computed_by_the_kernel_if_the_card_does_not() {
    in_namespace(|| {
        let mut program = program(true);
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        program.add_socket(0, &relay).unwrap();
        // A pair of interfaces leaves it out unless it has to cross a real one.
        let off = ["-K", "peer0", "tx", "off"];
        let status = std::process::Command::new("ethtool").args(off).status();
        assert!(status.unwrap().success());
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        // More than copy mode takes in a call unless it is told.
        let sent: Vec<_> = (0..200).map(|number| frame(INDEX, number)).collect();
        let mut queue = VecDeque::new();
        for bytes in &sent {
            let mut packet = peer.take().unwrap();
            let mut bytes = bytes.clone();
            let partial = Sum::pseudo_header(&bytes[26..34], 17, 8 + DATAGRAM_LENGTH as u16);
            bytes[40..42].copy_from_slice(&partial.fold());
            assert!(packet.fill(&bytes));
            assert!(packet.has_checksum_offload() && packet.offload_checksum(34, 6));
            queue.push_back(packet);
        }
        peer.send(&mut queue).unwrap();
        let got = receive(&mut relay, 200);
        assert_eq!(got.len(), 200);
        for (bytes, sent) in got.iter().zip(&sent) {
            let sum = Sum::pseudo_header(&bytes[26..34], 17, 8 + DATAGRAM_LENGTH as u16);
            assert_eq!(sum.with(&bytes[34..]).fold(), [0xff; 2]);
            assert_ne!(bytes[40..42], [0, 0]);
            assert_eq!((&bytes[..40], &bytes[42..]), (&sent[..40], &sent[42..]));
        }
    });
}

fn count(program: &Program, verdict: Verdict) -> u64 {
    program.counts().unwrap().verdicts[verdict as usize]
}

#[test]
fn data_of_a_session_reaches_the_socket_of_its_queue_and_nothing_else_does() {
    in_namespace(|| {
        let mut program = program(true);
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        program.add_socket(0, &relay).unwrap();
        let good: Vec<_> = (0..100).map(|n| frame(INDEX, n)).collect();
        let other = (100..150).map(|n| frame(INDEX ^ 1, n));
        send(&mut peer, good.iter().cloned().chain(other));
        assert_eq!(receive(&mut relay, 150), good);
        assert_eq!(count(&program, Verdict::Redirected), 100);
        assert_eq!(count(&program, Verdict::UnknownIndex), 50);
        program.sessions().remove(INDEX);
        send(&mut peer, [frame(INDEX, 7)]);
        assert!(receive(&mut relay, 1).is_empty());
    });
}

/// What a clock of the kernel's says, in nanoseconds.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[test]
fn frames_have_the_time_when_they_came_if_that_is_asked_for() {
    in_namespace(|| {
        for stamps in [true, false] {
            let mut program = program_with(true, stamps);
            let config = SocketConfig { stamps, ..small() };
            let mut relay = Socket::bind("relay0", 0, config).unwrap();
            let mut peer = Socket::bind("peer0", 0, small()).unwrap();
            program.add_socket(0, &relay).unwrap();
            // More than there are frames, so that each is received into more than once.
            for round in 0..16 {
                let before = monotonic();
                let frames: Vec<_> = (64 * round..64 * (round + 1))
                    .map(|n| frame(INDEX, n))
                    .collect();
                send(&mut peer, frames.iter().cloned());
                let (mut packets, mut got) = (Vec::new(), Vec::new());
                while got.len() < frames.len() && relay.wait(500).unwrap() {
                    relay.receive(&mut packets).unwrap();
                    let after = monotonic();
                    for mut packet in packets.drain(..) {
                        let stamp = packet.take_stamp();
                        let fits = |time| (before..=after).contains(&time);
                        assert!(stamp.is_some_and(fits) == stamps, "{stamp:?}");
                        assert_eq!(packet.take_stamp(), None, "a stamp is taken once");
                        got.push(packet.to_vec());
                        relay.free(packet);
                    }
                }
                assert_eq!(got, frames);
            }
        }
    });
}

#[test]
fn a_marked_tag_is_dropped_until_two_generations_have_passed() {
    in_namespace(|| {
        let mut program = program(true);
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        program.add_socket(0, &relay).unwrap();
        let filter = program.tag_filter();
        filter.mark(filter.locate(&tag(1)));
        send(&mut peer, [frame(INDEX, 1), frame(INDEX, 2)]);
        assert_eq!(receive(&mut relay, 2), [frame(INDEX, 2)]);
        assert_eq!(count(&program, Verdict::Replayed), 1);
        let start = Instant::now();
        let later =
            |n: u32| start + n * mixline_xdp::TagFilter::HORIZON + Duration::from_secs(n.into());
        assert!(!filter.rotate(start));
        assert!(filter.rotate(later(1)));
        send(&mut peer, [frame(INDEX, 1)]);
        assert!(
            receive(&mut relay, 1).is_empty(),
            "the previous generation still counts"
        );
        assert!(filter.rotate(later(2)));
        send(&mut peer, [frame(INDEX, 1)]);
        assert_eq!(receive(&mut relay, 1).len(), 1);
    });
}

#[test]
fn frames_are_conserved_over_many_rounds_in_both_directions() {
    in_namespace(|| {
        let mut program = program(true);
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        program.add_socket(0, &relay).unwrap();
        for round in 0..200 {
            let sent: Vec<_> = (0..100).map(|n| frame(INDEX, round * 100 + n)).collect();
            send(&mut peer, sent.iter().cloned());
            let got = receive(&mut relay, 100);
            assert_eq!(got, sent, "round {round}");
            send(&mut relay, got);
            assert!(relay.is_conserved() && peer.is_conserved());
            assert_eq!((relay.held(), peer.held()), (0, 0));
        }
        assert_eq!(count(&program, Verdict::Redirected), 20_000);
    });
}

/// The kernel sets the flag of the TX ring with the ring, and keeps it in copy mode, where only
/// drivers with zero-copy ever touch the flags.
#[test]
fn in_copy_mode_the_kernel_wants_to_be_woken_to_send_and_not_to_receive() {
    in_namespace(|| {
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        assert_eq!(relay.granted(), Granted::Copy);
        let mut program = program(true);
        program.add_socket(0, &relay).unwrap();
        for round in 0..3 {
            // Half of the frames wait to be received into, and as many more as have been since.
            let filled = 256 + round as u32;
            assert_eq!(relay.rings(), [(false, filled), (true, round as u32)]);
            send(&mut peer, [frame(INDEX, round)]);
            let got = receive(&mut relay, 1);
            assert_eq!(got.len(), 1);
            send(&mut relay, got);
        }
    });
}

#[test]
fn frames_wait_while_the_interface_is_down() {
    in_namespace(|| {
        let mut program = program(true);
        let mut relay = Socket::bind("relay0", 0, small()).unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        program.add_socket(0, &relay).unwrap();
        let sent: Vec<_> = (0..100).map(|n| frame(INDEX, n)).collect();
        ip("link set peer0 down");
        let mut early: VecDeque<_> = sent[..50]
            .iter()
            .map(|bytes| {
                let mut packet = peer.take().unwrap();
                assert!(packet.fill(bytes));
                packet
            })
            .collect();
        assert_eq!(peer.send(&mut early).unwrap(), 50);
        assert_eq!((peer.held(), peer.in_flight()), (0, 50));
        assert!(peer.is_conserved());
        ip("link set peer0 up\n");
        send(&mut peer, sent[50..].iter().cloned());
        assert_eq!(receive(&mut relay, 100), sent);
    });
}

#[test]
fn as_a_filter_the_program_passes_data_to_the_kernels_socket() {
    in_namespace(|| {
        let program = program(false);
        let socket = std::net::UdpSocket::bind(("198.51.100.2", PORT)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        // the kernel wants its own MAC address and a good IP checksum
        let mac = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(mac.contains("relay0:"));
        let text = netns::ip_output("-br link show relay0").unwrap();
        let mac = text.split_whitespace().nth(2).unwrap().to_string();
        let mut good = frame(INDEX, 1);
        for (i, byte) in mac.split(':').enumerate() {
            good[i] = u8::from_str_radix(byte, 16).unwrap();
        }
        let sum: u32 = (14..34)
            .step_by(2)
            .map(|i| u32::from(u16::from_be_bytes([good[i], good[i + 1]])))
            .sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        good[24..26].copy_from_slice(&sum.to_be_bytes());
        let mut bad = good.clone();
        bad[14 + 28 + 4] ^= 1;
        send(&mut peer, [bad, good.clone()]);
        let mut datagram = [0; 2000];
        let (n, _) = socket.recv_from(&mut datagram).unwrap();
        assert_eq!(datagram[..n], good[42..]);
        assert_eq!(count(&program, Verdict::Filtered), 1);
        assert_eq!(count(&program, Verdict::UnknownIndex), 1);
    });
}

#[test]
fn answers_to_own_handshakes_pass_while_forged_initiations_use_up_all_buckets() {
    in_namespace(|| {
        let program = program(true);
        let sessions = program.sessions();
        let mut peer = Socket::bind("peer0", 0, small()).unwrap();
        let of_type = |kind, index, number| {
            let mut frame = frame(index, number);
            frame[42] = kind;
            frame
        };
        let answer = |number| of_type(TYPE_RESPONSE, INDEX, number);
        let mut passed = 0;
        let mut expect = |program: &Program, peer: &mut Socket, passes| {
            let handshakes = count(program, Verdict::Handshake);
            let judged = || program.counts().unwrap().verdicts.iter().sum::<u64>();
            let (before, until) = (judged(), Instant::now() + Duration::from_secs(5));
            send(peer, [answer(passed)]);
            while judged() == before {
                assert!(Instant::now() < until, "lost on the wire");
            }
            let more = count(program, Verdict::Handshake) - handshakes;
            assert_eq!(more, u64::from(passes));
            passed += 1;
        };
        expect(&program, &mut peer, false);
        sessions.ask(INDEX).unwrap();
        expect(&program, &mut peer, true);
        // From everywhere; and those that are answered ask too.
        let forged = (0..60_000u64).map(|number| {
            let mut frame = of_type(TYPE_INITIATION, 7, number);
            frame[26..30].copy_from_slice(&(0x0b00_0000 + number as u32).to_be_bytes());
            frame
        });
        send(&mut peer, forged);
        let own = (0..200).map(|number| of_type(TYPE_INITIATION, 7, number));
        send(&mut peer, own);
        assert!(count(&program, Verdict::SourceLimited) > 0);
        let judged = || program.counts().unwrap().verdicts.iter().sum::<u64>();
        let until = Instant::now() + Duration::from_secs(5);
        while judged() < 60_000 {
            assert!(Instant::now() < until, "most of the flood is lost");
        }
        // Somebody who has seen the index sends more than the line loses.
        for _ in 0..200 {
            expect(&program, &mut peer, true);
        }
        sessions.answered(INDEX);
        expect(&program, &mut peer, false);
        // Once more, until the handshake is given up.
        sessions.ask(INDEX).unwrap();
        expect(&program, &mut peer, true);
        sessions.remove(INDEX);
        expect(&program, &mut peer, false);
    });
}

#[test]
fn the_program_leaves_with_its_owner() {
    in_namespace(|| {
        let attached = || {
            let text = netns::ip_output("link show relay0").unwrap();
            text.contains("xdp")
        };
        let program = program(true);
        assert!(attached());
        drop(program);
        assert!(!attached());
    });
}

#[test]
fn next_hops_follow_the_kernels_routes_and_neighbours() {
    in_namespace(|| {
        let mut table = Neighbours::new().unwrap();
        let now = Instant::now();
        let direct = "198.51.100.1".parse().unwrap();
        let far = "203.0.113.9".parse().unwrap();
        assert_eq!(table.next_hop(direct, now), None, "not resolved yet");
        assert_eq!(table.next_hop(far, now), None, "no route");
        ip("neigh add 198.51.100.1 lladdr 02:00:00:00:00:11 dev relay0 nud permanent\n");
        ip("route add 203.0.113.0/24 via 198.51.100.1\n");
        table.hear();
        let hop = table.next_hop(direct, now).unwrap();
        assert_eq!(hop.to, [2, 0, 0, 0, 0, 0x11]);
        assert_eq!(hop.source, IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)));
        assert_eq!(table.next_hop(far, now), Some(hop), "through the gateway");
        ip("neigh replace 198.51.100.1 lladdr 02:00:00:00:00:22 dev relay0 nud permanent\n");
        assert_eq!(table.next_hop(far, now), Some(hop), "remembered");
        table.hear();
        assert_eq!(
            table.next_hop(far, now).unwrap().to,
            [2, 0, 0, 0, 0, 0x22],
            "heard"
        );
        let later = now + Duration::from_secs(11);
        assert_eq!(
            table.next_hop(far, later),
            None,
            "one through the kernel, which verifies"
        );
        assert!(table.next_hop(far, later).is_some());
        ip("link set relay0 down");
        table.hear();
        assert_eq!(table.next_hop(far, later), None);
    });
}

#[test]
fn drivers_and_what_they_can_do_are_known() {
    in_namespace(|| {
        let card = Card::of("relay0");
        assert_eq!(card.to_string(), "relay0 (driver veth)");
        if let Some(abilities) = card.abilities() {
            assert!(abilities.native && abilities.redirect && !abilities.zero_copy);
        }
        if let Some(abilities) = Card::of("lo").abilities() {
            assert!(!abilities.native && !abilities.zero_copy);
        }
    });
}

#[test]
fn a_socket_that_is_refused_names_the_card_the_driver_and_what_to_do() {
    in_namespace(|| {
        let refused = |interface, queue| {
            let error = Socket::bind(interface, queue, small()).err().unwrap();
            error.to_string()
        };
        assert!(refused("none", 0).contains("no interface none"));
        let text = refused("relay0", 9);
        assert!(text.contains("relay0 (driver veth)"), "{text}");
        assert!(text.contains("queue 9"), "{text}");
        let _first = Socket::bind("relay0", 0, small()).unwrap();
        let text = refused("relay0", 0);
        assert!(text.contains("relay0 (driver veth)"), "{text}");
        assert!(text.contains("Device or resource busy"), "{text}");
        assert!(text.contains("end the other program"), "{text}");
    });
}

#[test]
fn a_program_that_cannot_be_attached_names_the_card_the_driver_and_what_to_do() {
    in_namespace(|| {
        let _first = program(true);
        let second = |interface: &str| {
            let config = ProgramConfig {
                port: PORT,
                addresses: Vec::new(),
                redirect: false,
                stamps: false,
                filter_bytes: 0,
                filter_key: [5, 6],
            };
            Program::load(Card::of(interface), &config)
                .unwrap()
                .attach()
        };
        let text = second("relay0").unwrap_err().to_string();
        assert!(
            text.contains("relay0 (driver veth) refuses native XDP"),
            "{text}"
        );
        assert!(text.contains("ip link set dev relay0 xdp off"), "{text}");
        // Without native XDP, the generic path is taken.
        assert_eq!(second("lo").unwrap(), Attached::Generic);
    });
}
