//! Sending through the TX ring, from where the frames were received.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_relay_common::frame::Route;
use mixline_xdp::{Kernel, Neighbours, NextHop, Packet};

use super::frames::{address_of, readdress};
use super::queue::Queue;
use crate::port::contract::Port;
use crate::port::udp::UdpPort;
use mixline_relay_engine::batch::{BATCH, Batch};

/// How often changes of routes and neighbours are asked for.
const HEAR_EVERY: Duration = Duration::from_millis(100);

/// Who knows the next hop of an address.
pub trait NextHops: Send {
    /// Takes in what has changed.
    fn hear(&mut self);

    /// How a frame gets to `to`; none if the kernel's socket is to send it.
    fn next_hop(&mut self, to: IpAddr, now: Instant) -> Option<NextHop>;
}

impl NextHops for Neighbours {
    fn hear(&mut self) {
        Neighbours::hear(self);
    }

    fn next_hop(&mut self, to: IpAddr, now: Instant) -> Option<NextHop> {
        self.next_hop(to, now)
    }
}

/// How frames leave.
pub enum Sending<N = Neighbours> {
    /// Through the UDP port, with GSO.
    Gso,
    /// Through the TX ring.
    Ring(Box<RingSender<N>>),
}

/// What sending through the TX ring needs.
pub struct RingSender<N = Neighbours> {
    next_hops: N,
    /// The interface that the queues belong to.
    interface: u32,
    /// Our UDP port.
    port: u16,
    heard: Instant,
    unsent: u64,
}

/// Frames of a batch that leave by the ring: which, and where to, in order.
pub(super) type Leaving = ArrayVec<(u8, Route), BATCH>;

impl<N: NextHops> RingSender<N> {
    /// Sends from `port` over the interface of this index, to next hops that `next_hops` knows.
    pub fn new(next_hops: N, interface: u32, port: u16) -> Self {
        Self {
            next_hops,
            interface,
            port,
            heard: Instant::now(),
            unsent: 0,
        }
    }

    /// Frames that the ring had no room for, or that could not be given headers.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Sorts a batch into frames that leave by the ring, and datagrams that the kernel's socket
    /// sends, which are sent at once. `frames` says which frame each slot is in.
    pub(super) fn sort(
        &mut self,
        batch: &mut Batch<'_>,
        frames: &[u8],
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
                Some(route) => leaving.push((frames[usize::from(at)], route)),
                None => batch.order.push(at),
            }
        }
        if !batch.order.is_empty() {
            udp.send(batch);
        }
    }

    /// Sends frames in the order of `leaving`, each from where it was received if its headers
    /// have the same length now. What does not leave stays in `packets`.
    pub(super) fn send<K: Kernel>(
        &mut self,
        queue: &mut Queue<K>,
        packets: &mut Vec<Packet>,
        leaving: &Leaving,
    ) -> io::Result<()> {
        let mut held: ArrayVec<Option<Packet>, BATCH> = packets.drain(..).map(Some).collect();
        for (frame, route) in leaving {
            let Some(packet) = held.get_mut(usize::from(*frame)).and_then(Option::take) else {
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
        let (too_many, sent) = queue.send();
        self.unsent += too_many as u64;
        sent
    }

    /// How a frame gets to `to`; none if the kernel's socket is to send it.
    fn route(&mut self, to: SocketAddr, now: Instant) -> Option<Route> {
        if now.saturating_duration_since(self.heard) >= HEAR_EVERY {
            self.heard = now;
            self.next_hops.hear();
        }
        let NextHop {
            interface,
            from,
            to: next,
            source,
        } = self.next_hops.next_hop(to.ip(), now)?;
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
