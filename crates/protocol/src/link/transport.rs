//! Sealing and opening of data: AES-256-GCM in place, in the datagram.
//!
//! ```text
//! header 16 (type 4) | AES-256-GCM { kind 1 | zero 7 | cell 1368 } | tag 16
//! ```
//!
//! The nonce is four zero bytes and the counter; the header is the associated data. Keys do
//! not change once made, so workers share them: [`SealKey`] hands out counters from an atomic,
//! [`OpenKey`] has no state at all.

use super::layout::{DatagramType, counter, datagram_type, receiver_index, write_header};
use crate::prefetch::Start;
use crate::size::{CELL_OFFSET, DATAGRAM, Datagram, LINK_HEADER, TAG};
use crate::{Error, Result};
use mixline_wide_crypto::gcm::{self, Gcm};
use std::sync::atomic::{AtomicU64, Ordering};

/// No datagram has this counter or a larger one. 2^32 datagrams of 88 blocks leave an
/// adversary an advantage below 2^-50 against AES-GCM with counted nonces (Iwata, Ohashi,
/// Minematsu, CRYPTO 2012), and a session does not live long enough to send them.
pub const MAX_COUNTER: u64 = 1 << 32;

/// A session is replaced after this many datagrams, whatever its age.
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

impl CellKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Cell => 0,
            Self::Cover => 1,
            Self::Control => 2,
        }
    }
}

/// Seals what is sent under one session. Shared by threads.
pub struct SealKey {
    key: Gcm,
    remote_index: u32,
    next: AtomicU64,
    cover: AtomicU64,
}

impl SealKey {
    pub(super) fn new(key: &[u8; 32], remote_index: u32) -> Self {
        let (next, cover) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            key: Gcm::new(key),
            remote_index,
            next,
            cover,
        }
    }

    /// Seals in place the cell that stands at [`CELL_OFFSET`]: writes the header with the next
    /// counter, the kind and the tag.
    ///
    /// # Errors
    /// [`Error::Limit`] at [`MAX_COUNTER`]; the datagram is then left as it was.
    pub fn seal(&self, datagram: &mut Datagram, kind: CellKind) -> Result<()> {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        if counter >= MAX_COUNTER {
            return Err(Error::Limit {
                what: "link counter",
            });
        }
        if kind == CellKind::Cover {
            self.cover.fetch_add(1, Ordering::Relaxed);
        }
        write_header(datagram, DatagramType::Data, self.remote_index, counter);
        datagram[LINK_HEADER] = kind.byte();
        datagram[LINK_HEADER + 1..CELL_OFFSET].fill(0);
        self.key.seal(counter, datagram);
        Ok(())
    }

    /// How many datagrams have been sealed.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(MAX_COUNTER)
    }

    /// How many of them were not cover.
    #[must_use]
    pub fn sent_data(&self) -> u64 {
        self.sent()
            .saturating_sub(self.cover.load(Ordering::Relaxed))
    }

    /// What the neighbour calls this session.
    #[must_use]
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Begins at another counter, for tests of what happens at the end.
    #[doc(hidden)]
    pub fn skip_to(&self, counter: u64) {
        self.next.store(counter, Ordering::Relaxed);
    }
}

/// Opens what is received under one session. Shared by threads; keeps no state.
#[repr(C)]
pub struct OpenKey {
    start: Start,
    key: Gcm,
    local_index: u32,
}

impl OpenKey {
    pub(super) fn new(key: &[u8; 32], local_index: u32) -> Self {
        Self {
            start: Start::default(),
            key: Gcm::new(key),
            local_index,
        }
    }

    /// Asks for the key, which is about to be used.
    pub fn prefetch(&self) {
        self.start.prefetch(size_of::<Self>());
    }

    /// Authenticates and decrypts in place; the cell is then at [`CELL_OFFSET`]. The caller
    /// asks its [`super::Window`] before and marks it after.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not data for this session, or if what a neighbour has
    /// sealed is not of a known kind; [`Error::Limit`] from [`MAX_COUNTER`] on;
    /// [`Error::Authentication`] if anything was changed, in which case what was sealed is zeros.
    pub fn open(&self, datagram: &mut Datagram) -> Result<CellKind> {
        if datagram_type(datagram)? != DatagramType::Data
            || receiver_index(datagram) != self.local_index
        {
            return Err(Error::Malformed {
                what: "link header",
            });
        }
        let counter = counter(datagram);
        if counter >= MAX_COUNTER {
            return Err(Error::Limit {
                what: "link counter",
            });
        }
        self.key
            .open(counter, datagram)
            .map_err(|_| Error::Authentication {
                what: "link datagram",
            })?;
        match datagram[LINK_HEADER..] {
            [0, 0, 0, 0, 0, 0, 0, 0, ..] => Ok(CellKind::Cell),
            [1, 0, 0, 0, 0, 0, 0, 0, ..] => Ok(CellKind::Cover),
            [2, 0, 0, 0, 0, 0, 0, 0, ..] => Ok(CellKind::Control),
            _ => Err(Error::Malformed { what: "cell kind" }),
        }
    }

    /// What we call this session.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        self.local_index
    }
}

/// One direction of a session without its handshake, for measurements that need many: the
/// sender's side, and the receiver's, who calls the session `index`.
#[doc(hidden)]
#[must_use]
pub fn without_handshake(key: &[u8; 32], index: u32) -> (SealKey, OpenKey) {
    (SealKey::new(key, index), OpenKey::new(key, index))
}

const _: () = assert!(REKEY_AFTER_DATAGRAMS < MAX_COUNTER);
const _: () = assert!(gcm::DATAGRAM == DATAGRAM && gcm::HEADER == LINK_HEADER && gcm::TAG == TAG);
