//! Sending through the UDP port, in copy mode: the frames of several batches together, so that one message takes many to
//! a next hop. Frames wait for others only while whole batches wait behind them, up to [`TOGETHER`]: a worker that
//! keeps up sends at once, and one that falls behind gets faster.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use mixline_udp::Outgoing;
use mixline_xdp::{Kernel, Packet};

use super::UDP_EVERY;
use super::frames::datagram_in;
use super::queue::Queue;
use crate::port::contract::MOST_BATCHES;
use crate::port::udp::UdpPort;
use mixline_relay_engine::batch::{BATCH, Batch};

/// Frames that are sent together: half a millisecond of a busy core's work, and a quarter of a queue's memory.
pub(super) const TOGETHER: usize = 1024;

// The last ones are the UDP port's.
const _: () = assert!(TOGETHER / BATCH + (TOGETHER / BATCH / UDP_EVERY as usize) < MOST_BATCHES);

/// Frames that have been worked on and are not free yet.
pub(super) struct Together {
    /// Each with the place of its queue.
    packets: Vec<(usize, Packet)>,
    /// Which of them are to be sent, and where to, in order.
    leaving: Vec<(usize, SocketAddr)>,
}

impl Together {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            packets: Vec::with_capacity(TOGETHER),
            leaving: Vec::with_capacity(TOGETHER),
        }
    }

    /// Whether there is room for another batch.
    pub(super) fn has_room(&self) -> bool {
        self.packets.len() + BATCH <= TOGETHER
    }

    /// Notes what of a batch is to be sent; `frames` says which frame each slot is in. The frames themselves
    /// [come](Self::take) when the batch lets go of them.
    pub(super) fn note(&mut self, batch: &Batch<'_>, frames: &[u8]) {
        let base = self.packets.len();
        for at in &batch.order {
            let at = usize::from(*at);
            let to = batch.slots.get(at).and_then(|slot| slot.destination());
            if let (Some(to), Some(frame)) = (to, frames.get(at)) {
                self.leaving.push((base + usize::from(*frame), to));
            }
        }
    }

    /// Takes the frames of the batch that was noted.
    pub(super) fn take(&mut self, queue: usize, packets: &mut Vec<Packet>) {
        self.packets
            .extend(packets.drain(..).map(|packet| (queue, packet)));
    }

    /// Sends what is to be sent, and frees all frames.
    pub(super) fn send<K: Kernel>(&mut self, udp: &mut UdpPort, queues: &mut [Queue<K>]) {
        let packets = &self.packets;
        let mut out: ArrayVec<Outgoing<'_>, TOGETHER> = self
            .leaving
            .iter()
            .filter_map(|(at, to)| {
                let (_, packet) = packets.get(*at)?;
                Some(Outgoing::new(datagram_in(packet)?, *to))
            })
            .collect();
        if !out.is_empty() {
            udp.send_together(&mut out);
        }
        drop(out);
        self.leaving.clear();
        for (queue, packet) in self.packets.drain(..) {
            if let Some(queue) = queues.get_mut(queue) {
                queue.socket.free(packet);
            }
        }
    }
}
