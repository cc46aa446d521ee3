//! The embedded store: one file, one process.
//!
//! Reads run where they are called. All writes go through one thread (`writer`); how entries
//! look in the file is in `format`.

mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixline_protocol::time::UnixTime;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use self::format::{CONDITION, ENDS, META, broken, definition, entry};
use self::writer::{Writer, begin};
use super::{Condition, Entry, Movable, Outcome, Store, Table, Transaction};
use crate::{Error, Result};

/// Bytes of the database's cache.
const CACHE: usize = 32 << 20;

/// A store in a `redb` file. Dropping it waits for the writes under way.
pub struct RedbStore {
    database: Arc<Database>,
    writer: Writer,
    /// Where the file is, if there is one.
    path: PathBuf,
}

impl RedbStore {
    /// Opens the file, or makes it. The file stays locked until the store is dropped.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it open, [`Error::State`] if it cannot be
    /// opened, [`Error::Store`] if it can and does not work, [`Error::Condition`] if its records are
    /// elsewhere or on their way.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Self::open_to_move(path)?;
        store.condition()?.usable(&store.place())?;
        Ok(store)
    }

    /// The same in whichever condition the store is, for moving records.
    ///
    /// # Errors
    /// As [`RedbStore::open`], without [`Error::Condition`].
    pub fn open_to_move(path: &Path) -> Result<Self> {
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
        Self::with(database, path)
    }

    /// A store that forgets everything when it is dropped, for trials.
    ///
    /// # Errors
    /// [`Error::Store`].
    #[cfg(test)]
    pub fn in_memory() -> Result<Self> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder()
            .create_with_backend(backend)
            .map_err(broken)?;
        Self::with(database, Path::new("memory"))
    }

    fn with(database: Database, path: &Path) -> Result<Self> {
        let first = begin(&database)?;
        for table in Table::ALL {
            first.open_table(definition(table)).map_err(broken)?;
        }
        first.open_table(ENDS).map_err(broken)?;
        first.open_table(META).map_err(broken)?;
        first.commit().map_err(broken)?;
        let database = Arc::new(database);
        let writer = Writer::start(Arc::clone(&database))?;
        Ok(Self {
            database,
            writer,
            path: path.to_owned(),
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
        self.writer.commit(transaction)
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
        self.writer.expire(now, most)
    }

    fn failure(&self) -> Option<String> {
        self.writer.failure()
    }
}

impl Movable for RedbStore {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn condition(&self) -> Result<Condition> {
        let read = self.database.begin_read().map_err(broken)?;
        let meta = read.open_table(META).map_err(broken)?;
        let code = meta.get(CONDITION).map_err(broken)?;
        let code = code.map_or(Condition::Ready.code(), |code| code.value());
        Condition::of_code(code).ok_or_else(|| Error::Store("damaged condition".into()))
    }

    fn set_condition(&self, condition: Condition) -> Result<()> {
        let write = begin(&self.database)?;
        let mut meta = write.open_table(META).map_err(broken)?;
        meta.insert(CONDITION, condition.code()).map_err(broken)?;
        drop(meta);
        write.commit().map_err(broken)
    }
}
