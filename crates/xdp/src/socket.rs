//! One AF_XDP socket: a queue's frames in memory shared with the kernel.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use xdp::nic::NicIndex;
use xdp::slab::{HeapSlab, Slab as _};
use xdp::socket::{PollTimeout, XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{RingConfigBuilder, Umem, WakableRings};

use crate::options;
use crate::wakeup::{Front, Ring};
use crate::{Error, Result};

/// What a socket is made with.
#[derive(Debug, Clone, Copy)]
pub struct SocketConfig {
    /// Frames in all; half of them wait in the fill ring. A power of two.
    pub frames: u32,
    /// Try zero-copy before copy mode.
    pub zero_copy: bool,
}

impl Default for SocketConfig {
    /// 4096 frames of 2 KiB: 8 MiB a queue.
    fn default() -> Self {
        Self {
            frames: 4096,
            zero_copy: true,
        }
    }
}

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

/// A frame that we hold: received, or taken from the free ones to be sent. Give it back with
/// [`Socket::free`] or [`Socket::send`]; one that is dropped instead is lost, and stays counted in
/// [`Socket::held`]: whoever takes packets asserts in debug builds that this is what it has.
pub struct Packet(xdp::Packet);

// SAFETY: the packet is the only way to the bytes of its frame, as an owned buffer would be, and
// the mapping that it points into belongs to no thread.
unsafe impl Send for Packet {}

impl Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Packet {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Packet {
    /// Replaces what the frame holds. False if it does not fit.
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        self.0.clear();
        self.0.append(bytes).is_ok()
    }
}

/// An AF_XDP socket bound to one queue, with its rings and its memory.
///
/// Frames are conserved: those that are free, in the fill ring, held by the caller, and on
/// their way out add up to all, which [`Socket::is_conserved`] checks.
pub struct Socket {
    socket: XdpSocket,
    rings: WakableRings,
    outgoing: HeapSlab,
    incoming: HeapSlab,
    granted: Granted,
    fill: Front,
    transmit: Front,
    counts: Counts,
    unheard: Unheard,
    // last, so that it outlives the rings and the socket: fields drop in order
    umem: ManuallyDrop<Umem>,
}

// SAFETY: what keeps the compiler from this are the packets in the slabs, see `Packet`. Rings and
// socket belong to no thread, and every use of them takes the socket by exclusive reference.
unsafe impl Send for Socket {}

/// Where the frames are that are not free.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    all: usize,
    /// Given to the kernel to receive into.
    filling: usize,
    /// With the caller, or waiting in `outgoing`.
    held: usize,
    /// In the TX ring or the driver, until completed.
    sending: usize,
}

/// Rings that the kernel was to be woken for when it was busy.
#[derive(Debug, Clone, Copy, Default)]
struct Unheard {
    filling: bool,
    sending: bool,
}

/// Frames that copy mode takes from the TX ring in one call (`TX_BATCH_SIZE` of `net/xdp/xsk.c`).
const COPY_BATCH: usize = 32;
/// Most frames that one call receives or hands over.
const BATCH: usize = 64;

impl Socket {
    /// Binds to a queue: zero-copy if wanted and granted, else copy mode.
    ///
    /// # Errors
    /// [`Error::Socket`] with what the kernel said.
    pub fn bind(interface: &str, queue: u32, config: SocketConfig) -> Result<Self> {
        let failed = |why: String| Error::Socket {
            interface: interface.into(),
            queue,
            why,
        };
        let name = CString::new(interface).map_err(|e| failed(e.to_string()))?;
        let nic = NicIndex::lookup_by_name(&name)
            .map_err(|e| failed(e.to_string()))?
            .ok_or_else(|| Error::NoInterface(interface.into()))?;
        if config.zero_copy {
            match Self::bind_mode(nic, queue, config.frames, true) {
                Ok(socket) => return Ok(socket),
                Err(e) => tracing::debug!(interface, queue, "no zero-copy: {e}"),
            }
        }
        Self::bind_mode(nic, queue, config.frames, false).map_err(failed)
    }

    fn bind_mode(
        nic: NicIndex,
        queue: u32,
        frames: u32,
        zero_copy: bool,
    ) -> std::result::Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let umem = UmemCfgBuilder {
            frame_size: FrameSize::TwoK,
            frame_count: frames,
            ..UmemCfgBuilder::default()
        };
        let umem = Umem::map(umem.build().map_err(|e| text(&e))?).map_err(|e| text(&e))?;
        let mut builder = XdpSocketBuilder::new().map_err(|e| text(&e))?;
        let ring = frames / 2;
        let rings = RingConfigBuilder {
            rx_count: ring,
            tx_count: ring,
            fill_count: ring,
            completion_count: ring,
        };
        let rings = rings.build().map_err(|e| text(&e))?;
        let (rings, mut flags) = builder
            .build_wakable_rings(&umem, rings)
            .map_err(|e| text(&e))?;
        if zero_copy {
            flags.force_zerocopy();
        } else {
            flags.force_copy();
        }
        let socket = builder.bind(nic, queue, flags).map_err(|e| text(&e))?;
        let fd = socket.raw_fd();
        let granted = read_back(fd).map_err(|e| text(&e))?;
        let front = |ring| Front::map(fd, ring).map_err(|e| text(&e));
        let (fill, transmit) = (front(Ring::Fill)?, front(Ring::Transmit)?);
        let mut this = Self {
            socket,
            rings,
            outgoing: HeapSlab::with_capacity(BATCH),
            incoming: HeapSlab::with_capacity(BATCH),
            granted,
            fill,
            transmit,
            counts: Counts {
                all: frames as usize,
                ..Counts::default()
            },
            unheard: Unheard::default(),
            umem: ManuallyDrop::new(umem),
        };
        this.refill().map_err(|e| text(&e))?;
        Ok(this)
    }

    /// What the kernel granted.
    #[must_use]
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// Gives free frames to the kernel to receive into, keeping half of all for sending.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    fn refill(&mut self) -> io::Result<()> {
        let mut wanted = (self.counts.all / 2).saturating_sub(self.counts.filling);
        // the ring reserves all that is asked for or nothing
        while wanted > 0 {
            let step = wanted.min(BATCH).min(self.umem.allocatable());
            // SAFETY: the memory outlives the socket by the order of the fields.
            let queued = unsafe { self.rings.fill_ring.enqueue(&mut self.umem, step, false) }?;
            if queued == 0 {
                break;
            }
            self.counts.filling += queued;
            wanted -= queued;
        }
        self.wake_receiver()
    }

    /// Tells the driver that there are frames to receive into, if it wants to be told.
    fn wake_receiver(&mut self) -> io::Result<()> {
        self.unheard.filling = false;
        if !self.fill.need_wakeup() {
            return Ok(());
        }
        match recv(self.socket.raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            Err(e) => {
                self.unheard.filling = is_busy(e);
                back_pressure_or(e)
            }
        }
    }

    /// Appends up to 64 received frames to `packets` and returns how many.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub fn receive(&mut self, packets: &mut Vec<Packet>) -> io::Result<usize> {
        self.complete();
        let Some(ring) = self.rings.rx_ring.as_mut() else {
            return Ok(0);
        };
        // SAFETY: packets cannot outlive the memory: the caller returns them to this socket, whose
        // memory is never unmapped while it lives, nor after, see `Drop`.
        let received = unsafe { ring.recv(&self.umem, &mut self.incoming) };
        self.counts.filling -= received;
        self.counts.held += received;
        while let Some(packet) = self.incoming.pop_back() {
            packets.push(Packet(packet));
        }
        self.refill()?;
        self.debug_check();
        Ok(received)
    }

    /// A free frame to send with, if there is one.
    pub fn take(&mut self) -> Option<Packet> {
        // SAFETY: as in `receive`.
        let packet = unsafe { self.umem.alloc() }?;
        self.counts.held += 1;
        Some(Packet(packet))
    }

    /// Takes back a frame.
    pub fn free(&mut self, packet: Packet) {
        self.umem.free_packet(packet.0);
        self.counts.held -= 1;
    }

    /// Queues frames for sending, from the front, and wakes the kernel; those that did not fit
    /// stay in `packets`: back pressure. Returns how many went. If
    /// the kernel takes no more for now, [`Socket::retry`] says so and goes on.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub fn send(&mut self, packets: &mut VecDeque<Packet>) -> io::Result<usize> {
        self.complete();
        let mut sent = 0;
        while let Some(ring) = self.rings.tx_ring.as_mut() {
            while self.outgoing.available() > 0
                && let Some(packet) = packets.pop_front()
            {
                self.outgoing.push_front(packet.0);
            }
            let waiting = self.outgoing.len();
            if waiting == 0 {
                break;
            }
            // SAFETY: the memory outlives the socket by the order of the fields.
            unsafe { ring.send(&mut self.outgoing, false) }?;
            let went = waiting - self.outgoing.len();
            self.counts.held -= went;
            self.counts.sending += went;
            sent += went;
            while let Some(packet) = self.outgoing.pop_back() {
                packets.push_front(Packet(packet));
            }
            if went == 0 {
                break;
            }
        }
        if sent > 0 || self.unheard.sending {
            self.wake_sender()?;
        }
        self.debug_check();
        Ok(sent)
    }

    /// Wakes the kernel until it has taken all of the TX ring, or takes no more for now, if it
    /// wants to be woken.
    fn wake_sender(&mut self) -> io::Result<()> {
        self.unheard.sending = false;
        if !self.transmit.need_wakeup() {
            return Ok(());
        }
        // Frames may be under way for long after they have been taken, so that completions do not
        // tell whether there are more.
        for _ in 0..=self.counts.sending / COPY_BATCH {
            match send(self.socket.raw_fd(), &[], MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {
                    self.unheard.sending = false;
                    break;
                }
                Err(e) => {
                    back_pressure_or(e)?;
                    self.unheard.sending = is_busy(e);
                    self.complete();
                    if !self.unheard.sending {
                        break;
                    }
                }
            }
        }
        self.complete();
        Ok(())
    }

    /// Wakes the kernel again where it was busy before, and where it has begun to want it; true if
    /// it is busy, and this is to be called again soon, though nothing is received.
    ///
    /// # Errors
    /// What the kernel says, other than back pressure.
    pub fn retry(&mut self) -> io::Result<bool> {
        self.wake_receiver()?;
        if self.unheard.sending {
            self.wake_sender()?;
        }
        Ok(self.unheard.filling || self.unheard.sending)
    }

    /// Whether the kernel wants to be woken for the fill ring and for the TX ring, or else looks
    /// by itself; and how much has been put into each.
    #[must_use]
    pub fn rings(&self) -> [(bool, u32); 2] {
        [&self.fill, &self.transmit].map(|ring| (ring.need_wakeup(), ring.put_in()))
    }

    /// Frames that the caller has: received or taken, and neither freed nor sent.
    #[must_use]
    pub fn held(&self) -> usize {
        self.counts.held
    }

    /// Frames handed over whose sending has not been completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.counts.sending
    }

    /// Takes back what has been sent.
    fn complete(&mut self) {
        let ring = &mut self.rings.completion_ring;
        while self.counts.sending > 0 {
            let done = ring.dequeue(&mut self.umem, BATCH.min(self.counts.sending));
            if done == 0 {
                break;
            }
            self.counts.sending -= done;
        }
    }

    /// Waits until there is something to receive; false after `milliseconds`.
    ///
    /// # Errors
    /// What poll says.
    pub fn wait(&self, milliseconds: u32) -> io::Result<bool> {
        let timeout = PollTimeout::new(Some(std::time::Duration::from_millis(milliseconds.into())));
        self.socket.poll_read(timeout)
    }

    /// Whether free + fill + held + sending = all.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let Counts {
            all,
            filling,
            held,
            sending,
        } = self.counts;
        self.umem.allocatable() + filling + held + sending == all
    }

    fn debug_check(&self) {
        debug_assert!(
            self.is_conserved(),
            "{} free, {:?}",
            self.umem.allocatable(),
            self.counts
        );
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.raw_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.counts.held == 0 {
            // SAFETY: dropped once, here; no packet points into it, and the kernel keeps its own
            // reference to the pages until the socket is closed.
            unsafe { ManuallyDrop::drop(&mut self.umem) };
        }
        // Otherwise the memory stays mapped: a packet may still point into it.
    }
}

/// Nothing, if an error is back pressure: what was queued stays queued. With the interface down,
/// it does until the interface is up.
fn back_pressure_or(error: Errno) -> io::Result<()> {
    if is_busy(error) || error == Errno::ENETDOWN {
        Ok(())
    } else {
        Err(error.into())
    }
}

/// The kernel is busy, and has to be woken again.
fn is_busy(error: Errno) -> bool {
    matches!(
        error,
        Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS | Errno::EINTR
    )
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
