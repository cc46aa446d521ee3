//! Putting fragments together again, in bounded memory and time.
//!
//! A peer that is authenticated may still be malicious, so all that it sends costs at most
//! [`REASSEMBLY_MEMORY`] of buffers, [`MAX_PARTIALS`] entries of some 200 bytes, and work in
//! proportion to what it sent: there is no scan of all that is incomplete.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::frame::{Fragment, Frame, MAX_MESSAGE};
use crate::{Error, Result};

/// One session's reassembly holds at most this many bytes of buffers, the pool included.
pub const REASSEMBLY_MEMORY: usize = 1024 * 1024;
/// At most this many packets and messages can be incomplete: as many of the smallest buffer
/// as the memory holds.
pub const MAX_PARTIALS: usize = REASSEMBLY_MEMORY / SMALLEST;
/// How long a packet may stay incomplete.
pub const REASSEMBLY_TIME: Duration = Duration::from_secs(5);
/// How many separate pieces of one packet may have arrived. The 66 fragments of the longest
/// packet, in the worst order, make 33.
pub const MAX_PIECES: usize = 40;

/// The smallest buffer: holds a packet of an ordinary MTU.
const SMALLEST: usize = 2048;
/// Buffers have 2, 4, 8, 16, 32 or 64 KiB.
const CLASSES: usize = 6;
/// The end of a list of slots.
const NONE: usize = usize::MAX;

/// What a frame delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered<'a> {
    /// A whole IP packet.
    Packet(&'a [u8]),
    /// A whole message.
    Message(&'a [u8]),
    /// The body of a control frame.
    Control(&'a [u8]),
}

/// What a reassembly has given up since it was made: packets and messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Incomplete after [`REASSEMBLY_TIME`].
    pub expired: u64,
    /// Pushed out, incomplete, by newer ones.
    pub evicted: u64,
    /// Refused: self-contradictory, or over a limit.
    pub refused: u64,
}

/// The incomplete packets and messages of one session.
///
/// Tolerates fragments in any order and duplicates of them. Does not allocate while the number
/// and sizes of incomplete packets stay what they have been: buffers go back to a pool.
#[derive(Debug)]
pub struct Reassembly {
    /// Where the partial of a key (kind and id) stands in `slots`.
    index: HashMap<Key, usize>,
    slots: Vec<Partial>,
    /// The ends of the list of live slots by age, and the head of the list of unused ones.
    oldest: usize,
    newest: usize,
    unused: usize,
    pool: Pool,
    /// The packet that was delivered last, and its length. The caller looks at it until the
    /// next call, which takes the buffer back.
    delivered: Option<Vec<u8>>,
    last: Option<Instant>,
    counters: ReassemblyCounters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    message: bool,
    id: u32,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    born: Instant,
    total: u16,
    /// What has arrived: sorted, disjoint, not touching. From, to (exclusive).
    pieces: ArrayVec<(u16, u16), MAX_PIECES>,
    buffer: Vec<u8>,
    older: usize,
    newer: usize,
}

impl Default for Reassembly {
    fn default() -> Self {
        Self::new()
    }
}

impl Reassembly {
    /// Empty; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            oldest: NONE,
            newest: NONE,
            unused: NONE,
            pool: Pool::default(),
            delivered: None,
            last: None,
            counters: ReassemblyCounters::default(),
        }
    }

    /// Takes one frame. Whole frames pass through; a fragment that completes its packet
    /// delivers it, from a buffer that the next call takes back.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a fragment that contradicts an earlier one of the same id;
    /// [`Error::Limit`] for a message over 16 KiB, or a packet in more than [`MAX_PIECES`] pieces.
    /// What had arrived of it is dropped.
    pub fn accept<'a>(
        &'a mut self,
        frame: Frame<'a>,
        now: Instant,
    ) -> Result<Option<Delivered<'a>>> {
        let (message, fragment) = match frame {
            Frame::Packet(packet) => return Ok(Some(Delivered::Packet(packet))),
            Frame::Control(body) => return Ok(Some(Delivered::Control(body))),
            Frame::Message(message) => return Ok(Some(Delivered::Message(message))),
            // Whether another copy has come is known by the counters, before this.
            Frame::Copy(_) => return Ok(None),
            Frame::PacketFragment(fragment) => (false, fragment),
            Frame::MessageFragment(fragment) => (true, fragment),
        };
        if let Some(buffer) = self.delivered.take() {
            self.pool.put(buffer);
        }
        self.last = Some(now);
        self.drop_expired(now);
        let complete = self.fragment(message, &fragment, now).inspect_err(|_| {
            self.counters.refused += 1;
        })?;
        let Some(buffer) = complete else {
            return Ok(None);
        };
        let whole = &self.delivered.insert(buffer)[..fragment.total.into()];
        Ok(Some(if message {
            Delivered::Message(whole)
        } else {
            Delivered::Packet(whole)
        }))
    }

    /// Drops what is older than [`REASSEMBLY_TIME`], and the pool of buffers if no fragment has
    /// come for as long. `accept` does the former by itself; an idle session needs this.
    pub fn expire(&mut self, now: Instant) {
        self.drop_expired(now);
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) >= REASSEMBLY_TIME)
        {
            let counters = self.counters;
            *self = Self {
                counters,
                ..Self::new()
            };
        }
    }

    /// What has been given up so far.
    #[must_use]
    pub fn counters(&self) -> ReassemblyCounters {
        self.counters
    }

    /// Bytes of buffers held, the pool included: at most [`REASSEMBLY_MEMORY`].
    #[must_use]
    pub fn memory(&self) -> usize {
        self.pool.held
    }

    /// How many packets and messages are incomplete: at most [`MAX_PARTIALS`].
    #[must_use]
    pub fn partials(&self) -> usize {
        self.index.len()
    }

    /// Adds a fragment; the buffer of its packet if it is complete now.
    fn fragment(
        &mut self,
        message: bool,
        fragment: &Fragment<'_>,
        now: Instant,
    ) -> Result<Option<Vec<u8>>> {
        if message && usize::from(fragment.total) > MAX_MESSAGE {
            return Err(Error::Limit {
                what: "message length",
            });
        }
        let key = Key {
            message,
            id: fragment.id,
        };
        let slot = match self.index.get(&key) {
            Some(slot) => *slot,
            None => self.begin(key, fragment.total, now),
        };
        match self.slots[slot].add(fragment) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.remove(slot))),
            Err(error) => {
                let buffer = self.remove(slot);
                self.pool.put(buffer);
                Err(error)
            }
        }
    }

    /// A slot for a new packet, as the newest; evicts the oldest if memory is short.
    fn begin(&mut self, key: Key, total: u16, now: Instant) -> usize {
        let buffer = loop {
            if let Some(buffer) = self.pool.take(total.into()) {
                break buffer;
            }
            self.drop_oldest();
            self.counters.evicted += 1;
        };
        let partial = Partial {
            key,
            born: now,
            total,
            pieces: ArrayVec::new(),
            buffer,
            older: self.newest,
            newer: NONE,
        };
        let slot = self.unused;
        let slot = if let Some(free) = self.slots.get_mut(slot) {
            self.unused = free.newer;
            *free = partial;
            slot
        } else {
            self.slots.push(partial);
            self.slots.len() - 1
        };
        match self.slots.get_mut(self.newest) {
            Some(before) => before.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.index.insert(key, slot);
        slot
    }

    /// Takes a live slot out of the index and the list; gives its buffer.
    fn remove(&mut self, slot: usize) -> Vec<u8> {
        let partial = &mut self.slots[slot];
        let (key, older, newer) = (partial.key, partial.older, partial.newer);
        let buffer = std::mem::take(&mut partial.buffer);
        partial.newer = self.unused;
        self.unused = slot;
        self.index.remove(&key);
        match self.slots.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        buffer
    }

    fn drop_oldest(&mut self) {
        if self.oldest != NONE {
            let buffer = self.remove(self.oldest);
            self.pool.put(buffer);
        }
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some(oldest) = self.slots.get(self.oldest) {
            if now.saturating_duration_since(oldest.born) < REASSEMBLY_TIME {
                break;
            }
            self.drop_oldest();
            self.counters.expired += 1;
        }
    }
}

impl Partial {
    /// Adds a fragment; whether everything is there now.
    fn add(&mut self, fragment: &Fragment<'_>) -> Result<bool> {
        let contradiction = Error::Malformed { what: "fragment" };
        if fragment.total != self.total {
            return Err(contradiction);
        }
        let start = usize::from(fragment.offset);
        let end = start + fragment.data.len();
        let to = u16::try_from(end).ok().filter(|to| *to <= self.total);
        let Some(to) = to else {
            return Err(contradiction);
        };
        let mut piece = (fragment.offset, to);

        // Those that overlap or touch the new one: `first..last`.
        let first = self.pieces.partition_point(|p| p.1 < piece.0);
        let last = self.pieces.partition_point(|p| p.0 <= piece.1);
        for have in &self.pieces[first..last] {
            let from = usize::from(have.0).max(start);
            let to = usize::from(have.1).min(end);
            // RFC 5722 has the same rule for IPv6, where overlaps that differ hid attacks.
            if from < to && self.buffer[from..to] != fragment.data[from - start..to - start] {
                return Err(contradiction);
            }
        }
        for have in self.pieces.drain(first..last) {
            piece = (piece.0.min(have.0), piece.1.max(have.1));
        }
        self.pieces
            .try_insert(first, piece)
            .map_err(|_| Error::Limit {
                what: "pieces of one packet",
            })?;
        self.buffer[start..end].copy_from_slice(fragment.data);
        Ok(piece == (0, self.total))
    }
}

/// Buffers by size; accounts for all of them, those in use too.
#[derive(Debug, Default)]
struct Pool {
    free: [Vec<Vec<u8>>; CLASSES],
    held: usize,
}

impl Pool {
    /// The class of the smallest buffers that hold `length` (at most 65535) bytes.
    fn class(length: usize) -> usize {
        (0..CLASSES - 1)
            .find(|class| length <= SMALLEST << class)
            .unwrap_or(CLASSES - 1)
    }

    /// A buffer that holds `length` bytes, with anything in it. `None` if all the memory is in
    /// buffers that are in use.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let class = Self::class(length);
        if let Some(buffer) = self.free[class].pop() {
            return Some(buffer);
        }
        let size = SMALLEST << class;
        while self.held + size > REASSEMBLY_MEMORY {
            let other = self.free.iter_mut().rev().find_map(Vec::pop)?;
            self.held -= other.len();
        }
        self.held += size;
        Some(vec![0; size])
    }

    fn put(&mut self, buffer: Vec<u8>) {
        self.free[Self::class(buffer.len())].push(buffer);
    }
}
