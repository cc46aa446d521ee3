//! The fuzz targets on a stable toolchain: each gets mutated good inputs and noise for
//! some seconds.
//!
//! `MIXLINE_FUZZ_SECONDS` says how long each runs (2 by default), `MIXLINE_FUZZ_SEED` which
//! inputs it gets (others each time by default). A failure prints its input in hexadecimal;
//! `MIXLINE_FUZZ_INPUT` runs just that.
#![allow(clippy::unwrap_used)]

mod fuzz_targets;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime};

use data_encoding::HEXLOWER;
use fuzz_targets::{Target, target};

/// Random numbers (xorshift64*, Marsaglia 2003; Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// The longest input.
const LONGEST: usize = 1 << 17;

/// Changes an input as fuzzers do: bits, bytes, runs, lengths, parts of other inputs.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let length = input.len();
        let at = random.below(length.max(1));
        let run = (1 + random.below(16)).min(length - at.min(length));
        match random.below(9) {
            0 | 1 if length > 0 => input[at] ^= 1 << random.below(8),
            2 if length > 0 => input[at] = random.next() as u8,
            3 if length > 0 => {
                const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
                input[at..at + run].fill(EDGES[random.below(EDGES.len())]);
            }
            4 => input.truncate(at),
            5 => input.extend((0..run.max(1)).map(|_| random.next() as u8)),
            6 if length > 0 => {
                input.drain(at..at + run);
            }
            7 if length > 0 => {
                let from = random.below(length);
                let run = run.min(length - from);
                input.copy_within(from..from + run, at.min(length - run));
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len().max(1));
                let at = at.min(length);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(LONGEST);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

/// Runs one input; a panic says which it was.
fn run(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).unwrap_or_else(|panic| {
        let input = HEXLOWER.encode(input);
        eprintln!("{} failed: MIXLINE_FUZZ_INPUT={input}", target.name);
        resume_unwind(panic)
    })
}

fn fuzz(name: &str) {
    let target = target(name);
    if let Ok(input) = env::var("MIXLINE_FUZZ_INPUT") {
        run(target, &HEXLOWER.decode(input.as_bytes()).unwrap());
        return;
    }
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        assert!(run(target, seed), "refuses {}", HEXLOWER.encode(seed));
    }
    let time = Duration::from_secs(number("MIXLINE_FUZZ_SECONDS").unwrap_or(2));
    let start = number("MIXLINE_FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        now.as_nanos() as u64
    });
    let mut random = Random(start | 1);
    // Inputs that were accepted although changed lead further.
    let mut found = seeds.clone();
    let (mut accepted, mut refused) = (0u64, 0u64);
    let began = Instant::now();
    while began.elapsed() < time {
        let mut input = if random.below(8) == 0 {
            let length = 1 + random.below(1500);
            (0..length).map(|_| random.next() as u8).collect()
        } else {
            found[random.below(found.len())].clone()
        };
        mutate(&mut input, &seeds, &mut random);
        if run(target, &input) {
            accepted += 1;
            if found.len() < 64 {
                found.push(input);
            } else {
                let at = seeds.len() + random.below(found.len() - seeds.len());
                found[at] = input;
            }
        } else {
            refused += 1;
        }
    }
    println!("{name}: {accepted} accepted, {refused} refused; MIXLINE_FUZZ_SEED={start}");
}

macro_rules! smoke {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )*

        /// None is forgotten above, nor in `fuzz/`.
        #[test]
        fn all_targets_run() {
            let mut here = vec![$(stringify!($name)),*];
            let mut all: Vec<&str> = fuzz_targets::TARGETS.iter().map(|t| t.name).collect();
            here.sort_unstable();
            all.sort_unstable();
            assert_eq!(here, all);
            let manifest = include_str!("../../../fuzz/Cargo.toml");
            for name in all {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

smoke!(
    path_header,
    path_sealed_slot,
    path_tail,
    link_datagram,
    link_sealed_initiation,
    link_control,
    session_initiation,
    session_sealed_initiation,
    session_sealed_response,
    session_data,
    session_control,
    frames,
    records,
    registration,
    snapshot,
    snapshot_sealed,
    roster_chain,
    vote,
    endorsement,
    contradiction,
    directory_request,
    directory_response,
    replay_memory,
    ring_record,
    ring_record_sealed,
    ring_request,
    ring_response,
    names,
);
