//! How long the engine takes for a cell, in each direction, beside the bare cryptography.
//!
//! ```text
//! cargo run --release -p mixline-endpoint-engine --example engine_speed
//! ```
//!
//! A client and a service over relays in memory; only the calls of the engines are timed.
//! The figure for sending holds packing, the session's seal, three layers of wrapping and the
//! link's seal; the one for receiving all of that in reverse, with reassembly and checks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a measuring tool"
)]

use std::time::{Duration, Instant};

use mixline_endpoint_engine::PacketBatch;
use mixline_endpoint_engine::testing::*;
use mixline_wide_crypto::hctr2::Hctr2;

/// Packets of one batch, as a TUN interface with segmentation offload gives them.
const BATCH: usize = 44;
const ROUNDS: usize = 2000;

fn main() {
    for length in [1472, 100] {
        run(length);
    }
    bare();
}

fn run(length: usize) {
    let mut world = World::connected(1);
    let (client, service) = (world.ipv4(2), world.ipv4(1));
    let packet = udp(client, service, (5000, 5000), &vec![7; length]);
    let mut batch = PacketBatch::new();
    for _ in 0..BATCH {
        batch.push(&packet);
    }
    let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
    let (mut cells, mut delivered, mut came) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let now = world.now;
        let mut at = 0;
        let mut datagrams = Vec::new();
        while at < batch.len() {
            let engine = &mut world.nodes[2].engine;
            let began = Instant::now();
            at = engine.handle_packets(&batch, at, now);
            engine.finish_batch(now);
            sending += began.elapsed();
            for (_, datagram, to) in engine.outbox().waiting() {
                datagrams.push((to, Box::new(*datagram)));
            }
            engine.outbox().clear();
        }
        cells += datagrams.len();
        let from = world.nodes[2].address;
        let mut arrived = world.carry(from, datagrams, world.nodes[1].address);
        came += arrived.len();
        let engine = &mut world.nodes[1].engine;
        let began = Instant::now();
        for datagram in &mut arrived {
            if !engine.can_receive() {
                delivered += engine.inbound().len();
                engine.inbound().clear();
            }
            engine.handle_datagram(datagram, now);
        }
        engine.finish_batch(now);
        receiving += began.elapsed();
        delivered += engine.inbound().len();
        engine.inbound().clear();
        engine.outbox().clear();
        world.forget_replays();
    }
    assert_eq!(delivered, BATCH * ROUNDS);
    let nanos = |time: Duration, count: usize| time.as_nanos() as f64 / count as f64;
    let payload = (length + 28) * BATCH * ROUNDS;
    println!("packets of {} bytes, {cells} cells", length + 28);
    println!(
        "  send    {:7.0} ns/cell  {:7.0} ns/packet  {:6.1} MB/s  {:7.0} cells/s",
        nanos(sending, cells),
        nanos(sending, BATCH * ROUNDS),
        payload as f64 / sending.as_secs_f64() / 1e6,
        cells as f64 / sending.as_secs_f64(),
    );
    println!(
        "  receive {:7.0} ns/cell  {:7.0} ns/packet  {:6.1} MB/s  {:7.0} cells/s",
        nanos(receiving, came),
        nanos(receiving, BATCH * ROUNDS),
        payload as f64 / receiving.as_secs_f64() / 1e6,
        came as f64 / receiving.as_secs_f64(),
    );
}

/// What three layers of HCTR2 and two of AES-GCM take by themselves.
fn bare() {
    let layer = Hctr2::new(&[7; 32]);
    let mut payload = [0u8; 1072];
    let rounds = 200_000u32;
    let began = Instant::now();
    for _ in 0..rounds {
        layer.encrypt(&[1; 16], &mut payload);
    }
    let hctr2 = began.elapsed().as_nanos() as f64 / f64::from(rounds);
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &[1; 32]).unwrap();
    let key = ring::aead::LessSafeKey::new(key);
    let mut sealed = [0u8; 1376];
    let began = Instant::now();
    for round in 0u64..u64::from(rounds) {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&round.to_be_bytes());
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let _ = key
            .seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), &mut sealed)
            .unwrap();
    }
    let gcm = began.elapsed().as_nanos() as f64 / f64::from(rounds);
    println!("bare: HCTR2 of a payload {hctr2:.0} ns, AES-256-GCM of a datagram {gcm:.0} ns");
    println!(
        "      three and two of them {:.0} ns",
        3.0 * hctr2 + 2.0 * gcm
    );
}
