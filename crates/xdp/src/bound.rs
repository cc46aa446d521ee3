//! The real kernel's side of an AF_XDP socket: bound to a queue, with the rings of the `xdp` crate.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use xdp::nic::NicIndex;
use xdp::slab::Slab;
use xdp::socket::{PollTimeout, XdpSocket, XdpSocketBuilder};
use xdp::{
    CompletionRing, RingConfigBuilder, RxRing, WakableFillRing, WakableRings, WakableTxRing,
};

use crate::error::BindError;
use crate::kernel::{Kernel, Ring};
use crate::memory::Memory;
use crate::options;
use crate::packet::Packet;
use crate::socket_config::SocketConfig;
use crate::wakeup::RingHeader;

/// What the kernel really granted, read back from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// The driver reads and writes our memory.
    ZeroCopy,
    /// The kernel copies each frame.
    Copy,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// A queue of a card, and what the kernel granted.
pub struct Bound {
    socket: XdpSocket,
    fill: WakableFillRing,
    receive: RxRing,
    transmit: WakableTxRing,
    completion: CompletionRing,
    fill_header: RingHeader,
    transmit_header: RingHeader,
    granted: Granted,
    // last, so that it outlives the rings and the socket: fields drop in order
    memory: Memory,
}

// SAFETY: what keeps the compiler from this are pointers into mappings that belong to no thread.
// Every use of rings and memory takes this by exclusive reference.
unsafe impl Send for Bound {}

impl Bound {
    /// Binds to a queue, with so many frames, in the mode that is asked for. With `offload`, frames may ask for a
    /// checksum.
    pub(crate) fn bind(
        nic: NicIndex,
        queue: u32,
        config: SocketConfig,
        mode: Granted,
        offload: bool,
    ) -> std::result::Result<Self, BindError> {
        let mut memory = Memory::map(&config, offload)?;
        let mut builder = XdpSocketBuilder::new().map_err(BindError::of)?;
        let ring = config.frames / 2;
        let rings = RingConfigBuilder {
            rx_count: ring,
            tx_count: ring,
            fill_count: ring,
            completion_count: ring,
        };
        let rings = rings.build().map_err(BindError::Configuration)?;
        let (rings, mut flags) = builder
            .build_wakable_rings(memory.umem(), rings)
            .map_err(BindError::of)?;
        let WakableRings {
            fill_ring: fill,
            rx_ring: Some(receive),
            completion_ring: completion,
            tx_ring: Some(transmit),
        } = rings
        else {
            return Err(BindError::NoRings);
        };
        match mode {
            Granted::ZeroCopy => flags.force_zerocopy(),
            Granted::Copy => flags.force_copy(),
        }
        let socket = builder.bind(nic, queue, flags).map_err(BindError::of)?;
        let fd = socket.raw_fd();
        // Without it a call takes 32 frames; kernels before 6.18 know no other number.
        if let Err(error) = options::write(fd, options::MAX_TX_BUDGET, ring) {
            tracing::debug!(%error, queue, "copy mode takes 32 frames in a call");
        }
        let granted = read_back(fd).map_err(|source| BindError::System {
            step: "asking for the mode",
            source,
        })?;
        let header = |ring| {
            RingHeader::map(fd, ring).map_err(|source| BindError::System {
                step: "mapping the flags of a ring",
                source,
            })
        };
        Ok(Self {
            socket,
            fill,
            receive,
            transmit,
            completion,
            fill_header: header(Ring::Fill)?,
            transmit_header: header(Ring::Transmit)?,
            granted,
            memory,
        })
    }

    /// What the kernel granted.
    pub(crate) fn granted(&self) -> Granted {
        self.granted
    }

    /// Waits until there is something to receive; false after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        self.socket.poll_read(PollTimeout::new(Some(timeout)))
    }

    fn header(&self, ring: Ring) -> &RingHeader {
        match ring {
            Ring::Fill => &self.fill_header,
            Ring::Transmit => &self.transmit_header,
        }
    }
}

impl Kernel for Bound {
    #[inline]
    fn free(&self) -> usize {
        self.memory.free()
    }

    #[inline]
    fn held(&self) -> usize {
        self.memory.held()
    }

    #[inline]
    fn take(&mut self) -> Option<Packet> {
        self.memory.take()
    }

    #[inline]
    fn give_back(&mut self, packet: Packet) {
        self.memory.give_back(packet);
    }

    #[inline]
    fn submit_free(&mut self, frames: usize) -> usize {
        // SAFETY: the memory outlives the socket by the order of the fields.
        let queued = unsafe { self.fill.enqueue(self.memory.umem(), frames, false) };
        // Only waking can fail, and that was not asked for.
        queued.unwrap_or_default()
    }

    #[inline]
    fn pop_received(&mut self, packets: &mut Vec<Packet>, most: usize) -> usize {
        let mut incoming = Incoming {
            packets,
            room: most,
        };
        // SAFETY: the memory stays mapped for as long as it counts packets as held.
        let received = unsafe { self.receive.recv(self.memory.umem(), &mut incoming) };
        self.memory.received(received);
        received
    }

    #[inline]
    fn submit(&mut self, packets: &mut VecDeque<Packet>, most: usize) -> usize {
        let mut outgoing = Outgoing { packets, most };
        // SAFETY: the memory outlives the socket by the order of the fields.
        let queued = unsafe { self.transmit.send(&mut outgoing, false) };
        // Only waking can fail, and that was not asked for.
        let queued = queued.unwrap_or_default();
        self.memory.submitted(queued);
        queued
    }

    #[inline]
    fn pop_completed(&mut self, most: usize) -> usize {
        self.completion.dequeue(self.memory.umem(), most)
    }

    #[inline]
    fn needs_wakeup(&self, ring: Ring) -> bool {
        self.header(ring).need_wakeup()
    }

    fn put_in(&self, ring: Ring) -> u32 {
        self.header(ring).put_in()
    }

    fn wake(&mut self, ring: Ring) -> std::result::Result<(), Errno> {
        let fd = self.socket.raw_fd();
        match ring {
            Ring::Fill => recv(fd, &mut [], MsgFlags::MSG_DONTWAIT),
            Ring::Transmit => send(fd, &[], MsgFlags::MSG_DONTWAIT),
        }
        .map(drop)
    }
}

impl AsRawFd for Bound {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.raw_fd()
    }
}

/// Where the receive ring puts packets: at the end of a vector.
struct Incoming<'a> {
    packets: &'a mut Vec<Packet>,
    room: usize,
}

impl Slab for Incoming<'_> {
    #[inline]
    fn available(&self) -> usize {
        self.room
    }

    #[inline]
    fn len(&self) -> usize {
        0
    }

    #[inline]
    fn is_empty(&self) -> bool {
        true
    }

    #[inline]
    fn push_front(&mut self, packet: xdp::Packet) -> Option<xdp::Packet> {
        self.packets.push(Packet(packet));
        None
    }

    #[inline]
    fn pop_back(&mut self) -> Option<xdp::Packet> {
        None
    }
}

/// Where the TX ring takes packets from: the front of a queue.
struct Outgoing<'a> {
    packets: &'a mut VecDeque<Packet>,
    most: usize,
}

impl Slab for Outgoing<'_> {
    #[inline]
    fn available(&self) -> usize {
        0
    }

    #[inline]
    fn len(&self) -> usize {
        self.packets.len().min(self.most)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn push_front(&mut self, packet: xdp::Packet) -> Option<xdp::Packet> {
        Some(packet)
    }

    #[inline]
    fn pop_back(&mut self) -> Option<xdp::Packet> {
        self.packets.pop_front().map(|packet| packet.0)
    }
}

/// Asks the socket whether zero-copy was granted (`XDP_OPTIONS`, kernel commit 2640d3c81233).
fn read_back(fd: RawFd) -> io::Result<Granted> {
    /// `XDP_OPTIONS_ZEROCOPY` of `linux/if_xdp.h`.
    const ZERO_COPY: u32 = 1;
    let flags = u32::from_ne_bytes(options::read(fd, options::OPTIONS)?);
    Ok(if flags & ZERO_COPY != 0 {
        Granted::ZeroCopy
    } else {
        Granted::Copy
    })
}
