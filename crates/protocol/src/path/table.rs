//! A bounded table keyed by whole headers, with eviction of what is idle.
//!
//! Three parts, each touched once for a lookup, and asked for before ([`crate::fetch`]):
//! - an index, open addressing with linear probing, at most half full, whose 8-byte cells
//!   hold a position and 32 bits of the keyed hash;
//! - the use list, 16 bytes an entry, a doubly linked list from the most to the least
//!   recently used;
//! - the entries, in chunks that are allocated as they are needed and never moved.
//!
//! The index is allocated once, as zero pages that cost nothing until they are written. So
//! no insertion ever copies the table, and an empty table is small.

use std::hash::Hasher;
use std::mem::offset_of;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::{ALPHA, GAMMA};
use crate::fetch::{fetch, fetch_element};
use crate::size::{Header, PATH_HEADER};

/// Entries of a chunk: some 90 KB with the relay's paths.
const CHUNK: usize = 64;

/// No entry.
const NONE: u32 = u32::MAX;

/// How far the recorded time of use may lag behind the true one, in seconds.
///
/// An entry moves to the front of the use list only when its record is older than this, so
/// that lookups of busy paths do not write to their neighbours in the list.
const LAG: u32 = 2;

/// In the order of reading, the header at the front. It is free if there is no value.
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

/// An entry's place in the use list, or in the list of free positions.
#[derive(Clone, Copy)]
struct Use {
    newer: u32,
    older: u32,
    /// Seconds since the table's first use.
    used: u32,
    epoch: u32,
}

/// See the module's description. `V` is erased by its own `Drop`.
pub(super) struct Table<V> {
    capacity: usize,
    hash_key: [u8; 16],
    index: Vec<u64>,
    uses: Vec<Vec<Use>>,
    entries: Vec<Vec<Entry<V>>>,
    len: usize,
    newest: u32,
    oldest: u32,
    free: u32,
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
            uses: Vec::new(),
            entries: Vec::new(),
            len: 0,
            newest: NONE,
            oldest: NONE,
            free: NONE,
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
    pub(super) fn seek(&self, header: &Header) -> Hash {
        let hash = self.hash(header);
        fetch_element(&self.index, self.cell(hash));
        hash
    }

    /// Asks for the entry that the index leads to: for its header, for `front` bytes of its value,
    /// and for its last one.
    pub(super) fn fetch(&self, hash: Hash, front: usize) {
        if let Some((_, at)) = unpack(self.index[self.cell(hash)]) {
            fetch_element(&self.uses[at as usize / CHUNK], at as usize % CHUNK);
            let (start, end) = (&self.entry(at).header, size_of::<Entry<V>>());
            fetch(start, 0..offset_of!(Entry<V>, value) + front);
            fetch(start, end - 1..end);
        }
    }

    /// The position of a header's entry, which counts as used. `hash` is the header's.
    pub(super) fn lookup(&mut self, hash: Hash, header: &Header, now: Instant) -> Option<u32> {
        let now = self.seconds(now);
        let (_, at) = self.find(hash, header)?;
        if now.saturating_sub(self.uses(at).used) >= LAG {
            self.unlink(at);
            self.link_newest(at, now);
        }
        Some(at)
    }

    /// Adds an entry, or replaces the one of this header. `None` if the table is full and
    /// nothing in it has been idle for `idle`.
    pub(super) fn insert(
        &mut self,
        header: &Header,
        value: V,
        epoch: u32,
        now: Instant,
        idle: Duration,
    ) -> Option<u32> {
        let hash = self.hash(header);
        let now = self.seconds(now);
        if let Some((_, at)) = self.find(hash, header) {
            self.unlink(at);
            self.put(at, header, value, epoch, now);
            return Some(at);
        }
        if self.len >= self.capacity {
            let oldest = self.oldest;
            let idle = u32::try_from(idle.as_secs())
                .unwrap_or(NONE)
                .saturating_add(LAG);
            if now.saturating_sub(self.uses(oldest).used) < idle {
                return None;
            }
            self.remove(oldest);
        }
        let at = self.allocate();
        self.put(at, header, value, epoch, now);
        self.index_insert(hash, at);
        self.len += 1;
        Some(at)
    }

    /// Removes the entries of an epoch: looks at 16 bytes of each entry there is.
    pub(super) fn remove_epoch(&mut self, epoch: u32) {
        let mut at = self.oldest;
        while at != NONE {
            let Use {
                newer, epoch: of, ..
            } = *self.uses(at);
            if of == epoch {
                self.remove(at);
            }
            at = newer;
        }
    }

    /// The keyed hash of alpha and gamma: whoever cannot make them collide cannot make a
    /// lookup slow, and gamma depends on all of beta.
    fn hash(&self, header: &Header) -> Hash {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(&header[..ALPHA + GAMMA]);
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
        u32::try_from(now.saturating_duration_since(began).as_secs()).unwrap_or(NONE)
    }

    fn uses(&self, at: u32) -> &Use {
        &self.uses[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn uses_mut(&mut self, at: u32) -> &mut Use {
        &mut self.uses[at as usize / CHUNK][at as usize % CHUNK]
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

    /// A position that no entry has, of a new chunk if need be.
    fn allocate(&mut self) -> u32 {
        if self.free == NONE {
            let first = self.entries.len() * CHUNK;
            let count = CHUNK.min(self.capacity - first);
            self.entries.push((0..count).map(|_| Entry::FREE).collect());
            self.uses.push(vec![
                Use {
                    newer: NONE,
                    older: NONE,
                    used: 0,
                    epoch: 0
                };
                count
            ]);
            for at in (first..first + count).rev() {
                #[expect(clippy::cast_possible_truncation, reason = "capacity is below 2^31")]
                self.release(at as u32);
            }
        }
        let at = self.free;
        self.free = self.uses(at).newer;
        at
    }

    fn release(&mut self, at: u32) {
        self.uses_mut(at).newer = self.free;
        self.free = at;
    }

    fn put(&mut self, at: u32, header: &Header, value: V, epoch: u32, now: u32) {
        self.entries[at as usize / CHUNK][at as usize % CHUNK] = Entry {
            header: *header,
            value: Some(value),
        };
        self.uses_mut(at).epoch = epoch;
        self.link_newest(at, now);
    }

    fn remove(&mut self, at: u32) {
        let header = &self.entry(at).header;
        if let Some((cell, _)) = self.find(self.hash(header), header) {
            self.index_remove(cell);
        }
        self.unlink(at);
        self.entries[at as usize / CHUNK][at as usize % CHUNK] = Entry::FREE;
        self.release(at);
        self.len -= 1;
    }

    fn unlink(&mut self, at: u32) {
        let Use { newer, older, .. } = *self.uses(at);
        match newer {
            NONE => self.newest = older,
            newer => self.uses_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.uses_mut(older).newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32, now: u32) {
        let before = self.newest;
        let entry = self.uses_mut(at);
        entry.newer = NONE;
        entry.older = before;
        entry.used = now;
        match before {
            NONE => self.oldest = at,
            before => self.uses_mut(before).newer = at,
        }
        self.newest = at;
    }
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
