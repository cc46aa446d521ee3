//! Nothing is allocated for a packet that leaves over a session, nor for one that comes.
//!
//! Alone in its program: the counter counts for all threads.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;
use std::net::SocketAddr;

use mixline_endpoint_engine::PacketBatch;
use mixline_endpoint_engine::testing::*;
use mixline_protocol::size::Datagram;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Batches that are counted in each direction.
const BATCHES: usize = 20;
/// Packets of each: half of them fill a cell, and half need two.
const PACKETS: usize = 40;
const FLOWS: u16 = 5;

/// What one batch allocates at the end that sends it, and at the one that receives it.
fn batch(world: &mut World, from: usize, to: usize) -> [Stats; 2] {
    let (source, destination) = (world.ipv4(from), world.ipv4(to));
    let mut packets = PacketBatch::new();
    for (at, flow) in (0..PACKETS).zip((0..FLOWS).cycle()) {
        let data = vec![7; if at % 2 == 0 { 1009 } else { 1472 }];
        packets.push(&udp(source, destination, (5000 + flow, 53), &data));
    }
    let now = world.now;
    let engine = &mut world.nodes[from].engine;
    let region = Region::new(ALLOCATOR);
    assert_eq!(engine.handle_packets(&packets, 0, now), PACKETS);
    engine.finish_batch(now);
    let sending = region.change();
    let waiting = engine.outbox().waiting();
    let datagrams: Vec<(SocketAddr, Box<Datagram>)> = waiting
        .map(|(_, datagram, to)| (to, Box::new(*datagram)))
        .collect();
    engine.outbox().clear();
    let (source, destination) = (world.nodes[from].address, world.nodes[to].address);
    let mut arrived = world.carry(source, datagrams, destination);
    let engine = &mut world.nodes[to].engine;
    let region = Region::new(ALLOCATOR);
    for datagram in &mut arrived {
        engine.handle_datagram(datagram, now);
    }
    engine.finish_batch(now);
    let receiving = region.change();
    assert_eq!(engine.inbound().len(), PACKETS);
    engine.inbound().clear();
    engine.outbox().clear();
    [sending, receiving]
}

#[test]
fn nothing_is_allocated_for_packets_of_a_session() {
    let mut world = World::connected(1);
    for (from, to) in [(2, 1), (1, 2)] {
        // Lanes, flows and buffers are made for the first, and kept. The counter counts them.
        let first = batch(&mut world, from, to);
        assert!(
            first.iter().all(|change| change.allocations > 0),
            "{first:?}"
        );
        for _ in 0..BATCHES {
            for change in batch(&mut world, from, to) {
                let made = (change.allocations, change.reallocations);
                assert_eq!(made, (0, 0), "{from} to {to}: {change:?}");
            }
        }
    }
}
