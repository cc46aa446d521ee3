//! A client and a service with a session between them, over relays in memory.

use std::alloc::System;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mixline_endpoint_engine::PacketBatch;
use mixline_endpoint_engine::engine::Engine;
use mixline_endpoint_engine::testing::{World, udp};
use mixline_protocol::frames::FRAME_HEADER;
use mixline_protocol::size::{Datagram, FRAMES};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::testbed::nanoseconds;

/// Counts what the whole program allocates.
#[global_allocator]
pub static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Cells of a batch of packets that fill one each: what an interface with segmentation offload gives at once, and less
/// than the outbox takes before the sockets have to.
pub const CELLS: usize = 88;
/// A batch of longer packets has so many: some 64 cells.
const LONG_PACKETS: usize = 44;
/// Bytes of the interface's longest packet.
const MTU: usize = 1500;
/// Flows that the packets of a batch belong to, in turns. They are spread over the paths.
const FLOWS: u16 = 8;
/// Bytes of the headers of IPv4 and UDP.
const HEADERS: usize = 28;

/// Which end is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that has begun the session.
    Client,
    /// The one that has published itself.
    Service,
}

impl End {
    fn node(self) -> usize {
        match self {
            Self::Service => 1,
            Self::Client => 2,
        }
    }

    /// The one that it talks to.
    pub fn other(self) -> Self {
        match self {
            Self::Service => Self::Client,
            Self::Client => Self::Service,
        }
    }
}

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Each fills one cell.
    Cell,
    /// Each is as long as the interface takes, so most are in two cells.
    Mtu,
}

impl Length {
    fn batch(self) -> (usize, usize) {
        match self {
            Self::Cell => (CELLS, FRAMES - FRAME_HEADER),
            Self::Mtu => (LONG_PACKETS, MTU),
        }
    }
}

/// What one batch took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Nanoseconds for each cell.
    pub ns: f64,
    /// Its cells.
    pub cells: usize,
    /// Pieces of memory that were allocated, or made larger.
    pub allocations: usize,
}

/// See the module's description.
pub struct Ends {
    world: World,
}

impl Ends {
    /// Handshakes are made, and every path has been answered.
    #[must_use]
    pub fn new() -> Self {
        Self {
            world: World::connected(1),
        }
    }

    /// Packets that leave an end.
    #[must_use]
    pub fn packets(&self, end: End, length: Length) -> PacketBatch {
        let (from, to) = (
            self.world.ipv4(end.node()),
            self.world.ipv4(end.other().node()),
        );
        let (count, bytes) = length.batch();
        let mut batch = PacketBatch::new();
        for flow in (0..FLOWS).cycle().take(count) {
            let ports = (5000 + flow, 5000 + flow);
            batch.push(&udp(from, to, ports, &vec![7; bytes - HEADERS]));
        }
        batch
    }

    /// An end takes packets from the device and seals them, as its driver has it do. The datagrams are thrown away.
    ///
    /// # Errors
    /// If one of them did not become a datagram.
    pub fn send(&mut self, end: End, packets: &PacketBatch) -> Result<Took> {
        let took = self.seal(end, packets)?;
        self.engine(end).outbox().clear();
        Ok(took)
    }

    /// The other end sends these packets, the relays forward them, and an end opens what arrives, as its driver has it
    /// do. Only the opening counts.
    ///
    /// # Errors
    /// If one of the packets did not arrive as it was.
    pub fn receive(&mut self, end: End, packets: &PacketBatch) -> Result<Took> {
        self.seal(end.other(), packets)?;
        let mut arrived = self.carry(end.other());
        let now = self.world.time(end.node());
        let engine = self.engine(end);
        let region = Region::new(ALLOCATOR);
        let began = Instant::now();
        for datagram in &mut arrived {
            engine.handle_datagram(datagram, now);
        }
        engine.finish_batch(now);
        let took = began.elapsed();
        let allocations = allocated(&region);
        let as_sent = packets
            .iter()
            .all(|sent| engine.inbound().iter().any(|it| it == sent));
        ensure!(
            as_sent && engine.inbound().len() == packets.len(),
            "{} of {} packets have arrived",
            engine.inbound().len(),
            packets.len()
        );
        engine.inbound().clear();
        engine.outbox().clear();
        Ok(of(took, arrived.len(), allocations))
    }

    fn seal(&mut self, end: End, packets: &PacketBatch) -> Result<Took> {
        let now = self.world.time(end.node());
        let engine = self.engine(end);
        let region = Region::new(ALLOCATOR);
        let began = Instant::now();
        let taken = engine.handle_packets(packets, 0, now);
        engine.finish_batch(now);
        let took = began.elapsed();
        let allocations = allocated(&region);
        let cells = engine.outbox().waiting().count();
        ensure!(
            taken == packets.len() && cells >= taken,
            "{cells} cells of {taken} of {} packets",
            packets.len()
        );
        Ok(of(took, cells, allocations))
    }

    /// What is in the outbox of an end, as it reaches the other.
    #[expect(clippy::vec_box, reason = "as the network in memory has them")]
    fn carry(&mut self, end: End) -> Vec<Box<Datagram>> {
        let outbox = self.engine(end).outbox();
        let datagrams: Vec<(SocketAddr, Box<Datagram>)> = outbox
            .waiting()
            .map(|(_, datagram, to)| (to, Box::new(*datagram)))
            .collect();
        outbox.clear();
        let address = |end: End| self.world.nodes[end.node()].address;
        let (from, to) = (address(end), address(end.other()));
        let arrived = self.world.carry(from, datagrams, to);
        self.world.forget_replays();
        arrived
    }

    fn engine(&mut self, end: End) -> &mut Engine {
        &mut self.world.nodes[end.node()].engine
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

fn allocated(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

fn of(took: Duration, cells: usize, allocations: usize) -> Took {
    Took {
        ns: nanoseconds(took) / cells as f64,
        cells,
        allocations,
    }
}
