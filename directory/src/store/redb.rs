//! The embedded store: one file, one process.
//!
//! All writes go through one thread, which puts whatever waits into one commit of the
//! database and answers when that is on disk. So an acknowledged write survives a
//! crash, and a crowd of writers shares the cost of waiting for the disk. After a write that
//! fails (a full disk) the database takes no other until it is opened anew.
//!
//! An entry is stored as `revision 8 | expires 8 | value`. A table of ends, keyed by
//! `expires 8 | table 1 | key`, finds what is over.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use mixline_protocol::time::UnixTime;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use super::{Entry, Outcome, Store, Table, Transaction, Write};
use crate::{Error, Result};

/// Writers that may wait for the next commit.
const QUEUE: usize = 1024;
/// Transactions in one commit of the database, at most.
const GROUP: usize = 256;
/// Bytes of the database's cache.
const CACHE: usize = 32 << 20;

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

const ENDS: Bytes = TableDefinition::new("ends");
/// One entry, the last revision.
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

fn definition(table: Table) -> Bytes {
    TableDefinition::new(match table {
        Table::Relays => "relays",
        Table::ShortIds => "short_ids",
        Table::Services => "services",
        Table::Addresses => "addresses",
        Table::Names => "names",
        Table::NamesOf => "names_of",
        Table::Leases => "leases",
        Table::LeaseOf => "lease_of",
    })
}

enum Job {
    Commit(Transaction, mpsc::SyncSender<Result<Outcome>>),
    Expire(UnixTime, usize, mpsc::SyncSender<Result<usize>>),
}

/// A store in a `redb` file. Dropping it waits for the writes under way.
pub struct RedbStore {
    database: Arc<Database>,
    failure: Arc<OnceLock<String>>,
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the file, or makes it. The file stays locked until the store is dropped.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it open, [`Error::State`] if it cannot be
    /// opened, [`Error::Store`] if it can and does not work.
    pub fn open(path: &Path) -> Result<Self> {
        let state = |reason: String| Error::State {
            path: path.to_owned(),
            reason,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| state(e.to_string()))?;
        // Locks the file.
        let opened = FileBackend::new(file).and_then(|file| {
            Database::builder()
                .set_cache_size(CACHE)
                .create_with_backend(file)
        });
        let database = opened.map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => Error::InUse {
                path: path.to_owned(),
            },
            DatabaseError::Storage(redb::StorageError::Io(e)) => state(e.to_string()),
            other => state(format!("not a usable database: {other}")),
        })?;
        Self::with(database)
    }

    /// A store that forgets everything when it is dropped, for trials.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn in_memory() -> Result<Self> {
        let backend = InMemoryBackend::new();
        Self::with(
            Database::builder()
                .create_with_backend(backend)
                .map_err(broken)?,
        )
    }

    fn with(database: Database) -> Result<Self> {
        let first = begin(&database)?;
        for table in Table::ALL {
            first.open_table(definition(table)).map_err(broken)?;
        }
        first.open_table(ENDS).map_err(broken)?;
        first.open_table(META).map_err(broken)?;
        first.commit().map_err(broken)?;
        let database = Arc::new(database);
        let (jobs, waiting) = mpsc::sync_channel(QUEUE);
        let failure = Arc::new(OnceLock::new());
        let shared = (database.clone(), failure.clone());
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(&shared.0, &waiting, &shared.1))
            .map_err(broken)?;
        Ok(Self {
            database,
            failure,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// Without writing anything.
    fn is_something_over(&self, now: UnixTime) -> Result<bool> {
        let read = self.database.begin_read().map_err(broken)?;
        let ends = read.open_table(ENDS).map_err(broken)?;
        let first = ends.first().map_err(broken)?;
        let over = |key: &[u8]| {
            key.first_chunk()
                .is_none_or(|e| u64::from_be_bytes(*e) <= now.0)
        };
        Ok(first.is_some_and(|(key, _)| over(key.value())))
    }

    fn ask<T>(&self, job: impl FnOnce(mpsc::SyncSender<Result<T>>) -> Job) -> Result<T> {
        let stopped = || Error::Store("the writing thread has stopped".into());
        let (reply, answer) = mpsc::sync_channel(1);
        self.jobs
            .as_ref()
            .ok_or_else(stopped)?
            .send(job(reply))
            .map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered nobody: nothing is lost that was promised.
            let _ = writer.join();
        }
    }
}

impl Store for RedbStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Entry>> {
        let read = self.database.begin_read().map_err(broken)?;
        let entries = read.open_table(definition(table)).map_err(broken)?;
        entries
            .get(key)
            .map_err(broken)?
            .map(|found| entry(found.value()))
            .transpose()
    }

    fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        self.ask(|reply| Job::Commit(transaction, reply))
    }

    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let read = self.database.begin_read().map_err(broken)?;
        let entries = read.open_table(definition(table)).map_err(broken)?;
        let start = match after {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        let mut found = Vec::new();
        for item in entries
            .range::<&[u8]>((start, Unbounded))
            .map_err(broken)?
            .take(most)
        {
            let (key, value) = item.map_err(broken)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), entry(value.value())?));
        }
        Ok(found)
    }

    fn count(&self, table: Table) -> Result<u64> {
        let read = self.database.begin_read().map_err(broken)?;
        read.open_table(definition(table))
            .map_err(broken)?
            .len()
            .map_err(broken)
    }

    fn expire(&self, now: UnixTime, most: usize) -> Result<usize> {
        if !self.is_something_over(now)? {
            return Ok(0);
        }
        self.ask(|reply| Job::Expire(now, most, reply))
    }

    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

/// The writing thread: until the store is dropped, one commit after another.
fn write_all(database: &Database, waiting: &mpsc::Receiver<Job>, failure: &OnceLock<String>) {
    while let Ok(first) = waiting.recv() {
        let group: Vec<Job> = std::iter::once(first)
            .chain(waiting.try_iter().take(GROUP - 1))
            .collect();
        match write_group(database, &group) {
            Ok(answers) => {
                for (job, answer) in group.iter().zip(answers) {
                    // Who asked may be gone; what was asked has happened all the same.
                    match (job, answer) {
                        (Job::Commit(_, reply), Answer::Commit(outcome)) => {
                            let _ = reply.send(Ok(outcome));
                        }
                        (Job::Expire(_, _, reply), Answer::Expire(count)) => {
                            let _ = reply.send(Ok(count));
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                let _ = failure.set(text.clone());
                for job in group {
                    let error = Error::Store(text.clone());
                    match job {
                        Job::Commit(_, reply) => drop(reply.send(Err(error))),
                        Job::Expire(_, _, reply) => drop(reply.send(Err(error))),
                    }
                }
            }
        }
    }
}

enum Answer {
    Commit(Outcome),
    Expire(usize),
}

fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut write = database.begin_write().map_err(broken)?;
    write
        .set_durability(redb::Durability::Immediate)
        .map_err(broken)?;
    // Two-phase commits: outsiders choose some of the bytes, and might aim at a checksum.
    // And opening after a crash does not have to read everything.
    write.set_quick_repair(true);
    Ok(write)
}

/// One commit for all. On an error none of it has happened.
fn write_group(database: &Database, group: &[Job]) -> Result<Vec<Answer>> {
    let write = begin(database)?;
    let mut answers = Vec::with_capacity(group.len());
    for job in group {
        answers.push(match job {
            Job::Commit(transaction, _) => Answer::Commit(apply(&write, transaction)?),
            Job::Expire(now, most, _) => Answer::Expire(expire(&write, *now, *most)?),
        });
    }
    write.commit().map_err(broken)?;
    Ok(answers)
}

fn apply(write: &WriteTransaction, transaction: &Transaction) -> Result<Outcome> {
    for (table, key, expected) in &transaction.checks {
        let entries = write.open_table(definition(*table)).map_err(broken)?;
        let found = entries.get(key.as_slice()).map_err(broken)?;
        let revision = found
            .map(|found| entry(found.value()))
            .transpose()?
            .map(|e| e.revision);
        if revision != *expected {
            return Ok(Outcome::Conflict);
        }
    }
    let revision = {
        let mut meta = write.open_table(META).map_err(broken)?;
        let last = meta
            .get(REVISION)
            .map_err(broken)?
            .map_or(0, |value| value.value());
        meta.insert(REVISION, last + 1).map_err(broken)?;
        last + 1
    };
    let mut ends = write.open_table(ENDS).map_err(broken)?;
    for change in &transaction.writes {
        let (table, key, new) = match change {
            Write::Put {
                table,
                key,
                value,
                expires,
            } => (*table, key, Some((value, *expires))),
            Write::Delete { table, key } => (*table, key, None),
        };
        let mut entries = write.open_table(definition(table)).map_err(broken)?;
        let old = match new {
            Some((value, expires)) => {
                let bytes = [
                    &revision.to_be_bytes(),
                    &expires.0.to_be_bytes(),
                    value.as_slice(),
                ]
                .concat();
                ends.insert(end_key(expires, table, key).as_slice(), [].as_slice())
                    .map_err(broken)?;
                let old = entries
                    .insert(key.as_slice(), bytes.as_slice())
                    .map_err(broken)?;
                old.map(|old| entry(old.value())).transpose()?
            }
            None => {
                let old = entries.remove(key.as_slice()).map_err(broken)?;
                old.map(|old| entry(old.value())).transpose()?
            }
        };
        if let Some(old) = old
            && new.is_none_or(|(_, expires)| expires != old.expires)
        {
            ends.remove(end_key(old.expires, table, key).as_slice())
                .map_err(broken)?;
        }
    }
    Ok(Outcome::Committed)
}

fn expire(write: &WriteTransaction, now: UnixTime, most: usize) -> Result<usize> {
    let mut ends = write.open_table(ENDS).map_err(broken)?;
    let mut over = Vec::new();
    for item in ends.iter().map_err(broken)?.take(most) {
        let (key, _) = item.map_err(broken)?;
        let bytes = key.value();
        let Some((end, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(Error::Store("damaged table of ends".into()));
        };
        if u64::from_be_bytes(*end) > now.0 {
            break;
        }
        let (table, key) = match rest {
            [number, key @ ..] => (Table::ALL.into_iter().find(|t| *t as u8 == *number), key),
            [] => (None, rest),
        };
        over.push((bytes.to_vec(), table, key.to_vec()));
    }
    for (end, table, key) in &over {
        if let Some(table) = table {
            let mut entries = write.open_table(definition(*table)).map_err(broken)?;
            entries.remove(key.as_slice()).map_err(broken)?;
        }
        ends.remove(end.as_slice()).map_err(broken)?;
    }
    Ok(over.len())
}

fn end_key(expires: UnixTime, table: Table, key: &[u8]) -> Vec<u8> {
    [&expires.0.to_be_bytes(), [table as u8].as_slice(), key].concat()
}

fn entry(bytes: &[u8]) -> Result<Entry> {
    let damaged = || Error::Store("damaged entry".into());
    let (revision, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (expires, value) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    Ok(Entry {
        value: value.to_vec(),
        revision: u64::from_be_bytes(*revision),
        expires: UnixTime(u64::from_be_bytes(*expires)),
    })
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> RedbStore {
        RedbStore::in_memory().unwrap()
    }

    fn put(key: &str, value: &str, expires: u64) -> Transaction {
        Transaction::new().put(Table::Names, key, value, UnixTime(expires))
    }

    #[test]
    fn compare_and_set() {
        let store = store();
        let create = |value| put("k", value, 9).check(Table::Names, "k", None);
        assert_eq!(store.commit(create("a")).unwrap(), Outcome::Committed);
        assert_eq!(store.commit(create("b")).unwrap(), Outcome::Conflict);
        let seen = store.get(Table::Names, b"k").unwrap().unwrap();
        assert_eq!(
            (seen.value.as_slice(), seen.expires),
            (b"a".as_slice(), UnixTime(9))
        );
        let update = |value| put("k", value, 10).check(Table::Names, "k", Some(&seen));
        assert_eq!(store.commit(update("b")).unwrap(), Outcome::Committed);
        assert_eq!(store.commit(update("c")).unwrap(), Outcome::Conflict);
        assert_eq!(store.get(Table::Names, b"k").unwrap().unwrap().value, b"b");
        assert_eq!(store.get(Table::Leases, b"k").unwrap(), None);
    }

    #[test]
    fn a_failed_check_undoes_the_rest() {
        let store = store();
        let mut transaction = put("a", "1", 9).put(Table::Leases, "x", "1", UnixTime(9));
        transaction = transaction.check(Table::LeaseOf, "missing", None);
        assert_eq!(
            store.commit(transaction.clone()).unwrap(),
            Outcome::Committed
        );
        let there = store.get(Table::Names, b"a").unwrap().unwrap();
        let failing = put("b", "2", 9).check(Table::LeaseOf, "missing", Some(&there));
        assert_eq!(store.commit(failing).unwrap(), Outcome::Conflict);
        assert_eq!(store.get(Table::Names, b"b").unwrap(), None);
    }

    #[test]
    fn a_key_that_went_and_came_is_not_the_same() {
        let store = store();
        let _ = store.commit(put("k", "a", 9)).unwrap();
        let seen = store.get(Table::Names, b"k").unwrap().unwrap();
        let _ = store
            .commit(Transaction::new().delete(Table::Names, "k"))
            .unwrap();
        let _ = store.commit(put("k", "a", 9)).unwrap();
        let late = put("k", "b", 9).check(Table::Names, "k", Some(&seen));
        assert_eq!(store.commit(late).unwrap(), Outcome::Conflict);
    }

    #[test]
    fn entries_end_when_they_should() {
        let store = store();
        for (key, expires) in [("a", 5), ("b", 6), ("c", 7)] {
            let _ = store.commit(put(key, "", expires)).unwrap();
        }
        // Renewed: the first end is void.
        let _ = store.commit(put("a", "", 100)).unwrap();
        assert_eq!(store.expire(UnixTime(4), 10).unwrap(), 0);
        assert_eq!(store.expire(UnixTime(6), 10).unwrap(), 1);
        let keys = |store: &RedbStore| -> Vec<_> {
            store
                .list(Table::Names, b"", None, 10)
                .unwrap()
                .into_iter()
                .map(|(k, _)| k)
                .collect()
        };
        assert_eq!(keys(&store), [b"a", b"c"]);
        assert_eq!(store.expire(UnixTime(1000), 1).unwrap(), 1);
        assert_eq!(store.count(Table::Names).unwrap(), 1);
        assert_eq!(store.expire(UnixTime(1000), 10).unwrap(), 1);
        assert_eq!(store.expire(UnixTime(1000), 10).unwrap(), 0);
        assert_eq!(store.count(Table::Names).unwrap(), 0);
    }

    #[test]
    fn lists_by_prefix_in_pages() {
        let store = store();
        for key in ["a", "b1", "b2", "b3", "c"] {
            let _ = store.commit(put(key, key, 9)).unwrap();
        }
        let list = |after: Option<&[u8]>, most| -> Vec<String> {
            let found = store.list(Table::Names, b"b", after, most).unwrap();
            found
                .into_iter()
                .map(|(key, _)| String::from_utf8(key).unwrap())
                .collect()
        };
        assert_eq!(list(None, 10), ["b1", "b2", "b3"]);
        assert_eq!(list(None, 2), ["b1", "b2"]);
        assert_eq!(list(Some(b"b2"), 10), ["b3"]);
        assert_eq!(list(Some(b"a"), 1), ["b1"]);
    }

    #[test]
    fn one_of_many_wins() {
        let store = store();
        let winners: usize = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..16)
                .map(|n| {
                    let claim = put("k", &n.to_string(), 9).check(Table::Names, "k", None);
                    let store = &store;
                    scope.spawn(move || store.commit(claim).unwrap() == Outcome::Committed)
                })
                .collect();
            claims
                .into_iter()
                .map(|claim| usize::from(claim.join().unwrap()))
                .sum()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn one_file_one_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory.redb");
        let store = RedbStore::open(&path).unwrap();
        assert!(matches!(RedbStore::open(&path), Err(Error::InUse { .. })));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let _ = store.commit(put("k", "kept", 9)).unwrap();
        drop(store);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(
            store.get(Table::Names, b"k").unwrap().unwrap().value,
            b"kept"
        );
        std::fs::write(dir.path().join("noise"), b"not a database at all").unwrap();
        assert!(matches!(
            RedbStore::open(&dir.path().join("noise")),
            Err(Error::State { .. } | Error::Store(_))
        ));
    }
}
