//! Nothing is allocated for a datagram of a known path.
//!
//! Alone in its program: the counter counts for all threads.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::alloc::System;
use std::net::SocketAddr;

use common::{Neighbour, TestPath, TestRelay, path};
use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::path::Hop;
use mixline_protocol::size::Datagram;
use mixline_relay_engine::batch::Batch;
use mixline_relay_engine::outcome::Outcome;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Batches that are counted, of 64 datagrams each.
const BATCHES: usize = 20;
const PATHS: usize = 16;

fn sealed(
    from: &Neighbour,
    paths: &[TestPath],
    first: u64,
    count: usize,
) -> Vec<(Datagram, SocketAddr)> {
    (first..)
        .zip(paths.iter().cycle())
        .take(count)
        .map(|(message, path)| (from.seal(&path.cell(message), CellKind::Cell), from.address))
        .collect()
}

#[test]
fn nothing_is_allocated_for_known_paths() {
    let mut relay = TestRelay::new(1);
    let (from, next) = (relay.neighbour(), relay.neighbour());
    let to = Hop {
        relay: ShortId([2; 8]),
        onion: relay.onion.public(),
    };
    relay.relays(&[(to.relay, Some(next.number))]);
    let paths: Vec<TestPath> = (0..PATHS as u64)
        .map(|token| path(&[relay.hop()], &[to], token))
        .collect();

    let warm = sealed(&from, &paths, 0, 64);
    assert_eq!(relay.relay(&warm).len(), 64);
    let mut datagrams = sealed(&from, &paths, 1000, BATCHES * 64);

    let region = Region::new(ALLOCATOR);
    let mut sent = 0;
    for part in datagrams.chunks_mut(64) {
        let mut batch = Batch::new();
        for (datagram, source) in part {
            batch.push(datagram, *source);
        }
        relay.pipeline.process(&mut batch, relay.now);
        sent += batch.to_send().count();
    }
    let change = region.change();
    assert_eq!(sent, BATCHES * 64);
    assert_eq!(relay.count(Outcome::Forwarded) as usize, 64 + BATCHES * 64);
    assert_eq!(
        (change.allocations, change.reallocations),
        (0, 0),
        "{change:?}"
    );

    // The counter counts: a new path does allocate.
    let other = path(&[relay.hop()], &[to], 99);
    let datagram = sealed(&from, &[other], 1, 1);
    let region = Region::new(ALLOCATOR);
    relay.relay(&datagram);
    assert!(region.change().allocations > 0);
}
