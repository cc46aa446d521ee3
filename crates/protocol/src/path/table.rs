//! A bounded table keyed by whole headers, with eviction of what is idle.
//!
//! Four parts; a lookup touches all but the last, and asks for them before ([`crate::prefetch`]):
//! - an index, open addressing with linear probing, at most half full, whose 8-byte cells
//!   hold a position and 32 bits of the keyed hash;
//! - the entries, in chunks that are allocated as they are needed and never moved;
//! - when each entry was last used, 4 bytes, so close together that it is cheap to look for one
//!   that has been idle;
//! - the number of the onion key that each was opened with, 4 bytes, for the same reason.
//!
//! Everything but the entries is allocated once, as zero pages that cost nothing until they are
//! written. So no insertion ever copies the table, and an empty table is small.
//!
//! A list from the most to the least recently used entry would name the one that has been idle
//! for longest, but each lookup would write to two or three other entries.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::layout::{ALPHA, GAMMA};
use crate::prefetch::{prefetch, prefetch_element};
use crate::size::{Header, PATH_HEADER};

/// Entries of a chunk: some 6 MB with the relay's paths, of which only those pages exist that
/// entries have been written to.
const CHUNK: usize = if cfg!(test) { 64 } else { 4096 };

/// How many entries a full table looks at for an idle one; the next time it goes on from there.
/// All of them take some microseconds, a twentieth of what opening a header does.
const SEARCHED: usize = if cfg!(test) { 50 } else { 4096 };

/// In the order of reading, the header first. The entry is free if there is no value.
#[repr(C)]
struct Entry<V> {
    header: Header,
    value: Option<V>,
}

impl<V> Entry<V> {
    const FREE: Self = Self {
        header: [0; PATH_HEADER],
        value: None,
    };
}

/// What a header is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(u32);

/// See the module's description. `V` is erased by its own `Drop`.
pub(super) struct Table<V> {
    capacity: usize,
    hash_key: [u8; 16],
    index: Vec<u64>,
    entries: Vec<Vec<Entry<V>>>,
    /// By position, in seconds since the table's first use.
    used: Vec<u32>,
    /// By position.
    keys: Vec<u32>,
    /// Positions that entries have left.
    free: Vec<u32>,
    len: usize,
    /// Where to look next for an idle entry.
    hand: usize,
    began: Option<Instant>,
}

impl<V> Table<V> {
    /// Room for 1 to `capacity` entries; `capacity` is below 2^31.
    pub(super) fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            hash_key,
            index: vec![0; (2 * capacity).next_power_of_two()],
            entries: Vec::new(),
            used: vec![0; capacity],
            keys: vec![0; capacity],
            free: Vec::new(),
            len: 0,
            hand: 0,
            began: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn get(&self, at: u32) -> Option<&V> {
        let at = at as usize;
        let entry = self.entries.get(at / CHUNK)?.get(at % CHUNK)?;
        entry.value.as_ref()
    }

    /// Asks for the cell of the index at which to look for a header.
    pub(super) fn locate(&self, header: &Header) -> Hash {
        let hash = self.hash(header);
        prefetch_element(&self.index, self.cell(hash));
        hash
    }

    /// Asks for the entry that the index leads to.
    pub(super) fn prefetch(&self, hash: Hash) {
        if let Some((_, at)) = unpack(self.index[self.cell(hash)]) {
            prefetch_element(&self.used, at as usize);
            prefetch(&self.entry(at).header, size_of::<Entry<V>>());
        }
    }

    /// The position of a header's entry, which counts as used. `hash` is the header's.
    pub(super) fn lookup(&mut self, hash: Hash, header: &Header, now: Instant) -> Option<u32> {
        let now = self.seconds(now);
        let (_, at) = self.find(hash, header)?;
        let used = &mut self.used[at as usize];
        if *used != now {
            *used = now;
        }
        Some(at)
    }

    /// Adds an entry, or replaces the one of this header. `None` if the table is full and
    /// nothing that was looked at has been idle for `idle`.
    pub(super) fn insert(
        &mut self,
        header: &Header,
        value: V,
        key: u32,
        now: Instant,
        idle: Duration,
    ) -> Option<u32> {
        let hash = self.hash(header);
        let now = self.seconds(now);
        if let Some((_, at)) = self.find(hash, header) {
            self.put(at, header, value, key, now);
            return Some(at);
        }
        if self.len >= self.capacity {
            let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
            let gone = self.find_idle(now, idle)?;
            self.remove(gone);
        }
        let at = self.allocate();
        self.put(at, header, value, key, now);
        self.index_insert(hash, at);
        self.len += 1;
        Some(at)
    }

    /// In a full table, the next entry that has been idle for more than `idle` seconds, if there
    /// is one among [`SEARCHED`].
    fn find_idle(&mut self, now: u32, idle: u32) -> Option<u32> {
        let (behind, ahead) = self.used.split_at(self.hand);
        let mut all = ahead.iter().chain(behind).take(SEARCHED);
        // A time in whole seconds is up to one second old, so it has to be more.
        let found = all.position(|used| now.saturating_sub(*used) > idle);
        let at = found.map(|found| (self.hand + found) % self.capacity);
        let next = at.map_or(self.hand + SEARCHED, |at| at + 1);
        self.hand = next % self.capacity;
        at.map(position)
    }

    /// Removes the entries whose key is not to be kept: looks at 4 bytes of each entry there is.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for at in 0..self.positions() {
            if !keep(self.keys[at]) && self.entry(position(at)).value.is_some() {
                self.remove(position(at));
            }
        }
    }

    /// The keyed hash of gamma, which depends on all of a header: it is a MAC of beta under a key that follows from alpha.
    /// Only headers that were opened are here, so who makes two with one gamma has found a collision of HMAC-SHA256
    /// at 128 bits, and has made two lookups share a cell.
    fn hash(&self, header: &Header) -> Hash {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(&header[ALPHA..ALPHA + GAMMA]);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any 32 bits of the hash do"
        )]
        let hash = hasher.finish() as u32;
        Hash(hash)
    }

    /// Where in the index to begin to look for a hash.
    fn cell(&self, hash: Hash) -> usize {
        hash.0 as usize & (self.index.len() - 1)
    }

    fn seconds(&mut self, now: Instant) -> u32 {
        let began = *self.began.get_or_insert(now);
        u32::try_from(now.saturating_duration_since(began).as_secs()).unwrap_or(u32::MAX)
    }

    fn entry(&self, at: u32) -> &Entry<V> {
        &self.entries[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// The cell of the index and the position of a header's entry.
    fn find(&self, hash: Hash, header: &Header) -> Option<(usize, u32)> {
        let mut cell = self.cell(hash);
        loop {
            let (of, at) = unpack(self.index[cell])?;
            if of == hash && self.entry(at).header == *header {
                return Some((cell, at));
            }
            cell = (cell + 1) & (self.index.len() - 1);
        }
    }

    fn index_insert(&mut self, hash: Hash, at: u32) {
        let mut cell = self.cell(hash);
        while self.index[cell] != 0 {
            cell = (cell + 1) & (self.index.len() - 1);
        }
        self.index[cell] = pack(hash, at);
    }

    /// Empties a cell and moves those behind it up, so that no probe stops short (Knuth,
    /// The Art of Computer Programming 3, 6.4, algorithm R).
    fn index_remove(&mut self, mut hole: usize) {
        let mask = self.index.len() - 1;
        let mut cell = hole;
        loop {
            cell = (cell + 1) & mask;
            let Some((hash, _)) = unpack(self.index[cell]) else {
                break;
            };
            let probed = cell.wrapping_sub(self.cell(hash)) & mask;
            if probed >= (cell.wrapping_sub(hole) & mask) {
                self.index[hole] = self.index[cell];
                hole = cell;
            }
        }
        self.index[hole] = 0;
    }

    /// How many positions have ever had an entry.
    fn positions(&self) -> usize {
        self.len + self.free.len()
    }

    /// A position that no entry has, of a new chunk if need be.
    fn allocate(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let at = self.len;
            if at.is_multiple_of(CHUNK) {
                let room = CHUNK.min(self.capacity - at);
                self.entries.push(Vec::with_capacity(room));
            }
            self.entries[at / CHUNK].push(Entry::FREE);
            position(at)
        })
    }

    fn put(&mut self, at: u32, header: &Header, value: V, key: u32, now: u32) {
        let at = at as usize;
        self.entries[at / CHUNK][at % CHUNK] = Entry {
            header: *header,
            value: Some(value),
        };
        self.keys[at] = key;
        self.used[at] = now;
    }

    fn remove(&mut self, at: u32) {
        let header = &self.entry(at).header;
        if let Some((cell, _)) = self.find(self.hash(header), header) {
            self.index_remove(cell);
        }
        self.entries[at as usize / CHUNK][at as usize % CHUNK] = Entry::FREE;
        self.free.push(at);
        self.len -= 1;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "capacity is below 2^31")]
fn position(at: usize) -> u32 {
    at as u32
}

/// A cell of the index; zero is an empty one.
fn pack(hash: Hash, at: u32) -> u64 {
    u64::from(hash.0) << 32 | u64::from(at + 1)
}

fn unpack(cell: u64) -> Option<(Hash, u32)> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the cell's halves apart"
    )]
    let (hash, at) = ((cell >> 32) as u32, cell as u32);
    at.checked_sub(1).map(|at| (Hash(hash), at))
}

#[cfg(test)]
mod tests;
