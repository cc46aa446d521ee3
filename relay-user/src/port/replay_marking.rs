//! Replay marking: a port behind an XDP program marks what has authenticated in the program's
//! replay filter, so that the kernel drops it when it comes again.

use std::io;

use arrayvec::ArrayVec;
use mio::Registry;
use mio::event::Event;
use mixline_relay_common::tag_filter::Position;
use mixline_relay_common::{TAG_LENGTH, TAG_OFFSET};
use mixline_relay_engine::batch::{BATCH, Batch};
use mixline_xdp::TagFilter;

use super::contract::{Dropped, Port};

/// A port whose authentic datagrams are marked as seen.
pub struct ReplayMarking<P> {
    port: P,
    filter: TagFilter,
}

impl<P> ReplayMarking<P> {
    /// Marks what comes through `port` in `filter`.
    pub fn new(port: P, filter: TagFilter) -> Self {
        Self { port, filter }
    }
}

impl<P: Port> Port for ReplayMarking<P> {
    fn poll(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize> {
        let filter = &self.filter;
        self.port.poll(&mut |batch| {
            // The pipeline works in place: afterwards, another tag is there.
            let mut positions: ArrayVec<Position, BATCH> = ArrayVec::new();
            for slot in &batch.slots {
                let mut tag = [0; TAG_LENGTH];
                tag.copy_from_slice(&slot.datagram[TAG_OFFSET..]);
                positions.push(filter.locate(&tag));
            }
            work(batch);
            // Only what has authenticated: nobody else can fill the filter.
            for (slot, position) in batch.slots.iter().zip(positions) {
                if slot.is_authentic() {
                    filter.mark(position);
                }
            }
        })
    }

    fn send(&mut self, batch: &Batch<'_>) {
        self.port.send(batch);
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.port.register(registry)
    }

    fn ready(&mut self, event: &Event) {
        self.port.ready(event);
    }

    fn dropped(&self) -> Dropped {
        self.port.dropped()
    }
}
