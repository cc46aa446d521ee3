//! Where etcd has tables and entries.
//!
//! An entry is under `PREFIX TABLE / KEY`, with the value `expires 8 | value`; its revision is the key's
//! `mod_revision`. Under `PREFIX meta` is the store's format and its condition.

use mixline_protocol::time::UnixTime;

use super::messages::KeyValue;
use crate::store::{Condition, Entry, Table};
use crate::{Error, Result};

/// The version of this format.
const FORMAT: &str = "1";

/// The part of etcd's keys that is a directory's.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Under which the store's condition is.
    pub(super) fn meta(&self) -> Vec<u8> {
        format!("{}meta", self.prefix).into_bytes()
    }

    /// Under which an entry is.
    pub(super) fn entry(&self, table: Table, key: &[u8]) -> Vec<u8> {
        let mut found = format!("{}{}/", self.prefix, table.name()).into_bytes();
        found.extend_from_slice(key);
        found
    }

    /// The first key behind all of a table's entries whose keys begin with `prefix`.
    pub(super) fn end(&self, table: Table, prefix: &[u8]) -> Vec<u8> {
        let mut end = self.entry(table, prefix);
        // A byte of 0xff has none behind it; the slash before the key has one.
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        end
    }

    /// A table's key and entry out of what etcd has.
    pub(super) fn read(&self, table: Table, found: KeyValue) -> Result<(Vec<u8>, Entry)> {
        let damaged = || Error::Store("damaged entry in etcd".into());
        let before = self.entry(table, &[]);
        let key = found.key.strip_prefix(before.as_slice());
        let key = key.ok_or_else(damaged)?.to_vec();
        let (expires, value) = found.value.split_first_chunk::<8>().ok_or_else(damaged)?;
        let entry = Entry {
            value: value.to_vec(),
            revision: found.mod_revision,
            expires: UnixTime(u64::from_be_bytes(*expires)),
        };
        Ok((key, entry))
    }
}

/// As an entry's value is stored.
pub(super) fn value(value: &[u8], expires: UnixTime) -> Vec<u8> {
    [&expires.0.to_be_bytes(), value].concat()
}

/// As a condition is stored.
pub(super) fn meta_value(condition: Condition) -> Vec<u8> {
    format!("{FORMAT} {}", condition.word()).into_bytes()
}

/// The condition that is stored so.
pub(super) fn condition(value: &[u8]) -> Result<Condition> {
    let text = std::str::from_utf8(value).ok();
    let read = text.and_then(|text| text.split_once(' '));
    read.filter(|(format, _)| *format == FORMAT)
        .and_then(|(_, word)| Condition::of_word(word))
        .ok_or_else(|| {
            Error::Store("etcd holds records in a form that this version does not know".into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_prefix_are_between_its_ends() {
        let keys = Keys::new("mixline/");
        assert_eq!(keys.entry(Table::Names, b"a"), b"mixline/names/a");
        assert_eq!(keys.end(Table::Names, b"a"), b"mixline/names/b");
        assert_eq!(keys.end(Table::Names, b""), b"mixline/names0");
        assert_eq!(keys.end(Table::Names, b"a\xff\xff"), b"mixline/names/b");
        assert_eq!(keys.end(Table::Names, b"\xff"), b"mixline/names0");
        // A table whose name goes on after that of another.
        assert!(keys.end(Table::Names, b"") < keys.entry(Table::NamesOf, b""));
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let keys = Keys::new("p/");
        let found = |value: Vec<u8>| KeyValue {
            key: keys.entry(Table::Leases, b"\0\x01"),
            value,
            mod_revision: 7,
        };
        let (key, entry) = keys
            .read(Table::Leases, found(value(b"v", UnixTime(9))))
            .unwrap();
        assert_eq!(key, b"\0\x01");
        assert_eq!((entry.value.as_slice(), entry.revision), (&b"v"[..], 7));
        assert_eq!(entry.expires, UnixTime(9));
        keys.read(Table::Leases, found(vec![0; 7])).unwrap_err();
        keys.read(Table::Names, found(vec![0; 8])).unwrap_err();
    }

    #[test]
    fn a_condition_of_another_format_is_refused() {
        let stored = meta_value(Condition::Moving);
        assert_eq!(condition(&stored).unwrap(), Condition::Moving);
        for odd in [&b"2 ready"[..], b"1 odd", b"1", b"", b"\xff"] {
            condition(odd).unwrap_err();
        }
    }
}
