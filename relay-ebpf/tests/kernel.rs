//! Golden frames through the kernel's `BPF_PROG_TEST_RUN`, cut at every header boundary.
//!
//! Needs root and the built program: `MIXLINE_XDP_OBJECT` names it. Without either the
//! tests say so and pass, unless `MIXLINE_REQUIRE_ROOT=1`.

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use mixline_relay_common::bucket::{Bucket, Limit};
use mixline_relay_common::maps::{Address, MODE_FILTER, MODE_REDIRECT, Settings, mapped};
use mixline_relay_common::tag_filter::{Block, Position};
use mixline_relay_common::verdict::{Verdict, counter};
use mixline_relay_common::wire::{DATAGRAM_LENGTH, TAG_OFFSET, TYPE_DATA, TYPE_PROBE};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

const PORT: u16 = 7000;
/// Of a session.
const INDEX: u32 = 0x0102_0304;
/// Of two handshakes of ours.
const ASKED: [u32; 2] = [0x0506_0708, 0x090a_0b0c];
const KEY: [u64; 2] = [11, 22];
const MASK: u32 = 1023;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(#[allow(dead_code)] Settings);
// SAFETY: `repr(C)` integers without padding; the size is asserted next to the type.
unsafe impl Pod for PodSettings {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodBucket(#[allow(dead_code)] Bucket);
// SAFETY: `repr(C)` integers without padding; the size is asserted next to the type.
unsafe impl Pod for PodBucket {}

/// Says that a test is skipped, past the harness, so that `cargo xtask test` counts it.
fn skipped(reason: &str) {
    let line = format!("skipped: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The loaded program; none if the machine cannot load it and need not.
fn load(mode: u32, limits: Limits) -> Option<Kernel> {
    let required = std::env::var_os("MIXLINE_REQUIRE_ROOT").is_some_and(|v| v == "1");
    let Some(path) = std::env::var_os("MIXLINE_XDP_OBJECT") else {
        assert!(
            !required,
            "MIXLINE_XDP_OBJECT does not name the built program"
        );
        skipped("built without the XDP program");
        return None;
    };
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root && !required {
        skipped("needs root");
        return None;
    }
    let object = std::fs::read(&path).unwrap();
    let loaded = EbpfLoader::new()
        .map_max_entries("REPLAY", 2 * (MASK + 1))
        .load(&object);
    let mut ebpf = match loaded {
        Ok(ebpf) => ebpf,
        Err(e) if !required => {
            skipped(&e.to_string());
            return None;
        }
        Err(e) => panic!("{e}"),
    };
    let program: &mut Xdp = ebpf.program_mut("mixline").unwrap().try_into().unwrap();
    program.load().unwrap();
    let settings = Settings {
        key: KEY,
        mask: MASK,
        mode,
        port: u32::from(PORT),
        merged: u32::from(mode == MODE_REDIRECT),
        per_source: limits.handshakes.0,
        total: limits.handshakes.1,
        probes_per_source: limits.probes.0,
        probes_total: limits.probes.1,
        per_answer: limits.per_answer,
        unread_per_source: limits.unread.0,
        unread_total: limits.unread.1,
        per_network: limits.of_networks,
        probes_per_network: limits.of_networks,
    };
    let mut kernel = Kernel { ebpf };
    let map = kernel.ebpf.map_mut("SETTINGS").unwrap();
    Array::<_, PodSettings>::try_from(map)
        .unwrap()
        .set(0, PodSettings(settings), 0)
        .unwrap();
    let map = kernel.ebpf.map_mut("ADDRESSES").unwrap();
    let mut addresses = HashMap::<_, Address, u8>::try_from(map).unwrap();
    addresses.insert(mapped([198, 51, 100, 2]), 1, 0).unwrap();
    addresses.insert([0xdd; 16], 1, 0).unwrap();
    let map = kernel.ebpf.map_mut("SESSIONS").unwrap();
    let mut sessions = HashMap::<_, u32, u8>::try_from(map).unwrap();
    for index in [INDEX, ASKED[0], ASKED[1]] {
        sessions.insert(index, 1, 0).unwrap();
    }
    let map = kernel.ebpf.map_mut("ASKED").unwrap();
    let mut asked = HashMap::<_, u32, PodBucket>::try_from(map).unwrap();
    for index in ASKED {
        asked
            .insert(index, PodBucket(Bucket::default()), 0)
            .unwrap();
    }
    Some(kernel)
}

struct Kernel {
    ebpf: Ebpf,
}

impl Kernel {
    fn run(&mut self, frame: &[u8]) -> (u32, Vec<Verdict>) {
        let before = self.verdicts();
        let program: &mut Xdp = self
            .ebpf
            .program_mut("mixline")
            .unwrap()
            .try_into()
            .unwrap();
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let action = program.test_run(options).unwrap().return_value;
        let after = self.verdicts();
        let counted = Verdict::ALL
            .into_iter()
            .flat_map(|v| {
                let i = v as usize;
                std::iter::repeat_n(v, usize::try_from(after[i] - before[i]).unwrap())
            })
            .collect();
        (action, counted)
    }

    fn expect(&mut self, frame: &[u8], verdict: Verdict, what: &str) {
        let (action, counted) = self.run(frame);
        assert_eq!(counted, [verdict], "{what}");
        assert_eq!(
            action,
            if verdict.drops() { XDP_DROP } else { XDP_PASS },
            "{what}"
        );
    }

    fn verdicts(&self) -> [u64; Verdict::COUNT] {
        let counters: PerCpuArray<&MapData, u64> =
            self.ebpf.map("VERDICTS").unwrap().try_into().unwrap();
        std::array::from_fn(|i| counters.get(&(i as u32), 0).unwrap().iter().sum())
    }

    /// Frames of others: whole ones of full size, cut ones, those to us.
    fn others(&self) -> [u64; 3] {
        let counters: PerCpuArray<&MapData, u64> =
            self.ebpf.map("VERDICTS").unwrap().try_into().unwrap();
        [counter::LARGE, counter::CUT, counter::TO_US]
            .map(|at| counters.get(&at, 0).unwrap().iter().sum())
    }

    fn mark(&mut self, tag: [u64; 2], generation: u32) {
        let position = Position::of(tag, KEY, MASK);
        let map = self.ebpf.map_mut("REPLAY").unwrap();
        let mut blocks = Array::<_, Block>::try_from(map).unwrap();
        let at = position.block + generation * (MASK + 1);
        let mut block = blocks.get(&at, 0).unwrap();
        for (i, word) in block.iter_mut().enumerate() {
            *word |= position.bit(i);
        }
        blocks.set(at, block, 0).unwrap();
    }
}

/// Of one source, and of all.
type Pair = (Limit, Limit);

#[derive(Clone, Copy)]
struct Limits {
    handshakes: Pair,
    probes: Pair,
    per_answer: Limit,
    unread: Pair,
    of_networks: [Limit; 2],
}

const MANY: Limit = Limit {
    rate: 1_000_000,
    burst: 1_000_000,
};

const PLENTY: Limits = Limits {
    handshakes: (MANY, MANY),
    probes: (MANY, MANY),
    per_answer: MANY,
    unread: (MANY, MANY),
    of_networks: [MANY; 2],
};

const fn once(burst: u32) -> Limit {
    Limit { rate: 1, burst }
}

/// A frame over IPv4 from 192.0.2.`source`, with a datagram of this kind.
fn from(source: u8, kind: u8, index: u32) -> Vec<u8> {
    let mut frame = frame(false, false, &datagram(kind, index, [0, 0]));
    frame[29] = source;
    frame
}

/// Bytes before the datagram.
fn frame(v6: bool, vlan: bool, datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![2u8; 12];
    if vlan {
        frame.extend([0x81, 0, 0, 42]);
    }
    let udp_length = 8 + datagram.len() as u16;
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(udp_length.to_be_bytes());
        frame.extend([17, 64]);
        frame.extend([0xfe; 16]);
        frame.extend([0xdd; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + udp_length).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    }
    frame.extend([0x1b, 0x58]);
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(datagram);
    frame
}

fn datagram(kind: u8, index: u32, tag: [u64; 2]) -> Vec<u8> {
    let mut datagram = vec![0x5a; DATAGRAM_LENGTH];
    datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
    datagram[4..8].copy_from_slice(&index.to_be_bytes());
    datagram[TAG_OFFSET..TAG_OFFSET + 8].copy_from_slice(&tag[0].to_le_bytes());
    datagram[TAG_OFFSET + 8..].copy_from_slice(&tag[1].to_le_bytes());
    datagram
}

const FORMS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn data_of_a_live_session_passes_the_filter_and_anything_else_of_ours_does_not() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for (v6, vlan) in FORMS {
        let good = frame(v6, vlan, &datagram(TYPE_DATA, INDEX, [1, 2]));
        kernel.expect(&good, Verdict::Filtered, "data");
        let other = frame(v6, vlan, &datagram(TYPE_DATA, INDEX + 1, [1, 2]));
        kernel.expect(&other, Verdict::UnknownIndex, "another index");
        for kind in [0, 6, 200] {
            let wrong = frame(v6, vlan, &datagram(kind, INDEX, [1, 2]));
            kernel.expect(&wrong, Verdict::UnknownType, "a type that does not exist");
        }
        for length in [0, 1, 16, 1407, 1409, 1420] {
            let wrong = frame(v6, vlan, &vec![4; length]);
            kernel.expect(&wrong, Verdict::WrongLength, "a wrong length");
        }
    }
}

#[test]
fn a_probe_passes_at_any_length() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for (v6, vlan) in FORMS {
        for length in [64, 65, 500, 1407, DATAGRAM_LENGTH] {
            let mut probe = vec![0; length];
            probe[0] = TYPE_PROBE;
            kernel.expect(&frame(v6, vlan, &probe), Verdict::Probe, "a probe");
        }
        for length in [16, 63, 1409] {
            let mut wrong = vec![0; length];
            wrong[0] = TYPE_PROBE;
            let wrong = frame(v6, vlan, &wrong);
            kernel.expect(&wrong, Verdict::WrongLength, "no probe is so long");
        }
        let mut wrong = vec![0; 100];
        wrong[..2].copy_from_slice(&[TYPE_PROBE, 1]);
        kernel.expect(&frame(v6, vlan, &wrong), Verdict::WrongLength, "no probe");
    }
}

#[test]
fn probes_are_limited_by_source_and_in_total() {
    let limits = Limits {
        probes: (once(3), once(5)),
        ..PLENTY
    };
    let Some(mut kernel) = load(MODE_FILTER, limits) else {
        return;
    };
    let mut short = vec![0; 64];
    short[0] = TYPE_PROBE;
    let short = frame(false, false, &short);
    let long = from(1, TYPE_PROBE, 0);
    kernel.expect(&short, Verdict::Probe, "a short one");
    kernel.expect(&long, Verdict::Probe, "a long one of the same source");
    kernel.expect(&short, Verdict::Probe, "the last of its burst");
    kernel.expect(&short, Verdict::ProbeLimited, "over the burst");
    kernel.expect(&long, Verdict::ProbeLimited, "at any length");
    for _ in 0..2 {
        kernel.expect(&from(2, TYPE_PROBE, 0), Verdict::Probe, "another source");
    }
    let third = from(3, TYPE_PROBE, 0);
    kernel.expect(&third, Verdict::ProbeLimited, "all sources together");
}

#[test]
fn probes_and_handshakes_take_nothing_from_one_another() {
    let limits = Limits {
        handshakes: (once(2), once(4)),
        probes: (once(2), once(4)),
        ..PLENTY
    };
    let Some(mut kernel) = load(MODE_FILTER, limits) else {
        return;
    };
    for source in 0..100 {
        for _ in 0..10 {
            kernel.run(&from(source, TYPE_PROBE, 0));
        }
    }
    for _ in 0..2 {
        let initiation = from(1, 1, 9);
        kernel.expect(&initiation, Verdict::Handshake, "of one that asked much");
        kernel.expect(&from(200, 1, 9), Verdict::Handshake, "of another");
    }
    let initiation = from(201, 1, 9);
    kernel.expect(&initiation, Verdict::TotalLimited, "that is all");
    let Some(mut kernel) = load(MODE_FILTER, limits) else {
        return;
    };
    for source in 0..100 {
        for _ in 0..10 {
            kernel.run(&from(source, 1, 9));
        }
    }
    kernel.expect(&from(1, TYPE_PROBE, 0), Verdict::Probe, "after a flood");
}

#[test]
fn what_is_not_ours_passes() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    let good = frame(false, false, &datagram(TYPE_DATA, INDEX, [1, 2]));
    for (at, what) in [
        (33, "address"),
        (37, "port"),
        (23, "protocol"),
        (12, "ethertype"),
    ] {
        let mut other = good.clone();
        other[at] ^= 1;
        kernel.expect(&other, Verdict::NotOurs, what);
    }
    let mut fragment = good.clone();
    fragment[21] = 1;
    kernel.expect(&fragment, Verdict::NotOurs, "a later fragment");
    // In whatever form, what is for another port or address is not ours.
    for v6 in [false, true] {
        for (what, disguised) in disguised(v6, 1) {
            let length = disguised.len();
            let Some(port) = port_of(&disguised) else {
                continue;
            };
            let mut other = disguised.clone();
            other[port] ^= 1;
            kernel.expect(&other, Verdict::NotOurs, what);
            kernel.expect(&disguised[..length - 1400], Verdict::Unread, what);
            let mut other = disguised;
            other[if v6 { 14 + 39 } else { 14 + 19 }] ^= 1;
            kernel.expect(&other, Verdict::NotOurs, what);
        }
    }
}

/// Where the port of the UDP header stands before a datagram; none if there is not all of it.
fn port_of(frame: &[u8]) -> Option<usize> {
    Some(frame.len().checked_sub(DATAGRAM_LENGTH + 6)? + 1)
}

/// An initiation of source `number` in all forms in which the kernel would take it, and which hide it
/// from a plain look.
fn disguised(v6: bool, number: u8) -> Vec<(&'static str, Vec<u8>)> {
    let good = frame(v6, false, &datagram(1, 9, [0, 0]));
    // With so much between IP header and UDP header, and this in place of the protocol.
    let with = |protocol: u8, between: &[u8]| {
        let at = if v6 { 54 } else { 34 };
        let mut frame = [&good[..at], between, &good[at..]].concat();
        if v6 {
            frame[20] = protocol;
            frame[29] = number;
        } else {
            frame[14] = 0x45 + (between.len() / 4) as u8;
            frame[29] = number;
        }
        frame
    };
    if !v6 {
        let mut fragment = with(17, &[]);
        fragment[20] = 0x20;
        let mut both = with(17, &[1; 8]);
        both[20] = 0x20;
        return vec![
            ("options", with(17, &[1; 4])),
            ("all options that there can be", with(17, &[1; 40])),
            ("the first fragment", fragment),
            ("the first fragment, with options", both),
        ];
    }
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let fragment = [17, 0, 0, 1, 0, 0, 0, 9];
    let mut long = vec![17, 255];
    long.resize(2048, 0);
    vec![
        ("the first fragment", with(44, &fragment)),
        (
            "a fragment that is all",
            with(44, &[17, 0, 0, 0, 0, 0, 0, 9]),
        ),
        ("hop-by-hop options", with(0, &options(17))),
        ("a routing header", with(43, &options(17))),
        ("destination options", with(60, &options(17))),
        ("the longest options", with(60, &long)),
        (
            "options and a fragment",
            with(60, &[options(44), fragment].concat()),
        ),
        (
            "four headers",
            with(
                0,
                &[options(60), options(43), options(60), options(17)].concat(),
            ),
        ),
    ]
}

#[test]
fn what_cannot_be_read_has_limits_of_its_own() {
    let limits = Limits {
        unread: (once(2), once(5)),
        ..PLENTY
    };
    for v6 in [false, true] {
        let forms = disguised(v6, 1);
        for (what, disguised) in &forms {
            let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
                return;
            };
            for _ in 0..2 {
                kernel.expect(disguised, Verdict::Unread, what);
            }
            kernel.expect(disguised, Verdict::UnreadLimited, what);
            for (_, of_the_same) in &forms {
                kernel.expect(of_the_same, Verdict::UnreadLimited, what);
            }
        }
        let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
            return;
        };
        let mut passed = 0;
        for number in 0..100 {
            for (_, frame) in disguised(v6, number) {
                passed += usize::from(kernel.run(&frame).1 == [Verdict::Unread]);
            }
        }
        assert_eq!(passed, 5, "all sources together");
        // Of nothing else.
        kernel.expect(&from(1, 1, 9), Verdict::Handshake, "an initiation");
    }
    // Behind more headers than are looked at it may be anything, and is limited with the rest.
    let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
        return;
    };
    let mut deep = frame(true, false, &datagram(1, 9, [0, 0]));
    deep[20] = 60;
    deep.splice(54..54, [60, 0, 1, 4, 0, 0, 0, 0].repeat(5));
    kernel.expect(&deep, Verdict::Unread, "five headers");
}

#[test]
fn a_flood_of_initiations_keeps_no_answer_out() {
    let limits = Limits {
        handshakes: (once(4), once(100)),
        per_answer: once(3),
        ..PLENTY
    };
    let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
        return;
    };
    // Forged in the name of everybody, those whom we ask included.
    for _ in 0..10 {
        for source in 0..=255 {
            kernel.run(&from(source, 1, 9));
        }
    }
    kernel.expect(&from(1, 1, 9), Verdict::SourceLimited, "it is a flood");
    for (kind, what) in [(2, "a response"), (3, "a cookie"), (2, "another")] {
        kernel.expect(&from(1, kind, ASKED[0]), Verdict::Handshake, what);
    }
    // Who has seen the index forges answers to it, and takes them from no other handshake.
    for source in 0..50 {
        let forged = from(source, 2, ASKED[0]);
        kernel.expect(&forged, Verdict::AnswerLimited, "to the same handshake");
    }
    kernel.expect(&from(1, 2, ASKED[1]), Verdict::Handshake, "to another one");
    // What we did not ask for is no answer.
    for index in [INDEX, INDEX + 1] {
        kernel.expect(&from(2, 2, index), Verdict::UnknownIndex, "to nobody");
    }
}

#[test]
fn frames_cut_at_every_boundary_never_count_as_data() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for (v6, vlan) in FORMS {
        let good = frame(v6, vlan, &datagram(TYPE_DATA, INDEX, [3, 4]));
        let ip = if vlan { 18 } else { 14 };
        let udp = ip + if v6 { 40 } else { 20 };
        let boundaries = [ip, udp, udp + 8, udp + 8 + 16, good.len()];
        for n in boundaries.iter().flat_map(|b| [b - 1, *b, b + 1]) {
            // the kernel's test run takes no frame shorter than an Ethernet header
            if n < 14 || n > good.len() {
                continue;
            }
            let (_, counted) = kernel.run(&good[..n]);
            let expected = if n == good.len() {
                Verdict::Filtered
            } else if n < udp + 8 {
                Verdict::NotOurs
            } else {
                Verdict::Cut
            };
            assert_eq!(counted, [expected], "cut to {n}, v6 {v6}, vlan {vlan}");
        }
    }
}

#[test]
fn what_others_get_is_counted_whole_or_cut() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for (v6, vlan) in FORMS {
        let mut other = frame(v6, vlan, &datagram(TYPE_DATA, INDEX, [3, 4]));
        // Another port.
        let port = other.len() - DATAGRAM_LENGTH - 6;
        other[port] ^= 1;
        let before = kernel.others();
        kernel.expect(&other, Verdict::NotOurs, "a whole one");
        kernel.expect(&other[..other.len() - 1], Verdict::NotOurs, "one byte less");
        kernel.expect(&other[..200], Verdict::NotOurs, "a small part");
        let small = frame(v6, vlan, &[0; 100]);
        let mut small = small.clone();
        let at = small.len() - 100 - 6;
        small[at] ^= 1;
        kernel.expect(&small, Verdict::NotOurs, "a small one");
        // Ethernet fills short frames up.
        small.extend([0; 60]);
        kernel.expect(&small, Verdict::NotOurs, "a small one, filled up");
        // To somebody else: cut or not, it says nothing.
        let mut foreign = other.clone();
        // The last byte of the address stands before the UDP header.
        let address = port - 3;
        foreign[address] ^= 1;
        kernel.expect(&foreign[..200], Verdict::NotOurs, "cut, for somebody else");
        let after = kernel.others();
        assert_eq!(after[0] - before[0], 1, "whole, v6 {v6}, vlan {vlan}");
        assert_eq!(after[1] - before[1], 2, "cut, v6 {v6}, vlan {vlan}");
        let to_us = if vlan { 0 } else { 5 };
        assert_eq!(after[2] - before[2], to_us, "to us, v6 {v6}, vlan {vlan}");
    }
}

#[test]
fn a_marked_tag_is_a_replay_in_either_generation() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for generation in [0, 1] {
        let tag = [100 + u64::from(generation), 7];
        let seen = frame(true, false, &datagram(TYPE_DATA, INDEX, tag));
        kernel.expect(&seen, Verdict::Filtered, "before");
        kernel.expect(&seen, Verdict::Filtered, "the kernel alone marks nothing");
        kernel.mark(tag, generation);
        kernel.expect(&seen, Verdict::Replayed, "after");
        let fresh = frame(true, false, &datagram(TYPE_DATA, INDEX, [tag[0], 8]));
        kernel.expect(&fresh, Verdict::Filtered, "another tag");
    }
}

#[test]
fn handshakes_are_limited_by_source_and_in_total() {
    let limits = Limits {
        handshakes: (once(3), once(5)),
        ..PLENTY
    };
    let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
        return;
    };
    for _ in 0..3 {
        kernel.expect(&from(1, 1, 9), Verdict::Handshake, "within the burst");
    }
    kernel.expect(&from(1, 1, 9), Verdict::SourceLimited, "over the burst");
    for _ in 0..2 {
        kernel.expect(&from(2, 1, 9), Verdict::Handshake, "another source");
    }
    kernel.expect(
        &from(4, 1, 9),
        Verdict::TotalLimited,
        "all sources together",
    );
}

#[test]
fn a_network_of_many_addresses_leaves_handshakes_and_probes_to_others() {
    let limits = Limits {
        handshakes: (once(3), once(100)),
        probes: (once(3), once(100)),
        of_networks: [once(10), once(25)],
        ..PLENTY
    };
    for (v6, kind, passes) in [
        (false, 1, Verdict::Handshake),
        (true, 1, Verdict::Handshake),
        (false, TYPE_PROBE, Verdict::Probe),
        (true, TYPE_PROBE, Verdict::Probe),
    ] {
        let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
            return;
        };
        // Of the source address: the network is in these two bytes, the site in the third.
        let at = if v6 { 14 + 8 + 3 } else { 14 + 12 + 1 };
        let mut passed = |wide: u8, narrow: u8, site: u8| {
            let mut frame = frame(v6, false, &datagram(kind, 9, [0, 0]));
            let narrow_at = if v6 { at + 2 } else { at + 1 };
            let site_at = if v6 { at + 4 } else { at + 2 };
            (frame[at], frame[narrow_at], frame[site_at]) = (wide, narrow, site);
            kernel.run(&frame).1 == [passes]
        };
        let narrow = (0..200).filter(|site| passed(1, 1, *site)).count();
        assert_eq!(narrow, 10, "one network, {v6} {kind}");
        let wide = (0..200).filter(|n| passed(1, *n, 9)).count();
        assert_eq!(wide, 25 - narrow, "one of a wider kind, {v6} {kind}");
        // Whoever is elsewhere is not asked to wait for them.
        for other in 2..5 {
            assert!(passed(other, 1, 1), "{v6} {kind}");
        }
    }
}

#[test]
fn data_without_a_socket_goes_to_the_kernel() {
    let Some(mut kernel) = load(MODE_REDIRECT, PLENTY) else {
        return;
    };
    let good = frame(false, true, &datagram(TYPE_DATA, INDEX, [1, 2]));
    kernel.expect(&good, Verdict::NoSocket, "no socket on the queue");
    // That is worth a line in the log, but not one for each datagram.
    for _ in 0..100 {
        kernel.expect(&good, Verdict::NoSocket, "no socket on the queue");
    }
    let map = kernel.ebpf.map_mut("AYA_LOGS").unwrap();
    let mut log = RingBuf::try_from(map).unwrap();
    let lines = std::iter::from_fn(|| log.next().map(|_| ())).count();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!((1..=processors).contains(&lines), "{lines} lines");
}

#[test]
fn merged_datagrams_pass_only_where_they_are_expected() {
    let two = frame(false, false, &vec![4; 2 * DATAGRAM_LENGTH]);
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    kernel.expect(&two, Verdict::WrongLength, "in the driver");
    let Some(mut kernel) = load(MODE_REDIRECT, PLENTY) else {
        return;
    };
    kernel.expect(&two, Verdict::Merged, "in the generic path");
}

#[test]
fn the_verifier_accepts_the_program() {
    let Some(kernel) = load(MODE_REDIRECT, PLENTY) else {
        return;
    };
    let info = kernel.ebpf.program("mixline").unwrap().info().unwrap();
    let checked = info.verified_instruction_count();
    println!(
        "the verifier walked {checked:?} instructions; translated {:?} bytes, native {} bytes",
        info.size_translated(),
        info.size_jitted()
    );
    assert!(checked.is_none_or(|n| n < 100_000));
}
