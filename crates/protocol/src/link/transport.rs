//! Sealing and opening of data.
use crate::Result;
use crate::size::Datagram;

/// No counter reaches this.
pub const MAX_COUNTER: u64 = 1 << 32;
/// After so many datagrams a session is replaced.
pub const REKEY_AFTER_DATAGRAMS: u64 = 1 << 31;

/// What a sealed datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// A cell of a path.
    Cell,
    /// Nothing: dropped on arrival.
    Cover,
    /// A message of [`super::control`].
    Control,
}

/// Seals; shared by threads.
pub struct SealKey(());

impl SealKey {
    /// Seals the cell that stands at `CELL_OFFSET` in place.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] at `MAX_COUNTER`.
    pub fn seal(&self, _datagram: &mut Datagram, _kind: CellKind) -> Result<()> {
        todo!()
    }
    /// How many datagrams have been sealed.
    #[must_use]
    pub fn sent(&self) -> u64 {
        todo!()
    }
    /// The neighbour's index of this session.
    #[must_use]
    pub fn remote_index(&self) -> u32 {
        todo!()
    }
}

/// Opens; shared by threads, keeps no state.
pub struct OpenKey(());

impl OpenKey {
    /// Authenticates and decrypts in place. The caller checks its window before and marks it after.
    ///
    /// # Errors
    /// `Authentication`, `Malformed`, `Limit`.
    pub fn open(&self, _datagram: &mut Datagram) -> Result<CellKind> {
        todo!()
    }
    /// Our own index of this session.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        todo!()
    }
}
