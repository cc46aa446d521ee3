//! Tables and entries as the database holds them.
//!
//! An entry is stored as `revision 8 | expires 8 | value`. A table of ends, keyed by
//! `expires 8 | table 1 | key`, finds what is over.

use mixline_protocol::time::UnixTime;
use redb::TableDefinition;

use crate::store::{Entry, Table};
use crate::{Error, Result};

pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const ENDS: Bytes = TableDefinition::new("ends");
/// The last revision, and the store's condition.
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
pub(super) const REVISION: &str = "revision";
pub(super) const CONDITION: &str = "condition";

pub(super) fn definition(table: Table) -> Bytes {
    TableDefinition::new(table.name())
}

pub(super) fn end_key(expires: UnixTime, table: Table, key: &[u8]) -> Vec<u8> {
    [&expires.0.to_be_bytes(), [table as u8].as_slice(), key].concat()
}

pub(super) fn entry(bytes: &[u8]) -> Result<Entry> {
    let damaged = || Error::Store("damaged entry".into());
    let (revision, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (expires, value) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    Ok(Entry {
        value: value.to_vec(),
        revision: u64::from_be_bytes(*revision),
        expires: UnixTime(u64::from_be_bytes(*expires)),
    })
}

pub(super) fn broken(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}
