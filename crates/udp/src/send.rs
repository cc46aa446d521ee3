//! Sending: datagrams grouped by destination, each group one message that the kernel
//! cuts into datagrams, many messages a call.
//!
//! What a message costs the kernel is nearly the same for one datagram as for many, so more are grouped than go
//! into a call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use mixline_protocol::size::Datagram;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use crate::BatchSocket;
use crate::plan::Plan;

/// Datagrams that are grouped with each other.
pub const SEND_BATCH: usize = 1024;
/// Messages of a system call.
const MESSAGES: usize = 64;
/// Datagrams in one message: below 64 KiB, headers included, and below the 64 segments
/// that kernels before 6.9 cut a message into.
pub const MAX_SEGMENTS: usize = 44;

thread_local! {
    /// Headers for `sendmmsg`. They hold pointers, and so belong to one thread; every
    /// call sets all that it uses.
    static HEADERS: RefCell<MultiHeaders<SockaddrStorage>> =
        RefCell::new(MultiHeaders::preallocate(MESSAGES, None));
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The bytes.
    pub bytes: &'a Datagram,
    /// Where to.
    pub to: SocketAddr,
    done: bool,
}

impl<'a> Outgoing<'a> {
    /// `bytes`, to be sent to `to`.
    #[must_use]
    pub fn new(bytes: &'a Datagram, to: SocketAddr) -> Self {
        Self {
            bytes,
            to,
            done: false,
        }
    }

    /// Whether the kernel has taken it, or refused it for good.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl BatchSocket {
    /// Gives datagrams to the kernel, those to addresses of the socket's family. Those to one destination keep their
    /// order; between destinations there is none. Returns how many the kernel took; the others it refused
    /// for good (no route, forbidden), which is counted.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has no room for all: the rest is not
    /// [done](Outgoing::is_done), and the same slice may be given again later.
    pub fn send(&self, out: &mut [Outgoing<'_>]) -> io::Result<usize> {
        let is_v4 = self.local_address().is_ipv4();
        let mut sent = 0;
        for part in out.chunks_mut(SEND_BATCH) {
            loop {
                let longest = if self.gso() { MAX_SEGMENTS } else { 1 };
                let waiting = part.iter().enumerate().filter_map(|(at, datagram)| {
                    let goes = !datagram.done && datagram.to.is_ipv4() == is_v4;
                    goes.then_some((at, datagram.to))
                });
                let plan = Plan::of(waiting, longest);
                if plan.is_empty() {
                    break;
                }
                sent += self.carry_out(&plan, part)?;
            }
        }
        Ok(sent)
    }

    /// Sends the messages of a plan, as many to a call as there may be. All become done, or GSO is turned off
    /// and another plan is to be made, or it is an error.
    fn carry_out(&self, plan: &Plan, part: &mut [Outgoing<'_>]) -> io::Result<usize> {
        let (mut next, mut sent) = (0, 0);
        while next < plan.messages() {
            match self.call(plan, next, part) {
                Ok(messages) => {
                    for at in plan.range(next, next + messages) {
                        part[*at].done = true;
                        sent += 1;
                    }
                    next += messages;
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    let first = plan.range(next, next + 1);
                    // A device without checksum offload says EIO, one whose MTU is too small for a
                    // segment EINVAL or EMSGSIZE (net/ipv4/udp.c, udp_send_skb).
                    if first.len() > 1
                        && matches!(error, Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE)
                    {
                        tracing::debug!(%error, "sending without GSO from now on");
                        self.disable_gso();
                        return Ok(sent);
                    }
                    tracing::debug!(%error, datagrams = first.len(), "the kernel refuses a destination");
                    first.iter().for_each(|at| part[*at].done = true);
                    self.unsendable
                        .fetch_add(first.len() as u64, Ordering::Relaxed);
                    next += 1;
                }
            }
        }
        Ok(sent)
    }

    /// One system call, for messages from the one with this number on; how many the kernel took, at least one.
    fn call(&self, plan: &Plan, first: usize, part: &[Outgoing<'_>]) -> Result<usize, Errno> {
        let last = plan.messages().min(first + MESSAGES);
        let slices: ArrayVec<IoSlice<'_>, SEND_BATCH> = plan
            .range(first, last)
            .iter()
            .map(|at| IoSlice::new(part[*at].bytes))
            .collect();
        let mut messages: ArrayVec<&[IoSlice<'_>], MESSAGES> = ArrayVec::new();
        let mut addresses: ArrayVec<Option<SockaddrStorage>, MESSAGES> = ArrayVec::new();
        let mut rest = &slices[..];
        for message in first..last {
            let of = plan.range(message, message + 1);
            let (here, behind) = rest.split_at(of.len());
            messages.push(here);
            addresses.push(of.first().map(|at| part[*at].to.into()));
            rest = behind;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        HEADERS.with_borrow_mut(|headers| {
            let socket = self.socket().as_raw_fd();
            sendmmsg(socket, headers, messages.iter(), addresses, [], flags).map(Iterator::count)
        })
    }
}
