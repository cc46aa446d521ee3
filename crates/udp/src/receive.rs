//! Receiving: many messages a call, each a run of datagrams that is split in place.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrayvec::ArrayVec;
use mixline_protocol::link::probe;
use mixline_protocol::size::{DATAGRAM, Datagram};
use quinn_udp::RecvMeta;

use crate::BatchSocket;

/// Messages that one system call can bring.
pub const MAX_MESSAGES: usize = quinn_udp::BATCH_SIZE;

/// Datagrams that fit into one message of the kernel's: below 64 KiB.
const RUN: usize = 46;
/// Room for one message. The odd line keeps the fronts of messages apart in the
/// processor's caches, which a distance near 64 KiB would not.
const ROOM: usize = RUN * DATAGRAM + 64;
/// How many datagrams a call should bring, when they come in long runs: as many as the
/// nearer caches hold until they are worked on.
const WANTED: usize = 92;

/// Buffers for reception, used again and again. Memory that no message has reached is
/// not touched, and so costs nothing.
#[derive(Debug)]
pub struct ReceiveRing {
    bytes: Vec<u8>,
    messages: usize,
    /// How many messages the next call asks for.
    ask: usize,
    meta: [RecvMeta; MAX_MESSAGES],
    /// When the kernel received each message, if the socket that filled the ring says that.
    arrived: [Option<Instant>; MAX_MESSAGES],
    filled: usize,
    full: bool,
    /// The next message to hand out, and the datagram within.
    at: (usize, usize),
}

/// One datagram of a [`ReceiveRing`].
#[derive(Debug)]
pub struct Received<'a> {
    /// The bytes, in place.
    pub datagram: &'a mut Datagram,
    /// Who sent it, as far as a source address says so.
    pub source: SocketAddr,
}

impl ReceiveRing {
    /// Room for `messages` (1 to [`MAX_MESSAGES`]) messages of up to 46 datagrams each.
    #[must_use]
    pub fn new(messages: usize) -> Self {
        let messages = messages.clamp(1, MAX_MESSAGES);
        Self {
            bytes: vec![0; messages * ROOM],
            messages,
            ask: messages,
            meta: [RecvMeta::default(); MAX_MESSAGES],
            arrived: [None; MAX_MESSAGES],
            filled: 0,
            full: false,
            at: (0, 0),
        }
    }

    /// Hands out the next datagrams that were received, at most `most`. Those that are
    /// not taken from the iterator count as taken.
    pub fn take(&mut self, most: usize) -> impl Iterator<Item = Received<'_>> {
        let (first, skip) = self.at;
        let (mut last, mut end) = (first, skip);
        let mut left = most;
        while last < self.filled && left > 0 {
            let here = run_length(&self.meta[last]) - end;
            if here > left {
                end += left;
                left = 0;
            } else {
                left -= here;
                last += 1;
                end = 0;
            }
        }
        self.at = (last, end);
        let count = most - left;
        let meta = &self.meta[first..self.filled];
        self.bytes[first * ROOM..]
            .chunks_exact_mut(ROOM)
            .zip(meta)
            .flat_map(|(room, meta)| {
                let source = meta.addr;
                let (datagrams, _) = room.as_chunks_mut::<DATAGRAM>();
                datagrams
                    .iter_mut()
                    .take(run_length(meta))
                    .map(move |datagram| Received { datagram, source })
            })
            .skip(skip)
            .take(count)
    }

    /// When the kernel received the datagrams that [`take`](Self::take) hands out next. Those of one message were
    /// merged, and have the time of the message; those of a socket without
    /// [stamps](crate::BindOptions::stamps) have none.
    pub fn arrivals(&self) -> impl Iterator<Item = Option<Instant>> {
        let (first, skip) = self.at;
        let messages = self.meta[..self.filled].iter().zip(&self.arrived);
        messages
            .skip(first)
            .flat_map(|(meta, arrived)| std::iter::repeat_n(*arrived, run_length(meta)))
            .skip(skip)
    }

    /// Whether the last call brought as many messages as were asked for: there may be
    /// more. If not, there were no more at that time, and what comes later makes the
    /// socket readable anew.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How many received datagrams have not been handed out yet.
    #[must_use]
    pub fn left(&self) -> usize {
        let all: usize = self.meta[self.at.0..self.filled]
            .iter()
            .map(run_length)
            .sum();
        all - self.at.1
    }
}

/// A probe of the link protocol may be shorter than other datagrams: each becomes one of the usual
/// length, in its place. A message without short ones costs nothing here.
fn admit_probes(room: &mut [u8], meta: &mut RecvMeta) {
    let (length, stride) = (meta.len, meta.stride);
    if stride == DATAGRAM {
        // A run ends with a shorter one.
        let (whole, rest) = (length / DATAGRAM, length % DATAGRAM);
        if rest > 0 && whole < RUN && lengthen_at(room, whole, rest) {
            meta.len = (whole + 1) * DATAGRAM;
        }
        return;
    }
    let count = length.div_ceil(stride.max(1));
    let part = |at: usize| at * stride..length.min((at + 1) * stride);
    let is_probe = |at| room.get(part(at)).is_some_and(probe::is_short_probe);
    if stride == 0 || stride > DATAGRAM || count > RUN || !(0..count).all(is_probe) {
        return;
    }
    // From the last to the first: none is overwritten before it is moved.
    for at in (0..count).rev() {
        let from = part(at);
        let short = from.len();
        room.copy_within(from, at * DATAGRAM);
        lengthen_at(room, at, short);
    }
    (meta.len, meta.stride) = (count * DATAGRAM, DATAGRAM);
}

/// Makes a whole datagram of the `length` bytes at the place of datagram number `at`.
fn lengthen_at(room: &mut [u8], at: usize, length: usize) -> bool {
    let (slots, _) = room.as_chunks_mut::<DATAGRAM>();
    slots
        .get_mut(at)
        .is_some_and(|slot| probe::lengthen(slot, length))
}

/// How many datagrams of the right length a message holds: all but a shorter last one,
/// or none. A run has one stride; only its last datagram may be shorter.
fn run_length(meta: &RecvMeta) -> usize {
    if meta.stride == DATAGRAM {
        (meta.len / DATAGRAM).min(RUN)
    } else {
        0
    }
}

/// How many datagrams of a wrong length a message holds.
fn wrong_in(meta: &RecvMeta) -> usize {
    let all = if meta.stride == 0 {
        1
    } else {
        meta.len.div_ceil(meta.stride).max(1)
    };
    all - run_length(meta)
}

impl BatchSocket {
    /// Receives as many messages as there are and the ring has room for, replacing what
    /// it held; returns how many datagrams of the right length came, which may be none.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and those of `recvmmsg(2)`.
    pub fn receive(&self, ring: &mut ReceiveRing) -> io::Result<usize> {
        ring.filled = 0;
        ring.full = false;
        ring.at = (0, 0);
        let rooms = ring.bytes.chunks_exact_mut(ROOM).take(ring.ask);
        let filled = if self.stamps {
            self.receive_stamped(rooms, &mut ring.meta, &mut ring.arrived)?
        } else {
            let mut buffers: ArrayVec<IoSliceMut<'_>, MAX_MESSAGES> =
                rooms.map(IoSliceMut::new).collect();
            self.state
                .recv(self.socket().into(), &mut buffers, &mut ring.meta)?
        };
        ring.filled = filled;
        ring.full = filled == ring.ask;
        let rooms = ring.bytes.chunks_exact_mut(ROOM);
        for (room, meta) in rooms.zip(&mut ring.meta[..filled]) {
            if wrong_in(meta) > 0 {
                admit_probes(room, meta);
            }
        }
        let messages = &ring.meta[..filled];
        let datagrams: usize = messages.iter().map(run_length).sum();
        let wrong: usize = messages.iter().map(wrong_in).sum();
        if wrong > 0 {
            self.wrong_length.fetch_add(wrong as u64, Ordering::Relaxed);
        }
        let run = (datagrams / filled.max(1)).max(1);
        ring.ask = WANTED.div_ceil(run).clamp(1, ring.messages);
        Ok(datagrams)
    }
}
