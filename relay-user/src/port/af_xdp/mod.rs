//! The port over AF_XDP: data comes from the worker's queues without passing the
//! kernel's network stack; handshakes, and what the kernel must resolve, go through the UDP
//! port that it has beside.
//!
//! How it sends depends on what the kernel granted. With zero-copy, frames leave through
//! the TX ring from where they were received. In copy mode the kernel makes an skb of each
//! frame of that ring, and sending through UDP with GSO is several times faster
//! (docs/performance.md): then only receiving goes through AF_XDP.

mod clock;
mod frames;
mod queue;
#[cfg(test)]
mod tests;
mod together;
mod transmit;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mixline_protocol::prefetch::{prefetch, prefetch_element};
use mixline_xdp::{Bound, Kernel, Neighbours, Packet, Socket};

use self::clock::Clock;
use self::frames::{HEADERS, datagram_of};
use self::queue::Queue;
use self::together::Together;
use self::transmit::Leaving;
pub use self::transmit::{NextHops, RingSender, Sending};
use super::contract::{Dropped, FIRST_PORT_TOKEN, Port};
use super::shared::Shared;
use super::udp::UdpPort;
use mixline_relay_engine::batch::{BATCH, Batch};

/// Events of AF_XDP sockets have tokens from here; those of the UDP port are below.
const FIRST_QUEUE_TOKEN: usize = FIRST_PORT_TOKEN + 8;
/// The UDP port is polled after so many batches from the queues.
const UDP_EVERY: u32 = 8;

/// A worker's queues, and its UDP port.
pub struct AfXdpPort<K = Bound, N = Neighbours> {
    queues: Vec<Queue<K>>,
    /// Which queue is asked next.
    next: usize,
    udp: UdpPort,
    sending: Sending<N>,
    /// Frames have time stamps.
    stamps: bool,
    /// Batches from queues since the UDP port was polled.
    batches: u32,
    /// Frames of the batch under way; kept for its memory.
    packets: Vec<Packet>,
    /// Frames of batches before it that leave through the UDP port.
    together: Together,
    /// Says what came out of the queues, and hears when they are to be closed.
    shared: Arc<Shared>,
    /// Frames that were not sent because the queues were closed.
    closed: u64,
}

impl<K: Kernel, N: NextHops> AfXdpPort<K, N> {
    /// A port over sockets that are bound, with the numbers of their queues, to which the XDP
    /// program redirects. With `stamps`, which the program must then put there and the sockets give, batches have the
    /// times at which frames came.
    #[must_use]
    pub fn new(
        sockets: Vec<(usize, Socket<K>)>,
        udp: UdpPort,
        sending: Sending<N>,
        shared: Arc<Shared>,
        stamps: bool,
    ) -> Self {
        Self {
            queues: sockets
                .into_iter()
                .map(|(number, socket)| Queue::new(number, socket))
                .collect(),
            next: 0,
            udp,
            sending,
            stamps,
            batches: 0,
            packets: Vec::with_capacity(BATCH),
            together: Together::new(),
            shared,
            closed: 0,
        }
    }

    /// Closes the queues; the port goes on by UDP. With zero-copy, the card goes back to buffers of
    /// the kernel's.
    #[cold]
    fn give_up(&mut self) {
        if self.queues.is_empty() {
            return;
        }
        for queue in &mut self.queues {
            // Whether the card has sent what is in its ring is not known any more.
            self.closed += (queue.drop_waiting() + queue.socket.in_flight()) as u64;
        }
        if let Sending::Ring(ring) = &self.sending {
            self.closed += ring.unsent();
        }
        self.sending = Sending::Gso;
        self.queues.clear();
    }

    /// Receives from the next queue that has something: which queue it was.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        for _ in 0..self.queues.len() {
            self.next = (self.next + 1) % self.queues.len();
            let queue = &mut self.queues[self.next];
            if !queue.ready {
                continue;
            }
            match queue.socket.receive(&mut self.packets) {
                // Edge-triggered: an empty ring says that there will be an event.
                Ok(0) => queue.ready = false,
                Ok(count) => {
                    self.shared.took(queue.number, count);
                    return Ok(Some(self.next));
                }
                Err(error) => {
                    // Others of this queue may wait to leave together.
                    for packet in self.packets.drain(..) {
                        queue.socket.free(packet);
                    }
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl<K: Kernel, N: NextHops> AfXdpPort<K, N> {
    /// Works on what was received from a queue, and on what waits behind it, and sends it together. How many frames
    /// that were; also if it is an error in the end.
    fn work_together(
        &mut self,
        first: usize,
        work: &mut dyn FnMut(&mut Batch<'_>),
    ) -> (usize, io::Result<()>) {
        let (mut number, mut count) = (first, 0);
        let ended = loop {
            let received = self.packets.len();
            count += received;
            work_on(&mut self.packets, self.stamps, work, |batch, frames| {
                self.together.note(batch, frames);
            });
            self.together.take(number, &mut self.packets);
            self.batches += 1;
            // Fewer than a batch: nothing waits behind them, and so they do not wait either.
            if received < BATCH || !self.together.has_room() {
                break Ok(());
            }
            match self.receive() {
                Ok(Some(next)) => number = next,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.together.send(&mut self.udp, &mut self.queues);
        (count, ended)
    }

    /// Works on what was received from a queue, and sends it through the ring.
    fn work_off(&mut self, number: usize, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<()> {
        let Self {
            queues,
            packets,
            udp,
            sending,
            stamps,
            ..
        } = self;
        let queue = &mut queues[number];
        let mut leaving: Leaving = ArrayVec::new();
        let Sending::Ring(ring) = sending else {
            queue.free(packets);
            return Ok(());
        };
        work_on(packets, *stamps, work, |batch, frames| {
            ring.sort(batch, frames, &mut leaving, udp);
        });
        let sent = ring.send(queue, packets, &leaving);
        queue.free(packets);
        self.batches += 1;
        sent
    }
}

/// Has a batch made of frames worked on, and `then` look at what came of it, with which frame each slot is in.
fn work_on(
    packets: &mut [Packet],
    stamps: bool,
    work: &mut dyn FnMut(&mut Batch<'_>),
    then: impl FnOnce(&mut Batch<'_>, &[u8]),
) {
    // The kernel may have written the frames on another core.
    for packet in packets.iter() {
        prefetch(packet, HEADERS);
        prefetch_element(packet, packet.len().saturating_sub(1));
    }
    let mut arrivals: ArrayVec<Option<Instant>, BATCH> = ArrayVec::new();
    if stamps {
        let clock = Clock::read();
        arrivals.extend(packets.iter_mut().map(|packet| clock.arrival_of(packet)));
    }
    let mut batch = Batch::new();
    let mut frames: ArrayVec<u8, BATCH> = ArrayVec::new();
    for (frame, packet) in (0..).zip(packets.iter_mut()) {
        // The program lets nothing through that does not parse; a frame that does not
        // all the same is left out, and so dropped.
        if let Some((datagram, source)) = datagram_of(packet) {
            frames.push(frame);
            batch.push(datagram, source);
        }
    }
    if stamps {
        let of_frame = |frame: &u8| arrivals.get(usize::from(*frame)).copied().flatten();
        batch.arrived_at(frames.iter().map(of_frame));
    }
    work(&mut batch);
    then(&mut batch, &frames);
}

impl<K: Kernel + Send, N: NextHops> Port for AfXdpPort<K, N> {
    fn poll(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize> {
        let mut busy = false;
        let received = if self.shared.is_given_up() {
            // What was redirected before is worked off, then the queues are closed.
            let received = self.receive().unwrap_or_default();
            if received.is_none() {
                self.give_up();
            }
            received
        } else {
            for queue in &mut self.queues {
                busy |= queue.retry()?;
            }
            self.receive()?
        };
        let Some(number) = received else {
            // There is no event for a kernel that is not busy any more.
            return Ok(self.udp.poll(work)?.max(usize::from(busy)));
        };
        let (count, received) = match self.sending {
            Sending::Gso => self.work_together(number, work),
            Sending::Ring(_) => (self.packets.len(), self.work_off(number, work)),
        };
        received?;
        // However busy the queues are, handshakes come through the kernel's socket.
        let mut by_udp = 0;
        while self.batches >= UDP_EVERY {
            self.batches -= UDP_EVERY;
            by_udp += self.udp.poll(work)?;
        }
        Ok(count + by_udp)
    }

    fn send(&mut self, batch: &Batch<'_>) {
        // What was held is not in a frame any more, and is rare: the kernel sends it.
        self.udp.send(batch);
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.udp.register(registry)?;
        for (number, queue) in self.queues.iter().enumerate() {
            let token = Token(FIRST_QUEUE_TOKEN + number);
            let fd = queue.socket.as_raw_fd();
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        Ok(())
    }

    fn ready(&mut self, event: &Event) {
        match event.token().0.checked_sub(FIRST_QUEUE_TOKEN) {
            Some(number) => {
                if let Some(queue) = self.queues.get_mut(number) {
                    queue.ready = true;
                }
            }
            None => self.udp.ready(event),
        }
    }

    fn dropped(&self) -> Dropped {
        let mut dropped = self.udp.dropped();
        dropped.unsent += self.closed;
        if let Sending::Ring(ring) = &self.sending {
            dropped.unsent += ring.unsent();
        }
        dropped
    }
}
