//! The relay's memory of what it has relayed.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::Error;
use mixline_protocol::replay::{BITS_PER_ENTRY, ReplayFilter};
use mixline_protocol::time::UnixTime;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const KEY: [u8; 16] = *b"a secret of ours";

/// Tag `n`: distinct for each `n`, and patterned, as an attacker may choose them.
fn tag(n: u64) -> [u8; 16] {
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&n.to_le_bytes());
    tag
}

fn filter(bytes: usize, now: Instant) -> ReplayFilter {
    ReplayFilter::new(bytes, KEY, now).unwrap()
}

fn capacity(bytes: usize) -> u64 {
    (bytes * 8 / BITS_PER_ENTRY) as u64
}

#[test]
fn tags_that_are_sought_together_are_told_apart_and_each_is_new_once() {
    let filter = filter(MIB, Instant::now());
    let group = |tags: [u64; 4]| {
        let positions = tags.map(|n| filter.locate(&tag(n)));
        positions.map(|position| filter.check_and_set_at(position))
    };
    assert_eq!(group([1, 2, 1, 3]), [true, true, false, true]);
    assert_eq!(group([4, 3, 2, 5]), [true, false, false, true]);
    assert!(!filter.check_and_set(&tag(5)));
    // What is only located is not remembered.
    let _ = filter.locate(&tag(6));
    assert!(filter.check_and_set(&tag(6)));
}

#[test]
fn a_tag_is_new_once() {
    let filter = filter(MIB, Instant::now());
    // Far from full, so that no tag here is taken for another.
    for n in 0..10_000 {
        assert!(!filter.contains(&tag(n)));
        assert!(filter.check_and_set(&tag(n)), "{n}");
        assert!(!filter.check_and_set(&tag(n)), "{n}");
    }
    assert!((0..10_000).all(|n| filter.contains(&tag(n))));
}

#[test]
fn false_positives_at_full_and_no_false_negatives() {
    let filter = filter(2 * MIB, Instant::now());
    let full = capacity(2 * MIB);
    let refused = (0..full)
        .filter(|n| !filter.check_and_set(&tag(*n)))
        .count();
    assert!((0..full).all(|n| filter.contains(&tag(n))), "forgotten");
    assert!((0.97..1.03).contains(&filter.fill()), "{}", filter.fill());
    // While it fills: 0.25 in 100,000 on average.
    assert!(refused as f64 / (full as f64) < 1e-5, "{refused} of {full}");
    // At full: 1.7 in 100,000.
    let probes = 4_000_000;
    let wrong = (full..full + probes)
        .filter(|n| filter.contains(&tag(*n)))
        .count();
    let rate = wrong as f64 / probes as f64;
    println!("false positives at full: {rate:e}");
    assert!((5e-6..3e-5).contains(&rate), "{rate:e}");
}

#[test]
fn places_depend_on_the_key() {
    let now = Instant::now();
    let (one, other) = (
        filter(4096, now),
        ReplayFilter::new(4096, [7; 16], now).unwrap(),
    );
    let full = 4 * capacity(4096);
    for n in 0..full {
        let _ = (one.check_and_set(&tag(n)), other.check_and_set(&tag(n)));
    }
    // Overfull filters take some new tags for old; which ones differs.
    let differ =
        (full..full + 100_000).filter(|n| one.contains(&tag(*n)) != other.contains(&tag(*n)));
    assert!(differ.count() > 100);
}

#[test]
fn rotation_keeps_the_previous_generation() {
    let now = Instant::now();
    let filter = filter(MIB, now);
    assert!(
        !filter.rotate(now + Duration::from_secs(1 << 30)),
        "no life was set"
    );
    let full = capacity(MIB);
    // Returns those that were let through; the others were taken for old ones, and are not kept.
    let fill = |from: u64| -> Vec<u64> {
        let all = from..from + full + full / 20;
        all.filter(|n| filter.check_and_set(&tag(*n))).collect()
    };
    let at = |s| now + Duration::from_secs(s);
    let first = fill(0);
    assert!(filter.fill() >= 1.0);
    assert!(filter.rotate(at(10)));
    assert!(filter.fill() < 0.001);
    assert!(!filter.rotate(at(11)), "rotated an empty generation");
    assert!(
        first.iter().all(|n| !filter.check_and_set(&tag(*n))),
        "forgot the previous generation"
    );
    assert_eq!(filter.horizon(at(12)), Duration::from_secs(12));
    let second = fill(1 << 32);
    assert!(second.len() as u64 > full);
    assert!(filter.rotate(at(20)));
    assert!(
        second.iter().all(|n| filter.contains(&tag(*n))),
        "forgot the previous generation"
    );
    let old = (0..full).filter(|n| filter.contains(&tag(*n))).count();
    assert!(
        old < 100,
        "{old} of {full} are still there after two rotations"
    );
    // Of what came since second 10, everything is there.
    assert_eq!(filter.horizon(at(25)), Duration::from_secs(15));
}

#[test]
fn rotation_by_time() {
    let now = Instant::now();
    let filter = filter(MIB, now);
    filter.set_life(Duration::from_secs(60));
    let at = |s| now + Duration::from_secs(s);
    assert!(filter.check_and_set(&tag(1)));
    assert!(!filter.rotate(at(59)));
    assert!(filter.rotate(at(60)));
    assert!(!filter.rotate(at(61)));
    assert!(filter.contains(&tag(1)));
    assert!(filter.rotate(at(120)));
    assert!(!filter.contains(&tag(1)), "outlived the keys twice over");
}

#[test]
fn saved_and_loaded() {
    let (now, wall) = (Instant::now(), UnixTime(1_000_000));
    let at = |s| now + Duration::from_secs(s);
    let filter = filter(MIB, now);
    filter.set_life(Duration::from_secs(60));
    for n in 0..1000 {
        let _ = filter.check_and_set(&tag(n));
    }
    assert!(filter.rotate(at(60)));
    for n in 1000..2000 {
        let _ = filter.check_and_set(&tag(n));
    }
    let saved = filter.save(at(70), wall);
    // Loaded by another process, whose clock began elsewhere, 20 seconds later.
    let later = now + Duration::from_secs(777);
    let loaded = ReplayFilter::load(&saved, later, wall.plus(20)).unwrap();
    assert!((0..2000).all(|n| loaded.contains(&tag(n))));
    assert!(!loaded.contains(&tag(3000)));
    assert_eq!(loaded.fill().to_bits(), filter.fill().to_bits());
    assert_eq!(loaded.horizon(later), Duration::from_secs(90));
    // The current generation is 30 seconds old.
    loaded.set_life(Duration::from_secs(60));
    assert!(!loaded.rotate(later + Duration::from_secs(29)));
    assert!(loaded.rotate(later + Duration::from_secs(30)));
    assert!(
        (1000..2000).all(|n| loaded.contains(&tag(n))),
        "the wrong generation was emptied"
    );
    assert!(!loaded.contains(&tag(0)));
    // A wall clock that went back makes nothing younger than it was.
    let back = ReplayFilter::load(&saved, later, wall.minus(500)).unwrap();
    assert_eq!(back.horizon(later), Duration::from_secs(70));
}

#[test]
fn an_idle_filter_is_saved_in_few_bytes() {
    let now = Instant::now();
    let filter = filter(32 * MIB, now);
    assert!(filter.save(now, UnixTime(0)).len() < 200);
    let _ = filter.check_and_set(&tag(1));
    let saved = filter.save(now, UnixTime(0));
    assert!(saved.len() < 5000, "{}", saved.len());
    assert!(
        ReplayFilter::load(&saved, now, UnixTime(0))
            .unwrap()
            .contains(&tag(1))
    );
}

#[test]
fn damaged_files_are_refused() {
    let now = Instant::now();
    let filter = filter(4096, now);
    for n in 0..100 {
        let _ = filter.check_and_set(&tag(n));
    }
    let saved = filter.save(now, UnixTime(5));
    let load = |bytes: &[u8]| ReplayFilter::load(bytes, now, UnixTime(5)).err();
    assert_eq!(load(&saved), None);
    for byte in 0..saved.len() {
        let mut bent = saved.clone();
        bent[byte] ^= 1;
        assert!(load(&bent).is_some(), "byte {byte}");
        assert!(load(&saved[..byte]).is_some(), "cut at {byte}");
    }
    // With a checksum that is right, the contents still have to be.
    let resealed = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = saved[..saved.len() - 32].to_vec();
        edit(&mut bytes);
        let sum = ring::digest::digest(&ring::digest::SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        load(&bytes)
    };
    assert_eq!(resealed(&|_| ()), None);
    assert!(matches!(
        resealed(&|b| b[8] = 2),
        Some(Error::Version { .. })
    ));
    assert!(matches!(
        resealed(&|b| b[25..33].fill(0xff)),
        Some(Error::Limit { .. })
    ));
    assert!(matches!(
        resealed(&|b| b[25..33].fill(0)),
        Some(Error::Limit { .. })
    ));
    assert!(matches!(
        resealed(&|b| b.push(0)),
        Some(Error::Length { .. })
    ));
    assert!(matches!(
        resealed(&|b| b.truncate(100)),
        Some(Error::Length { .. })
    ));
    // A chunk that is not there: its number stands after magic, version, key, blocks, time,
    // age and count.
    assert!(matches!(
        resealed(&|b| b[57 + 3] = 9),
        Some(Error::Malformed { .. })
    ));
}

#[test]
fn of_threads_with_the_same_tag_one_is_told_that_it_is_new() {
    let now = Instant::now();
    let filter = filter(MIB, now);
    filter.set_life(Duration::from_millis(1));
    const TAGS: u64 = 50_000;
    let new: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let work = || {
            (0..TAGS)
                .map(|n| filter.check_and_set(&tag(n)))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for n in 0..TAGS as usize {
        assert_eq!(new.iter().filter(|by| by[n]).count(), 1, "tag {n}");
    }
}

#[test]
fn nothing_is_forgotten_while_a_thread_rotates() {
    let now = Instant::now();
    let filter = filter(8 * MIB, now);
    filter.set_life(Duration::from_secs(1));
    const ROUNDS: u64 = 200;
    const TAGS: u64 = 200;
    let done = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        // Two threads bring tags; in each round the third rotates while they do.
        for thread in 0..2u64 {
            let (filter, done) = (&filter, &done);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let tags = (0..TAGS).map(|n| (thread << 60) | (round << 20) | n);
                    for n in tags.clone() {
                        assert!(filter.check_and_set(&tag(n)), "{n} is new");
                    }
                    for n in tags {
                        assert!(!filter.check_and_set(&tag(n)), "{n} was forgotten");
                    }
                    done.wait();
                }
            });
        }
        for round in 0..ROUNDS {
            assert!(filter.rotate(now + Duration::from_secs(2 * (round + 1))));
            done.wait();
        }
    });
}

#[test]
fn while_a_thread_rotates_the_same_tag_is_new_to_one() {
    let now = Instant::now();
    let filter = filter(4096, now);
    filter.set_life(Duration::from_secs(1));
    const ROUNDS: u64 = 20_000;
    const TAGS: u64 = 20;
    let barrier = std::sync::Barrier::new(3);
    let new: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut new = Vec::new();
                    for round in 0..ROUNDS {
                        barrier.wait();
                        let tags = (0..TAGS).map(|n| tag((round << 8) | n));
                        new.extend(tags.map(|tag| filter.check_and_set(&tag)));
                        barrier.wait();
                    }
                    new
                })
            })
            .collect();
        for round in 0..ROUNDS {
            barrier.wait();
            assert!(filter.rotate(now + Duration::from_secs(2 * (round + 1))));
            barrier.wait();
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let twice = (0..new[0].len())
        .filter(|n| new[0][*n] && new[1][*n])
        .count();
    assert_eq!(twice, 0, "let through twice");
}
