//! Where records are kept.
//!
//! A [`Store`] is a few tables of bytes with a revision and an end for each entry, and
//! one way of changing them: a [`Transaction`] of checks and writes that happens wholly
//! or, if a check fails, not at all. That is what names and leases need (compare and
//! set over an entry and its index), and what replicated stores offer: it is the `Txn` of
//! etcd, with the revisions being its `mod_revision`.
//!
//! There are two: [`RedbStore`], a file of one directory, and [`EtcdStore`], which several front ends of
//! one owner share. Whatever is read comes from the store and from nowhere else, so that they agree.
//!
//! Stores know nothing of records and signatures; [`crate::registry`] does.

mod condition;
mod etcd;
mod open;
mod redb;

use mixline_protocol::time::UnixTime;

pub use self::condition::{Condition, Movable};
pub use self::etcd::{EtcdConfig, EtcdStore};
pub use self::open::open;
pub use self::redb::RedbStore;

use crate::Result;

/// Within so many seconds of its end an entry is gone, if [`Store::expire`] is called until then: some
/// stores remove entries in groups, and none removes one early.
pub const LINGER: u64 = 3600;

/// A table. Keys and values are what [`crate::registry`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Relay ID to when it was heard and its descriptor.
    Relays = 1,
    /// Short ID to relay ID.
    ShortIds = 2,
    /// Anonymous ID to service descriptor.
    Services = 3,
    /// Virtual IPv6 address to anonymous ID.
    Addresses = 4,
    /// Label to name record.
    Names = 5,
    /// Anonymous ID and label to nothing: the names of an ID.
    NamesOf = 6,
    /// Virtual IPv4 address to lease.
    Leases = 7,
    /// Anonymous ID to virtual IPv4 address.
    LeaseOf = 8,
    /// Anonymous ID to nothing: changes with every name that the ID gets, so that claims which count an
    /// ID's names meet.
    Holders = 9,
    /// What the directory remembers of itself, by names.
    Own = 10,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Relays,
        Self::ShortIds,
        Self::Services,
        Self::Addresses,
        Self::Names,
        Self::NamesOf,
        Self::Leases,
        Self::LeaseOf,
        Self::Holders,
        Self::Own,
    ];

    /// As the stores call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relays => "relays",
            Self::ShortIds => "short_ids",
            Self::Services => "services",
            Self::Addresses => "addresses",
            Self::Names => "names",
            Self::NamesOf => "names_of",
            Self::Leases => "leases",
            Self::LeaseOf => "lease_of",
            Self::Holders => "holders",
            Self::Own => "own",
        }
    }
}

/// What a table holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Differs from that of every other value that was ever under the same key.
    pub revision: u64,
    /// From when on it may be removed, by [`Store::expire`] or by itself. Until then it is returned.
    pub expires: UnixTime,
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold: the entry has this revision, or (`None`) is not there.
    pub checks: Vec<(Table, Vec<u8>, Option<u64>)>,
    /// What then happens, in order.
    pub writes: Vec<Write>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The entry becomes this.
    Put {
        /// Where.
        table: Table,
        /// Under which key.
        key: Vec<u8>,
        /// What.
        value: Vec<u8>,
        /// Until when.
        expires: UnixTime,
    },
    /// The entry goes, if it is there.
    Delete {
        /// Where.
        table: Table,
        /// Under which key.
        key: Vec<u8>,
    },
}

impl Transaction {
    /// One that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Happens only if the entry is still as it was read.
    #[must_use]
    pub fn check(mut self, table: Table, key: impl Into<Vec<u8>>, seen: Option<&Entry>) -> Self {
        self.checks
            .push((table, key.into(), seen.map(|entry| entry.revision)));
        self
    }

    /// Writes an entry.
    #[must_use]
    pub fn put(
        mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expires: UnixTime,
    ) -> Self {
        self.writes.push(Write::Put {
            table,
            key: key.into(),
            value: value.into(),
            expires,
        });
        self
    }

    /// Removes an entry.
    #[must_use]
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Delete {
            table,
            key: key.into(),
        });
        self
    }
}

/// How a transaction ended, if the store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It has happened, and a crash does not undo it.
    Committed,
    /// A check failed: nothing has happened. Read again, decide again.
    Conflict,
}

/// Tables of entries that survive a crash. Calls may block, for seconds at most; several may run at once.
///
/// A store that somebody else keeps may be away for a while. Then calls fail soon, with
/// [`crate::Error::Unavailable`], and work again by themselves.
pub trait Store: Send + Sync + 'static {
    /// The entry under a key, after every transaction that was [`Outcome::Committed`] before, by whomever.
    ///
    /// # Errors
    /// [`crate::Error::Store`] or [`crate::Error::Unavailable`] if the store does not work.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Entry>>;

    /// Does a transaction. Once this returns [`Outcome::Committed`] it is durable.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`]: it has not happened. [`crate::Error::Unknown`] and
    /// [`crate::Error::Store`]: it is not known whether it has, or will yet.
    fn commit(&self, transaction: Transaction) -> Result<Outcome>;

    /// Up to `most` entries whose keys begin with `prefix`, in order, from the first key
    /// behind `after`.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>>;

    /// About how many entries a table holds, those that have ended included: those that others wrote since
    /// the last [`Store::expire`] may be missing. It does not wait for anything.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn count(&self, table: Table) -> Result<u64>;

    /// Removes up to `most` entries, or groups of entries, that have ended by `now`, and says how many. To be
    /// called every few seconds.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn expire(&self, now: UnixTime, most: usize) -> Result<usize>;

    /// Why nothing can be written any more until the store is opened anew; `None` as long as
    /// it can.
    fn failure(&self) -> Option<String> {
        None
    }
}
