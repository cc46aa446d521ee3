//! When a path is given up, and when one more is wanted.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use mixline_endpoint_engine::testing::internals::session::{
    DEAD_AFTER, DEAD_IN_TROUBLE, NewPath, PROBE_EVERY, PROVEN_WITHIN, Paths,
};
use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{
    HeadSecrets, Hop, MailboxToken, OnionSecret, TailSecrets, build_head, build_tail,
};
use mixline_protocol::time::UnixTime;
use rand_core::SeedableRng;

const MILLISECOND: Duration = Duration::from_millis(1);

fn new_path() -> NewPath {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let hop = Hop {
        relay: ShortId([1; 8]),
        onion: OnionSecret::generate(&mut rng).public(),
    };
    let secrets = TailSecrets::random(&mut rng);
    let (tail, _) = build_tail(&secrets, &[hop], MailboxToken([2; 8])).unwrap();
    NewPath {
        head: build_head(&HeadSecrets::random(&mut rng), &[hop], &tail).unwrap(),
        hops: vec![hop],
        tail: tail.id(),
        tail_first: tail.first,
        expires: UnixTime(u64::MAX),
        renew: UnixTime(u64::MAX),
    }
}

/// Sends a probe over a path; its number.
fn probe(paths: &mut Paths, path: u32, now: Instant) -> u32 {
    let id = paths.next_probe();
    paths.get_mut(path).unwrap().probe_sent(id, now);
    id
}

/// Probes a path without an answer until it is given up; after how long.
fn dies_after(paths: &mut Paths, path: u32, from: Instant) -> Duration {
    let mut now = from;
    let mut last = None;
    loop {
        if last.is_none_or(|at| now - at >= PROBE_EVERY) {
            probe(paths, path, now);
            last = Some(now);
        }
        if paths.dead(now).any(|dead| dead.id == path) {
            return now - from;
        }
        now += 10 * MILLISECOND;
    }
}

#[test]
fn a_path_is_given_up_sooner_when_none_works_any_more() {
    let start = Instant::now();
    // Nothing has worked yet: the network may be slow.
    let mut paths = Paths::default();
    let first = paths.add(new_path());
    assert_eq!(dies_after(&mut paths, first, start), DEAD_AFTER);
    // One has, and does not.
    let mut paths = Paths::default();
    let first = paths.add(new_path());
    let id = probe(&mut paths, first, start);
    assert!(paths.answer(id, start + 40 * MILLISECOND).is_some());
    assert_eq!(
        dies_after(&mut paths, first, start + PROBE_EVERY),
        DEAD_IN_TROUBLE
    );
    // Another does.
    let mut paths = Paths::default();
    let (first, second) = (paths.add(new_path()), paths.add(new_path()));
    let id = probe(&mut paths, second, start);
    assert!(paths.answer(id, start + 40 * MILLISECOND).is_some());
    assert_eq!(dies_after(&mut paths, first, start), DEAD_AFTER);
}

#[test]
fn a_new_path_is_counted_on_for_less_when_none_works_any_more() {
    let start = Instant::now();
    let mut paths = Paths::default();
    let old = paths.add(new_path());
    let id = probe(&mut paths, old, start);
    paths.answer(id, start + 40 * MILLISECOND);
    let new = paths.add(new_path());
    probe(&mut paths, new, start);
    assert_eq!(paths.good(start + PROVEN_WITHIN), 2, "the other works");
    paths.bury(old);
    assert_eq!(paths.good(start + PROVEN_WITHIN - MILLISECOND), 1);
    assert_eq!(paths.good(start + PROVEN_WITHIN), 0);
}

#[test]
fn late_answers_say_how_slow_the_network_is_but_not_without_limit() {
    for (trip, expected) in [(2000, 8000), (3900, 15_600), (4000, 1500), (60_000, 1500)] {
        let start = Instant::now();
        let mut paths = Paths::default();
        let first = paths.add(new_path());
        let id = probe(&mut paths, first, start);
        paths.answer(id, start + 40 * MILLISECOND);
        let late = probe(&mut paths, first, start);
        paths.bury(first);
        let second = paths.add(new_path());
        let answered = start + trip * MILLISECOND;
        assert!(paths.answer(late, answered).is_none());
        let died = dies_after(&mut paths, second, answered);
        assert_eq!(died, expected * MILLISECOND, "{trip} ms");
    }
}
