//! Known paths.
use super::KnownPath;
use crate::size::Header;
use std::marker::PhantomData;
use std::time::Instant;

/// Where a path stands in its cache; valid until the next insertion or removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathSlot(u32);

/// Every path of a full cache is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path cache is full of live paths")]
pub struct Full;

/// The paths that a worker knows.
pub struct PathCache<T>(PhantomData<T>);

impl<T> PathCache<T> {
    /// Room for `capacity` paths; `hash_key` is secret and random.
    #[must_use]
    pub fn new(_capacity: usize, _hash_key: [u8; 16]) -> Self {
        todo!()
    }
    /// The path of this header, marked as used at `now`.
    pub fn lookup(&mut self, _header: &Header, _now: Instant) -> Option<PathSlot> {
        todo!()
    }
    /// The path in a slot.
    #[must_use]
    pub fn get(&self, _slot: PathSlot) -> &(KnownPath, T) {
        todo!()
    }
    /// The path in a slot.
    pub fn get_mut(&mut self, _slot: PathSlot) -> &mut (KnownPath, T) {
        todo!()
    }
    /// Adds a path, or replaces the one of the same header.
    ///
    /// # Errors
    /// [`Full`] if there is no room and no path is idle.
    pub fn insert(
        &mut self,
        _header: &Header,
        _path: KnownPath,
        _data: T,
        _epoch: u32,
        _now: Instant,
    ) -> Result<PathSlot, Full> {
        todo!()
    }
    /// Forgets the paths of an epoch.
    pub fn remove_epoch(&mut self, _epoch: u32) {
        todo!()
    }
    /// How many paths it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
