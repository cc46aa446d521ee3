//! The paths that a relay's worker knows.

use std::time::{Duration, Instant};

use super::busy_keys::BusyKeys;
use super::layout::ReplayTag;
use super::peel::KnownPath;
use super::table::{Hash, Table};
use crate::size::{Cell, Header};
use mixline_wide_crypto::scrub_stack;

/// A path that no cell has used for this long may make room for a new one. A path in use is
/// probed several times a second, so what is idle for this long costs at worst one more
/// opening of its header.
pub const IDLE: Duration = Duration::from_secs(10);

/// The most paths that a cache can be given room for.
pub const MAX_PATHS: usize = 1 << 24;

/// Where a path stands in its cache.
///
/// It stays valid until the next [`PathCache::insert`] or [`PathCache::retain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathSlot(u32);

/// A header that is being looked up.
#[derive(Debug, Clone, Copy)]
pub struct Located(Hash);

/// The cache is full, and each path that was looked at has been used in the last [`IDLE`] seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path cache is full of live paths")]
pub struct Full;

/// Known paths by their whole header.
///
/// Bounded by its capacity; new paths take the place of idle ones only, so a flood of new
/// paths evicts none that is in use. Lookup and insertion take constant time and a lookup
/// allocates nothing. A path costs some 0.7 KB.
pub struct PathCache {
    table: Table<KnownPath>,
    busy: BusyKeys,
}

impl PathCache {
    /// Room for `capacity` paths (1 to [`MAX_PATHS`]). `hash_key` is random and secret, so
    /// that nobody can choose headers that collide.
    #[must_use]
    pub fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        Self {
            table: Table::new(capacity.min(MAX_PATHS), hash_key),
            busy: BusyKeys::new(),
        }
    }

    /// The path of this header, which counts as used at `now`.
    pub fn lookup(&mut self, header: &Header, now: Instant) -> Option<PathSlot> {
        self.find(self.locate(header), header, now)
    }

    /// [`PathCache::lookup`]'s first step, for a caller that looks up several and waits for memory
    /// once and not for each: asks for the memory where the search begins.
    #[must_use]
    pub fn locate(&self, header: &Header) -> Located {
        Located(self.table.locate(header))
    }

    /// The second step: asks for the path itself.
    pub fn prefetch(&self, located: Located) {
        self.table.prefetch(located.0);
    }

    /// The last step: the path of this header, which was located.
    pub fn find(&mut self, located: Located, header: &Header, now: Instant) -> Option<PathSlot> {
        self.table.lookup(located.0, header, now).map(PathSlot)
    }

    /// The path in a slot.
    ///
    /// # Panics
    /// If the slot is of another cache, or not valid any more and empty.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "a slot outlives its path only by a caller's mistake"
    )]
    pub fn get(&self, slot: PathSlot) -> &KnownPath {
        self.table.get(slot.0).expect("a valid slot")
    }

    /// The path in a slot, after it has peeled a cell of its own ([`KnownPath::peel`]): faster than that
    /// where the path has carried many.
    ///
    /// # Panics
    /// As [`Self::get`].
    #[expect(
        clippy::expect_used,
        reason = "a slot outlives its path only by a caller's mistake"
    )]
    pub fn peel(&mut self, slot: PathSlot, cell: &mut Cell) -> (&KnownPath, ReplayTag) {
        let path = self.table.get(slot.0).expect("a valid slot");
        let tag = match self.busy.get(slot.0, path) {
            Some(ready) => path.peel_with(ready, cell),
            None => path.peel(cell),
        };
        (path, tag)
    }

    /// Adds a path that was opened with the onion key of this number, or replaces the one of the
    /// same header. If the cache is full, one that has been idle for
    /// [`IDLE`] is evicted.
    ///
    /// # Errors
    /// [`Full`] if none was found among some thousands; the next time others are looked at.
    pub fn insert(
        &mut self,
        header: &Header,
        path: KnownPath,
        key: u32,
        now: Instant,
    ) -> Result<PathSlot, Full> {
        let at = self
            .table
            .insert(header, path, key, now, IDLE)
            .ok_or(Full)?;
        self.busy.forget(at);
        Ok(PathSlot(at))
    }

    /// Forgets the paths that were opened with a key whose number `keep` refuses, and erases
    /// their keys. Looks at each path, so it takes some milliseconds for 100,000.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.table.retain(keep);
        self.busy.clear();
        scrub_stack();
    }

    /// How many paths it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many paths it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }
}
