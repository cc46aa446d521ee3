//! What a relay takes of memory: little when idle, and little for a path.
//!
//! Alone in its program: the system counts for the whole process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{TestRelay, path};
use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::path::Hop;
use mixline_relay_engine::pipeline::Honest;

/// Paths that are opened. Ten times as many would take a test too long, and ten times as
/// much memory.
const PATHS: usize = 10_000;
/// A relay with 100,000 known paths is to stay below 250 MB, of which 60 MB may be
/// something else.
const BYTES_PER_PATH: usize = 1_900;

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_known_path_is_small() {
    let mut relay = TestRelay::with(1, Honest, 131_072, None);
    let (from, next) = (relay.neighbour(), relay.neighbour());
    let to = Hop {
        relay: ShortId([2; 8]),
        onion: relay.onion.public(),
    };
    relay.relays(&[(to.relay, Some(next.number))]);
    let open = |relay: &mut TestRelay, number: usize| {
        let path = path(&[relay.hop()], &[to], number as u64);
        let datagram = from.seal(&path.cell(number as u64), CellKind::Cell);
        assert_eq!(relay.relay(&[(datagram, from.address)]).len(), 1);
    };
    (0..100).for_each(|number| open(&mut relay, number));
    let before = resident();
    assert!(
        before < 100 << 20,
        "{before} bytes when next to nothing is known"
    );
    (100..100 + PATHS).for_each(|number| open(&mut relay, number));
    assert_eq!(relay.pipeline.known().1, 100 + PATHS);
    let each = (resident() - before) / PATHS;
    println!("{each} bytes for each path, {before} without");
    assert!(each < BYTES_PER_PATH, "{each} bytes for each path");
}
