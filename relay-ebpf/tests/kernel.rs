//! Golden frames through the kernel's `BPF_PROG_TEST_RUN`, cut at every header boundary.
//!
//! Needs root and the built program: `MIXLINE_XDP_OBJECT` names it. Without either the
//! tests say so and pass, unless `MIXLINE_REQUIRE_ROOT=1`.

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use mixline_relay_common::bucket::Limit;
use mixline_relay_common::maps::{Address, MODE_FILTER, MODE_REDIRECT, Settings, mapped};
use mixline_relay_common::tag_filter::{Block, Position};
use mixline_relay_common::verdict::{Verdict, counter};
use mixline_relay_common::wire::{DATAGRAM_LENGTH, TAG_OFFSET, TYPE_DATA, TYPE_PROBE};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

const PORT: u16 = 7000;
const INDEX: u32 = 0x0102_0304;
const KEY: [u64; 2] = [11, 22];
const MASK: u32 = 1023;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(#[allow(dead_code)] Settings);
// SAFETY: `repr(C)` integers without padding; the size is asserted next to the type.
unsafe impl Pod for PodSettings {}

/// Says that a test is skipped, past the harness, so that `cargo xtask test` counts it.
fn skipped(reason: &str) {
    let line = format!("skipped: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The loaded program; none if the machine cannot load it and need not.
fn load(mode: u32, limits: (Limit, Limit)) -> Option<Kernel> {
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
        per_source: limits.0,
        total: limits.1,
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
    HashMap::<_, u32, u8>::try_from(map)
        .unwrap()
        .insert(INDEX, 1, 0)
        .unwrap();
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

const PLENTY: (Limit, Limit) = (
    Limit {
        rate: 1_000_000,
        burst: 1_000_000,
    },
    Limit {
        rate: 1_000_000,
        burst: 1_000_000,
    },
);

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
fn a_probe_passes_at_any_length_within_the_limit_of_handshakes() {
    let Some(mut kernel) = load(MODE_FILTER, PLENTY) else {
        return;
    };
    for (v6, vlan) in FORMS {
        for length in [64, 65, 500, 1407, DATAGRAM_LENGTH] {
            let mut probe = vec![0; length];
            probe[0] = TYPE_PROBE;
            kernel.expect(&frame(v6, vlan, &probe), Verdict::Handshake, "a probe");
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
    let few = Limit { rate: 1, burst: 3 };
    let Some(mut kernel) = load(MODE_FILTER, (few, PLENTY.1)) else {
        return;
    };
    let mut probe = vec![0; 64];
    probe[0] = TYPE_PROBE;
    let probe = frame(false, false, &probe);
    for _ in 0..3 {
        kernel.expect(&probe, Verdict::Handshake, "a probe");
    }
    kernel.expect(&probe, Verdict::SourceLimited, "more than the limit");
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
    fragment[20] = 0x20;
    kernel.expect(&fragment, Verdict::NotOurs, "a fragment");
    let mut options = good;
    options[14] = 0x46;
    kernel.expect(&options, Verdict::NotOurs, "options");
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
    let limits = (Limit { rate: 1, burst: 3 }, Limit { rate: 1, burst: 5 });
    let Some(mut kernel) = load(MODE_REDIRECT, limits) else {
        return;
    };
    let from = |source: u8, kind: u8, index: u32| {
        let mut frame = frame(false, false, &datagram(kind, index, [0, 0]));
        frame[29] = source;
        frame
    };
    for _ in 0..3 {
        kernel.expect(&from(1, 1, 9), Verdict::Handshake, "within the burst");
    }
    kernel.expect(&from(1, 1, 9), Verdict::SourceLimited, "over the burst");
    kernel.expect(
        &from(2, 2, INDEX),
        Verdict::Handshake,
        "an answer to us, another source",
    );
    kernel.expect(
        &from(2, 2, INDEX + 1),
        Verdict::UnknownIndex,
        "an answer to nobody",
    );
    kernel.expect(&from(3, 3, INDEX), Verdict::Handshake, "a cookie");
    kernel.expect(
        &from(4, 1, 9),
        Verdict::TotalLimited,
        "all sources together",
    );
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
