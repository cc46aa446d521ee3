//! Sending: datagrams grouped by destination, each group one message that the kernel
//! cuts into datagrams, many messages a call.

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

/// Datagrams that one system call sends.
pub const SEND_BATCH: usize = 64;
/// Datagrams in one message: below 64 KiB, headers included, and below the 64 segments
/// that kernels before 6.9 cut a message into.
pub const MAX_SEGMENTS: usize = 44;

thread_local! {
    /// Headers for `sendmmsg`. They hold pointers, and so belong to one thread; every
    /// call sets all that it uses.
    static HEADERS: RefCell<MultiHeaders<SockaddrStorage>> =
        RefCell::new(MultiHeaders::preallocate(SEND_BATCH, None));
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
    /// Gives datagrams to the kernel. Those to one destination keep their order; between
    /// destinations there is none. Returns how many the kernel took; the others it refused
    /// for good (no route, forbidden), which is counted.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has no room for all: the rest is not
    /// [done](Outgoing::is_done), and the same slice may be given again later.
    pub fn send(&self, out: &mut [Outgoing<'_>]) -> io::Result<usize> {
        let mut sent = 0;
        for part in out.chunks_mut(SEND_BATCH) {
            while part.iter().any(|datagram| !datagram.done) {
                sent += self.send_some(part)?;
            }
        }
        Ok(sent)
    }

    /// One system call over what is not done of at most [`SEND_BATCH`] datagrams. At
    /// least one becomes done, or GSO is turned off, or it is an error.
    fn send_some(&self, part: &mut [Outgoing<'_>]) -> io::Result<usize> {
        let longest = if self.gso() { MAX_SEGMENTS } else { 1 };
        let plan = Plan::of(part, longest);
        let result = HEADERS.with_borrow_mut(|headers| {
            let slices: ArrayVec<IoSlice<'_>, SEND_BATCH> = plan
                .order
                .iter()
                .map(|at| IoSlice::new(part[*at].bytes))
                .collect();
            let mut messages: ArrayVec<&[IoSlice<'_>], SEND_BATCH> = ArrayVec::new();
            let mut start = 0;
            for end in &plan.ends {
                messages.push(&slices[start..*end]);
                start = *end;
            }
            let addresses: ArrayVec<Option<SockaddrStorage>, SEND_BATCH> =
                plan.firsts().map(|at| Some(part[at].to.into())).collect();
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            sendmmsg(
                self.socket().as_raw_fd(),
                headers,
                messages.iter(),
                addresses,
                [],
                flags,
            )
            .map(Iterator::count)
        });
        match result {
            Ok(messages) => {
                let datagrams = plan
                    .ends
                    .get(messages.wrapping_sub(1))
                    .copied()
                    .unwrap_or(0);
                plan.order[..datagrams]
                    .iter()
                    .for_each(|at| part[*at].done = true);
                Ok(datagrams)
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::EINTR) => Ok(0),
            Err(error) => {
                self.refused(error, &plan, part);
                Ok(0)
            }
        }
    }

    /// The kernel did not take the first message of a plan.
    fn refused(&self, error: Errno, plan: &Plan, part: &mut [Outgoing<'_>]) {
        let first = plan.ends.first().copied().unwrap_or(0);
        // A device without checksum offload says EIO, one whose MTU is too small for a
        // segment EINVAL or EMSGSIZE (net/ipv4/udp.c, udp_send_skb).
        if first > 1 && matches!(error, Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE) {
            tracing::debug!(%error, "sending without GSO from now on");
            self.disable_gso();
            return;
        }
        tracing::debug!(%error, datagrams = first, "the kernel refuses a destination");
        plan.order[..first]
            .iter()
            .for_each(|at| part[*at].done = true);
        self.unsendable.fetch_add(first as u64, Ordering::Relaxed);
    }
}

/// In which order datagrams go, and where a message ends.
struct Plan {
    /// Indices of datagrams, message by message.
    order: ArrayVec<usize, SEND_BATCH>,
    /// Where in `order` each message ends.
    ends: ArrayVec<usize, SEND_BATCH>,
}

impl Plan {
    /// Groups what is not done by destination, at most `longest` to a message. Batches
    /// are small: comparing each with each costs less than any table.
    fn of(part: &[Outgoing<'_>], longest: usize) -> Self {
        let mut plan = Self {
            order: ArrayVec::new(),
            ends: ArrayVec::new(),
        };
        let mut planned = [false; SEND_BATCH];
        for first in 0..part.len() {
            if planned[first] || part[first].done {
                continue;
            }
            let to = part[first].to;
            let mut length = 0;
            for at in first..part.len() {
                if planned[at] || part[at].done || part[at].to != to {
                    continue;
                }
                planned[at] = true;
                plan.order.push(at);
                length += 1;
                if length == longest {
                    plan.ends.push(plan.order.len());
                    length = 0;
                }
            }
            if length > 0 {
                plan.ends.push(plan.order.len());
            }
        }
        plan
    }

    /// The first datagram of each message.
    fn firsts(&self) -> impl Iterator<Item = usize> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, _)| self.order[start])
    }
}
