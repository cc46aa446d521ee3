//! The port over the kernel's UDP: one socket for each address family and worker.
//!
//! The workers' sockets share their address. The kernel gives each datagram to the worker
//! that owns its session, by the low bits of the receiver index.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mixline_protocol::size::Datagram;
use mixline_relay_engine::batch::{BATCH, Batch};
use mixline_relay_engine::link_sessions::MAX_WORKERS;
use mixline_udp::{BatchSocket, BindOptions, MAX_MESSAGES, Outgoing, ReceiveRing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::contract::{Dropped, FIRST_PORT_TOKEN, Port};

/// The most addresses that a relay listens on: one of each family.
const SOCKETS: usize = 2;
/// How long a worker waits for room in a socket's send buffer before what it has to send
/// is lost: about as long as a full buffer of 8 MiB takes on a 10 Gbit/s line.
const SEND_WAIT_MS: u16 = 8;

/// A worker's sockets.
pub struct UdpPort {
    sockets: ArrayVec<Listener, SOCKETS>,
    ring: ReceiveRing,
    /// The sockets say when the kernel received what is in the ring.
    stamps: bool,
    /// When what is left in the ring was found to be more than a batch.
    since: Option<Instant>,
    /// Which socket is asked next.
    next: usize,
    unsent: u64,
}

struct Listener {
    socket: Arc<BatchSocket>,
    /// It may have something to receive.
    ready: bool,
}

/// Sockets that the control plane sends from: those of one worker.
#[derive(Debug, Clone)]
pub struct ControlSockets(ArrayVec<Arc<BatchSocket>, SOCKETS>);

/// Opens the sockets of all workers, on at most one address of each family. An address
/// that another process has is refused, also when that one would share it. With `stamps`, batches have the times at
/// which the kernel received their datagrams.
///
/// # Errors
/// Those of `bind(2)`, with the address.
pub fn open_udp(
    listen: &[SocketAddr],
    workers: usize,
    stamps: bool,
) -> Result<(Vec<UdpPort>, ControlSockets), (SocketAddr, io::Error)> {
    let mut sockets: Vec<ArrayVec<Arc<BatchSocket>, SOCKETS>> =
        (0..workers).map(|_| ArrayVec::new()).collect();
    for address in listen.iter().take(SOCKETS) {
        let failed = |error| (*address, error);
        BatchSocket::probe(*address).map_err(failed)?;
        let options = BindOptions {
            reuse_port: workers > 1,
            stamps,
            ..BindOptions::default()
        };
        let mut address = *address;
        for sockets in &mut sockets {
            let socket = BatchSocket::bind(address, &options).map_err(failed)?;
            address = socket.local_address();
            sockets.push(Arc::new(socket));
        }
        if workers > 1
            && let Some(first) = sockets.first().and_then(|sockets| sockets.last())
        {
            first.steer_by_index(MAX_WORKERS).map_err(failed)?;
        }
    }
    let control = ControlSockets(sockets.first().cloned().unwrap_or_default());
    let ports = sockets.into_iter();
    let ports = ports.map(|sockets| UdpPort::new(sockets, stamps));
    Ok((ports.collect(), control))
}

impl UdpPort {
    fn new(sockets: ArrayVec<Arc<BatchSocket>, SOCKETS>, stamps: bool) -> Self {
        Self {
            sockets: sockets
                .into_iter()
                .map(|socket| Listener {
                    socket,
                    ready: true,
                })
                .collect(),
            ring: ReceiveRing::new(MAX_MESSAGES),
            stamps,
            since: None,
            next: 0,
            unsent: 0,
        }
    }

    /// Sends datagrams of several batches.
    pub(super) fn send_together(&mut self, out: &mut [Outgoing<'_>]) {
        self.unsent += send(&self.sockets, out);
    }

    /// Fills the ring from a socket that has something.
    fn receive(&mut self) -> io::Result<()> {
        for _ in 0..self.sockets.len() {
            self.next = (self.next + 1) % self.sockets.len();
            let listener = &mut self.sockets[self.next];
            if !listener.ready {
                continue;
            }
            match listener.socket.receive(&mut self.ring) {
                Ok(_) => {
                    // With room left there was no more, and there will be an event for
                    // what comes after.
                    listener.ready = self.ring.is_full();
                    if self.ring.left() > 0 {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Port for UdpPort {
    fn poll(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize> {
        if self.ring.left() == 0 {
            self.since = None;
            self.receive()?;
            // What does not fit into the first batch waits in the ring for its turn, which counts
            // as time inside.
            if self.ring.left() > BATCH {
                self.since = Some(Instant::now());
            }
        }
        // All that came may have had a wrong length; then there may be more behind it.
        let may_have_more = self.sockets.iter().any(|listener| listener.ready);
        let Self {
            ring,
            stamps,
            sockets,
            unsent,
            since,
            ..
        } = self;
        let arrivals: ArrayVec<_, BATCH> = if *stamps {
            ring.arrivals().take(BATCH).collect()
        } else {
            ArrayVec::new()
        };
        let mut batch = Batch::new();
        for received in ring.take(BATCH) {
            batch.push(received.datagram, received.source);
        }
        let count = batch.slots.len();
        if *stamps {
            batch.arrived_at(arrivals);
        } else if let Some(since) = since {
            batch.waited_since(*since);
        }
        if count > 0 {
            work(&mut batch);
            *unsent += send_batch(sockets, &batch);
        }
        Ok(count.max(usize::from(may_have_more)))
    }

    fn send(&mut self, batch: &Batch<'_>) {
        self.unsent += send_batch(&self.sockets, batch);
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (number, listener) in self.sockets.iter().enumerate() {
            let token = Token(FIRST_PORT_TOKEN + number);
            let fd = listener.socket.as_raw_fd();
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        Ok(())
    }

    fn ready(&mut self, event: &Event) {
        let number = event.token().0.wrapping_sub(FIRST_PORT_TOKEN);
        if let Some(listener) = self.sockets.get_mut(number) {
            listener.ready = true;
        }
    }

    fn dropped(&self) -> Dropped {
        let counters = self
            .sockets
            .iter()
            .map(|listener| listener.socket.counters());
        let mut dropped = Dropped {
            wrong_length: 0,
            unsent: self.unsent,
        };
        for counters in counters {
            dropped.wrong_length += counters.wrong_length;
            dropped.unsent += counters.unsendable;
        }
        dropped
    }
}

fn send_batch(sockets: &[Listener], batch: &Batch<'_>) -> u64 {
    let mut out: ArrayVec<Outgoing<'_>, BATCH> = batch
        .to_send()
        .map(|(bytes, to)| Outgoing::new(bytes, to))
        .collect();
    send(sockets, &mut out)
}

/// Sends datagrams over the sockets of their destinations' families; how many were lost
/// because the kernel had no room for too long, or there is no such socket.
fn send(sockets: &[Listener], out: &mut [Outgoing<'_>]) -> u64 {
    for listener in sockets {
        send_all(&listener.socket, out);
    }
    out.iter().filter(|datagram| !datagram.is_done()).count() as u64
}

fn send_all(socket: &BatchSocket, out: &mut [Outgoing<'_>]) {
    while let Err(error) = socket.send(out) {
        if error.kind() != io::ErrorKind::WouldBlock {
            tracing::warn!(%error, "cannot send");
            return;
        }
        // Waiting is what a full line asks for. The kernel's buffers meanwhile take what
        // arrives, and when they are full, it is lost there as well as here.
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::from(SEND_WAIT_MS)) != Ok(1) {
            return;
        }
    }
}

impl ControlSockets {
    /// Sends one datagram; what the kernel does not take is lost, and its sender's timers
    /// see to it.
    pub fn send(&self, datagram: &Datagram, to: SocketAddr) {
        let of_family = self
            .0
            .iter()
            .find(|socket| socket.local_address().is_ipv4() == to.is_ipv4());
        if let Some(socket) = of_family {
            send_all(socket, &mut [Outgoing::new(datagram, to)]);
        }
    }

    /// Sends the answer to a probe; what the kernel does not take is lost, and asked for again.
    pub fn send_short(&self, bytes: &[u8], to: SocketAddr) {
        let of_family = self
            .0
            .iter()
            .find(|socket| socket.local_address().is_ipv4() == to.is_ipv4());
        if let Some(socket) = of_family
            && let Err(error) = socket.send_short(bytes, to)
        {
            tracing::debug!(%error, "answering a probe");
        }
    }

    /// Whether there is a socket for the family of this address.
    #[must_use]
    pub fn reaches(&self, to: &SocketAddr) -> bool {
        self.0
            .iter()
            .any(|socket| socket.local_address().is_ipv4() == to.is_ipv4())
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|socket| socket.local_address())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use mixline_protocol::size::DATAGRAM;

    use super::*;

    #[test]
    fn with_stamps_each_datagram_has_its_time() {
        for stamps in [true, false] {
            let (mut ports, control) =
                open_udp(&["127.0.0.1:0".parse().unwrap()], 1, stamps).unwrap();
            let to = control.addresses().next().unwrap();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                from.send_to(&[0; DATAGRAM], to).unwrap();
            }
            let (mut since, mut apart) = (Vec::new(), Vec::new());
            while since.len() < 3 {
                ports[0].sockets[0].ready = true;
                ports[0]
                    .poll(&mut |batch| {
                        apart.push(batch.apart);
                        since.extend(batch.slots.iter().map(|slot| slot.since));
                    })
                    .unwrap();
            }
            assert!(apart.iter().all(|apart| *apart == stamps));
            assert!(since.iter().all(|since| since.is_some() == stamps));
        }
    }
}
