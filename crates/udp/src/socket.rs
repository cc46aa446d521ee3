//! Opening a socket, and what is known about it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mixline_protocol::size::DATAGRAM;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of kernel buffer asked for in each direction: at 40 Gbit/s, 1.6 ms.
pub const BUFFER_BYTES: usize = 8 << 20;

/// How to open a socket. [`Default`] is right for one socket with all offloads.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Let several sockets of this user share the address; the kernel spreads flows
    /// over them (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Receive runs of datagrams as one buffer, where the kernel can.
    pub gro: bool,
    /// Send runs of datagrams as one message, where the kernel can.
    pub gso: bool,
    /// Have the kernel say when it received each message (`SO_TIMESTAMPNS`). Receiving takes longer, and
    /// memory for each call: this is for diagnosis.
    pub stamps: bool,
    /// Bytes of kernel buffer in each direction. Beyond the system's limit only for
    /// those with `CAP_NET_ADMIN`; others get what the limit allows.
    pub buffer_bytes: usize,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            gro: true,
            gso: true,
            stamps: false,
            buffer_bytes: BUFFER_BYTES,
        }
    }
}

/// What happened to datagrams that did not go through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received with another length than the one that everybody uses.
    pub wrong_length: u64,
    /// Not sent because the kernel refused the destination.
    pub unsendable: u64,
}

/// A non-blocking UDP socket that takes and gives batches of datagrams.
///
/// All calls take `&self`: one thread may receive while another sends.
#[derive(Debug)]
pub struct BatchSocket {
    socket: Socket,
    pub(crate) state: UdpSocketState,
    local: SocketAddr,
    pub(crate) stamps: bool,
    gso: AtomicBool,
    pub(crate) wrong_length: AtomicU64,
    pub(crate) unsendable: AtomicU64,
}

impl BatchSocket {
    /// Opens a socket on `address`; port 0 takes a free one. An IPv6 socket takes IPv6
    /// only, so that both families can have the same port.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`, above all `AddrInUse` and `AddrNotAvailable`.
    pub fn bind(address: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.cloexec().nonblocking(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(options.reuse_port)?;
        set_buffers(&socket, options.buffer_bytes);
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        let state = UdpSocketState::new((&socket).into())?;
        if !options.gro {
            setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
        }
        let batch = Self {
            socket,
            state,
            local,
            stamps: options.stamps,
            gso: AtomicBool::new(false),
            wrong_length: AtomicU64::new(0),
            unsendable: AtomicU64::new(0),
        };
        if options.stamps {
            setsockopt(&batch.socket, sockopt::ReceiveTimestampns, &true)?;
        }
        if options.gso {
            batch.enable_gso();
        }
        Ok(batch)
    }

    /// Whether another process, or this one, holds `address` already. Asked before
    /// several sockets are opened with `reuse_port`, which would share it silently.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn probe(address: SocketAddr) -> io::Result<()> {
        let options = BindOptions {
            gro: false,
            gso: false,
            buffer_bytes: 0,
            ..BindOptions::default()
        };
        Self::bind(address, &options).map(drop)
    }

    /// Has the kernel spread datagrams over the sockets that share this address (opened
    /// with `reuse_port`, numbered as they were opened) by the low bits of the receiver
    /// index in their link header: socket `index % range`. Where there is none of that
    /// number, the kernel decides. Said once, on any of the sockets.
    ///
    /// `range` is a power of two, at most 256.
    ///
    /// # Errors
    /// `InvalidInput` for another range; those of `setsockopt(2)`.
    pub fn steer_by_index(&self, range: usize) -> io::Result<()> {
        if !range.is_power_of_two() || range > 256 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The index is big-endian, so its low bits are in its last byte.
        let byte = (mixline_relay_common::wire::INDEX_OFFSET + 3) as u32;
        let mut program = [
            step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, byte),
            step(
                libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
                range as u32 - 1,
            ),
            step(libc::BPF_RET | BPF_A, 0),
        ];
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        setsockopt(&self.socket, sockopt::AttachReusePortCbpf, &program)?;
        Ok(())
    }

    /// The address that the socket is bound to, with the port that was taken.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether runs of datagrams are sent as one message. False after the kernel has
    /// refused one: the way out may not be able to.
    #[must_use]
    pub fn gso(&self) -> bool {
        self.gso.load(Ordering::Relaxed)
    }

    /// How many datagrams were dropped here, since the socket was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            wrong_length: self.wrong_length.load(Ordering::Relaxed),
            unsendable: self.unsendable.load(Ordering::Relaxed),
        }
    }

    /// Sends one datagram that may be shorter than others: the answer to a probe.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has no room; otherwise that it refuses the destination, or that
    /// the datagram is too long for the interface.
    pub fn send_short(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, &to.into()).map(drop)
    }

    fn enable_gso(&self) {
        let size = i32::try_from(DATAGRAM).unwrap_or(i32::MAX);
        match setsockopt(&self.socket, sockopt::UdpGsoSegment, &size) {
            Ok(()) => self.gso.store(true, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "no UDP GSO on this kernel"),
        }
    }

    pub(crate) fn disable_gso(&self) {
        self.gso.store(false, Ordering::Relaxed);
        if let Err(error) = setsockopt(&self.socket, sockopt::UdpGsoSegment, &0) {
            tracing::debug!(%error, "UDP GSO cannot be turned off");
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Return the accumulator (linux/filter.h).
const BPF_A: u32 = 0x10;

/// One instruction of a classic BPF program that does not jump.
fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn set_buffers(socket: &Socket, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // Forcing needs a privilege; without it the kernel cuts what is asked to its limit.
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = socket.set_send_buffer_size(bytes);
    }
}

impl AsFd for BatchSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for BatchSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
