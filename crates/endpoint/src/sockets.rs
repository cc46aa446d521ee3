//! The UDP sockets: one for each address family.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use mixline_protocol::records::Snapshot;
use mixline_udp::{BatchSocket, BindOptions, Outgoing, ReceiveRing, SEND_BATCH};
use tokio::io::Interest;
use tokio::net::UdpSocket as Readiness;

use crate::error::{Error, Result};
use mixline_endpoint_engine::Families;
use mixline_endpoint_engine::outbox::Outbox;

/// Messages that are asked for in one call; with GRO each holds up to 46 datagrams.
const MESSAGES: usize = 16;

/// One socket in the runtime, and where it receives.
pub struct Port {
    /// The socket.
    socket: BatchSocket,
    /// The same socket, as the runtime waits for it.
    ready: Readiness,
    /// Its buffers.
    pub ring: ReceiveRing,
    /// The kernel takes no more at the moment.
    pub blocked: bool,
}

impl Port {
    fn bind(address: SocketAddr) -> io::Result<BatchSocket> {
        BatchSocket::bind(address, &BindOptions::default())
    }

    fn register(socket: BatchSocket) -> io::Result<Self> {
        let twin = UdpSocket::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Self {
            ready: Readiness::from_std(twin)?,
            socket,
            ring: ReceiveRing::new(MESSAGES),
            blocked: false,
        })
    }

    /// Receives a batch into the ring.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing: the next [`Self::readable`] waits.
    pub fn receive(&mut self) -> io::Result<usize> {
        let Self {
            socket,
            ready,
            ring,
            ..
        } = self;
        ready.try_io(Interest::READABLE, || socket.receive(ring))
    }

    /// Waits for something to receive.
    pub async fn readable(&self) {
        if let Err(error) = self.ready.readable().await {
            tracing::debug!(%error, "waiting for the socket");
        }
    }

    /// Waits until a blocked socket takes datagrams again.
    pub async fn writable(&self) {
        if let Err(error) = self.ready.writable().await {
            tracing::debug!(%error, "waiting for the socket");
        }
    }
}

/// Sockets that are bound, and not yet in a runtime.
pub struct Bound {
    v4: io::Result<BatchSocket>,
    v6: io::Result<BatchSocket>,
}

impl Bound {
    /// Binds both, to a port that the kernel chooses.
    ///
    /// # Errors
    /// [`Error::Socket`] if neither can be had.
    pub fn new() -> Result<Self> {
        let v4 = Port::bind((Ipv4Addr::UNSPECIFIED, 0).into());
        let v6 = Port::bind((Ipv6Addr::UNSPECIFIED, 0).into());
        match (v4, v6) {
            (Err(error), Err(_)) => Err(Error::Socket(error)),
            (v4, v6) => Ok(Self { v4, v6 }),
        }
    }

    /// Registers them in the runtime that this is called in.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn register(self) -> Result<Sockets> {
        let register = |socket: io::Result<BatchSocket>| {
            socket
                .ok()
                .map(Port::register)
                .transpose()
                .map_err(Error::Socket)
        };
        Ok(Sockets {
            v4: register(self.v4)?,
            v6: register(self.v6)?,
        })
    }
}

/// The sockets of an endpoint.
pub struct Sockets {
    /// For IPv4.
    pub v4: Option<Port>,
    /// For IPv6.
    pub v6: Option<Port>,
}

impl Sockets {
    /// Which families have both a socket and a route to some relay of the network.
    #[must_use]
    pub fn families(&self, snapshot: &Snapshot) -> Families {
        let addresses = || {
            snapshot
                .relays
                .iter()
                .flat_map(|relay| &relay.descriptor.addresses)
        };
        let some = |v4: bool| {
            addresses()
                .filter(|a| a.is_ipv4() == v4)
                .take(8)
                .any(has_route)
        };
        let families = Families {
            v4: self.v4.is_some(),
            v6: self.v6.is_some(),
        };
        let routed = Families {
            v4: families.v4 && some(true),
            v6: families.v6 && some(false),
        };
        // Without any route the machine is offline: that may change, and trying is harmless.
        if routed.v4 || routed.v6 {
            routed
        } else {
            families
        }
    }

    /// Whether the kernel has refused to take more.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.v4.iter().chain(&self.v6).any(|port| port.blocked)
    }

    /// Sends as much of the outbox as the kernel takes, in batches.
    pub fn send(&mut self, outbox: &mut Outbox) {
        for v4 in [true, false] {
            let port = if v4 { &mut self.v4 } else { &mut self.v6 };
            Self::send_family(port.as_mut(), v4, outbox);
        }
    }

    fn send_family(port: Option<&mut Port>, v4: bool, outbox: &mut Outbox) {
        let Some(port) = port else {
            let lost: Vec<usize> = outbox
                .waiting()
                .filter(|(_, _, to)| to.is_ipv4() == v4)
                .map(|(at, ..)| at)
                .collect();
            lost.into_iter().for_each(|at| outbox.mark_sent(at));
            return;
        };
        port.blocked = false;
        loop {
            let mut positions: ArrayVec<usize, SEND_BATCH> = ArrayVec::new();
            let mut batch: ArrayVec<Outgoing<'_>, SEND_BATCH> = ArrayVec::new();
            for (at, datagram, to) in outbox.waiting().filter(|(_, _, to)| to.is_ipv4() == v4) {
                if batch.is_full() {
                    break;
                }
                positions.push(at);
                batch.push(Outgoing::new(datagram, to));
            }
            if batch.is_empty() {
                return;
            }
            let result = port.socket.send(&mut batch);
            let done: ArrayVec<bool, SEND_BATCH> = batch.iter().map(Outgoing::is_done).collect();
            drop(batch);
            for (at, done) in positions.into_iter().zip(done) {
                if done {
                    outbox.mark_sent(at);
                }
            }
            match result {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    port.blocked = true;
                    // Forgets that it was once ready. (A queue of the kernel's that is full makes no
                    // event when it empties: the driver also tries again with every timeout.)
                    let full = || Err(io::Error::from(io::ErrorKind::WouldBlock));
                    let _ = port.ready.try_io::<()>(Interest::WRITABLE, full);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "sending fails");
                    return;
                }
            }
        }
    }
}

/// Whether the kernel would know where to send a datagram: asks, and sends nothing.
fn has_route(address: &SocketAddr) -> bool {
    source_to(address).is_some()
}

/// The own address that the kernel would send from to another one; `None` if it knows no way.
pub fn source_to(address: &SocketAddr) -> Option<IpAddr> {
    let socket = towards(address).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// A socket that is connected to an address, for questions to the kernel about the way there.
fn towards(address: &SocketAddr) -> io::Result<UdpSocket> {
    let from: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(from)?;
    socket.connect(address)?;
    Ok(socket)
}
