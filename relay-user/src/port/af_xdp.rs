//! The port over AF_XDP: data comes from the worker's queues without passing the
//! kernel's network stack; handshakes, and what the kernel must resolve, go through the UDP
//! port that it has beside.
//!
//! How it sends depends on what the kernel granted. With zero-copy, frames leave through
//! the TX ring from where they were received. In copy mode the kernel makes an skb of each
//! frame of the TX ring, and sending through UDP with GSO is several times faster
//! (docs/performance.md): then only receiving goes through AF_XDP.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mixline_protocol::prefetch::{prefetch, prefetch_element};
use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_common::frame::{self, Route, headers_length, write_headers};
use mixline_relay_common::maps::{Address, mapped};
use mixline_relay_engine::batch::{BATCH, Batch};
use mixline_xdp::{Hop, Neighbours, Packet, Socket};

use super::udp::UdpPort;
use super::{Dropped, FIRST_PORT_TOKEN, Port};

/// Events of AF_XDP sockets have tokens from here; those of the UDP port stand below.
const FIRST_QUEUE_TOKEN: usize = FIRST_PORT_TOKEN + 8;
/// The UDP port has a turn after so many batches from the queues.
const UDP_EVERY: u32 = 8;
/// How often changes of routes and neighbours are asked for.
const HEAR_EVERY: Duration = Duration::from_millis(100);

/// How frames leave.
pub enum Sending {
    /// Through the UDP port, with GSO.
    Gso,
    /// Through the TX ring.
    Ring(Box<Ring>),
}

/// What sending through the TX ring needs.
pub struct Ring {
    neighbours: Neighbours,
    /// The interface that the queues belong to.
    interface: u32,
    /// Our UDP port.
    port: u16,
    heard: Instant,
    unsent: u64,
}

impl Ring {
    /// Sends from `port` over the interface of this index.
    ///
    /// # Errors
    /// Those of netlink sockets.
    pub fn new(interface: u32, port: u16) -> io::Result<Self> {
        Ok(Self {
            neighbours: Neighbours::new()?,
            interface,
            port,
            heard: Instant::now(),
            unsent: 0,
        })
    }

    /// Sorts a batch into frames that leave by the ring, and datagrams that the kernel's socket
    /// sends, which are sent at once.
    fn sort(
        &mut self,
        batch: &mut Batch<'_>,
        places: &[u8],
        leaving: &mut Leaving,
        udp: &mut UdpPort,
    ) {
        let now = Instant::now();
        let order = std::mem::take(&mut batch.order);
        for at in order {
            let Some(to) = batch.slots[usize::from(at)].destination() else {
                continue;
            };
            match self.route(to, now) {
                Some(route) => leaving.push((places[usize::from(at)], route)),
                None => batch.order.push(at),
            }
        }
        if !batch.order.is_empty() {
            udp.send(batch);
        }
    }

    /// Sends frames in the order of `leaving`, each from where it was received if its headers
    /// have the same length now.
    fn send(
        &mut self,
        queue: &mut Queue,
        packets: &mut Vec<Packet>,
        leaving: &Leaving,
    ) -> io::Result<()> {
        let mut held: ArrayVec<Option<Packet>, BATCH> = packets.drain(..).map(Some).collect();
        for (place, route) in leaving {
            let Some(packet) = held.get_mut(usize::from(*place)).and_then(Option::take) else {
                continue;
            };
            match readdress(packet, route, &mut queue.socket) {
                Ok(packet) => queue.waiting.push_back(packet),
                Err(packet) => {
                    self.unsent += 1;
                    packets.push(packet);
                }
            }
        }
        packets.extend(held.into_iter().flatten());
        let sent = queue.socket.send(&mut queue.waiting);
        // What the ring has no room for waits for the next turn, up to a batch of it.
        while queue.waiting.len() > BATCH
            && let Some(packet) = queue.waiting.pop_front()
        {
            self.unsent += 1;
            queue.socket.free(packet);
        }
        sent.map(drop)
    }

    /// How a frame gets to `to`; nothing if the kernel's socket is to send it.
    fn route(&mut self, to: SocketAddr, now: Instant) -> Option<Route> {
        if now.saturating_duration_since(self.heard) >= HEAR_EVERY {
            self.heard = now;
            self.neighbours.hear();
        }
        let Hop {
            interface,
            from,
            to: next,
            source,
        } = self.neighbours.hop(to.ip(), now)?;
        (interface == self.interface).then(|| Route {
            from_mac: from,
            to_mac: next,
            from: address_of(source),
            to: address_of(to.ip()),
            from_port: self.port,
            to_port: to.port(),
        })
    }
}

/// Frames of a batch that leave by the ring: which, and where to, in order.
type Leaving = ArrayVec<(u8, Route), BATCH>;

/// A worker's queues, and its UDP port.
pub struct AfXdpPort {
    queues: Vec<Queue>,
    /// Which queue is asked next.
    next: usize,
    udp: UdpPort,
    sending: Sending,
    /// Batches from queues since the UDP port had its turn.
    batches: u32,
    /// Frames of the batch under way; kept for its memory.
    packets: Vec<Packet>,
}

struct Queue {
    socket: Socket,
    /// It may have something to receive.
    ready: bool,
    /// Frames that wait for room in the TX ring of this queue: they are in its memory.
    waiting: VecDeque<Packet>,
}

impl Queue {
    /// Goes on with what the kernel was too busy for; true if it still is.
    fn retry(&mut self) -> io::Result<bool> {
        if !self.waiting.is_empty() {
            self.socket.send(&mut self.waiting)?;
        }
        Ok(self.socket.retry()? || !self.waiting.is_empty())
    }

    /// Takes frames back. What is held after that is what waits, or a frame was lost.
    fn free(&mut self, packets: &mut Vec<Packet>) {
        for packet in packets.drain(..) {
            self.socket.free(packet);
        }
        debug_assert_eq!(self.socket.held(), self.waiting.len(), "frames are lost");
    }
}

impl AfXdpPort {
    /// A port over sockets that are bound, and whose queues the XDP program redirects to.
    #[must_use]
    pub fn new(sockets: Vec<Socket>, udp: UdpPort, sending: Sending) -> Self {
        Self {
            queues: sockets
                .into_iter()
                .map(|socket| Queue {
                    socket,
                    ready: true,
                    waiting: VecDeque::with_capacity(2 * BATCH),
                })
                .collect(),
            next: 0,
            udp,
            sending,
            batches: 0,
            packets: Vec::with_capacity(BATCH),
        }
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
                Ok(_) => return Ok(Some(self.next)),
                Err(error) => {
                    queue.free(&mut self.packets);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl Port for AfXdpPort {
    fn turn(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize> {
        let mut busy = false;
        for queue in &mut self.queues {
            busy |= queue.retry()?;
        }
        let Some(number) = self.receive()? else {
            // There is no event for a kernel that is not busy any more.
            return Ok(self.udp.turn(work)?.max(usize::from(busy)));
        };
        let Self {
            queues,
            packets,
            udp,
            sending,
            ..
        } = self;
        let queue = &mut queues[number];
        let count = packets.len();
        let mut leaving: Leaving = ArrayVec::new();
        {
            // The kernel may have written the frames on another core.
            for packet in packets.iter() {
                prefetch(packet, HEADERS);
                prefetch_element(packet, packet.len().saturating_sub(1));
            }
            let mut batch = Batch::new();
            let mut places: ArrayVec<u8, BATCH> = ArrayVec::new();
            for (place, packet) in (0..).zip(packets.iter_mut()) {
                // The program lets nothing through that does not parse; a frame that does not
                // all the same is left out, and so dropped.
                if let Some((datagram, source)) = datagram_of(packet) {
                    places.push(place);
                    batch.push(datagram, source);
                }
            }
            work(&mut batch);
            match sending {
                Sending::Gso => udp.send(&batch),
                Sending::Ring(ring) => ring.sort(&mut batch, &places, &mut leaving, udp),
            }
        }
        let sent = match sending {
            Sending::Gso => Ok(()),
            Sending::Ring(ring) => ring.send(queue, packets, &leaving),
        };
        queue.free(packets);
        sent?;
        // However busy the queues are, handshakes come through the kernel's socket.
        self.batches = (self.batches + 1) % UDP_EVERY;
        if self.batches == 0 {
            return Ok(count + self.udp.turn(work)?);
        }
        Ok(count)
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
        if let Sending::Ring(ring) = &self.sending {
            dropped.unsent += ring.unsent;
        }
        dropped
    }
}

/// Bytes before the datagram that the XDP program found in a frame.
fn headers_of(frame: &[u8]) -> Option<usize> {
    frame::udp(frame)
        .filter(|udp| udp.whole)
        .map(|udp| udp.payload)
}

/// The datagram in a frame, and who sent it.
fn datagram_of(packet: &mut Packet) -> Option<(&mut Datagram, SocketAddr)> {
    let payload = headers_of(packet)?;
    let (address, port) = frame::sender(&**packet, payload)?;
    let source = SocketAddr::new(ip_of(address), port);
    Some((packet.get_mut(payload..)?.first_chunk_mut()?, source))
}

/// Puts new headers before the datagram of a received frame. If they have another length, the
/// frame is exchanged for a free one; without one, it comes back.
fn readdress(mut packet: Packet, route: &Route, socket: &mut Socket) -> Result<Packet, Packet> {
    let length = headers_length(frame::is_mapped(&route.to));
    let Some(payload) = headers_of(&packet) else {
        return Err(packet);
    };
    if payload == length && packet.len() == length + DATAGRAM {
        let (headers, datagram) = packet.split_at_mut(length);
        let written = datagram
            .first_chunk()
            .is_some_and(|datagram| write_headers(headers, route, datagram));
        return if written { Ok(packet) } else { Err(packet) };
    }
    let mut bytes = [0; LONGEST_FRAME];
    let (headers, rest) = bytes.split_at_mut(length);
    let Some(datagram) = packet
        .get(payload..)
        .and_then(|rest| rest.first_chunk::<DATAGRAM>())
    else {
        return Err(packet);
    };
    rest[..DATAGRAM].copy_from_slice(datagram);
    if !write_headers(headers, route, datagram) {
        return Err(packet);
    }
    let Some(mut other) = socket.take() else {
        return Err(packet);
    };
    let filled = other.fill(&bytes[..length + DATAGRAM]);
    if !filled {
        socket.free(other);
        return Err(packet);
    }
    socket.free(packet);
    Ok(other)
}

/// Bytes at the front of a frame that are looked at first: its headers, and the datagram's.
const HEADERS: usize = 128;
/// Bytes of a frame over IPv6.
const LONGEST_FRAME: usize = headers_length(false) + DATAGRAM;

fn address_of(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn ip_of(address: Address) -> IpAddr {
    let v6 = Ipv6Addr::from(address);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}
