//! A port of plain buffers, for tests: the smallest one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mixline_protocol::size::Datagram;
use mixline_relay_engine::batch::{BATCH, Batch};

use super::contract::{Dropped, Port};

/// Receives what is put into `input`, and keeps what is sent in `output`.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// What is received next: bytes and source.
    pub input: VecDeque<(Datagram, SocketAddr)>,
    /// What was sent: bytes and destination.
    pub output: Vec<(Datagram, SocketAddr)>,
}

impl Port for MemoryPort {
    fn poll(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize> {
        let count = self.input.len().min(BATCH);
        let mut received: Vec<_> = self.input.drain(..count).collect();
        let mut batch = Batch::new();
        for (datagram, source) in &mut received {
            batch.push(datagram, *source);
        }
        work(&mut batch);
        self.output
            .extend(batch.to_send().map(|(bytes, to)| (*bytes, to)));
        Ok(count)
    }

    fn send(&mut self, batch: &Batch<'_>) {
        self.output
            .extend(batch.to_send().map(|(bytes, to)| (*bytes, to)));
    }

    fn register(&mut self, _registry: &mio::Registry) -> io::Result<()> {
        Ok(())
    }

    fn ready(&mut self, _event: &mio::event::Event) {}

    fn dropped(&self) -> Dropped {
        Dropped::default()
    }
}
