//! The store that several front ends of one owner share: etcd, from 3.4 on.
//!
//! It is spoken to over plain HTTP, through the JSON gateway that every member has (`messages`), by
//! whichever member answers (`cluster`). Each read is linearizable and comes from etcd, so that no front
//! end answers what another has changed. Each transaction, and each read, is also a check that the store
//! is still in the condition in which it was opened (`keys`): when its records are moved away, nobody goes
//! on with it.
//!
//! What is the matter with etcd is known in one place (`health`) and looked at again every second, so
//! that callers are refused at once while nobody answers, and served again when somebody does. A
//! transaction without an answer is neither committed nor in conflict: [`crate::Error::Unknown`].

mod cluster;
mod config;
mod groups;
mod health;
mod keys;
mod messages;
mod runtime;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mixline_protocol::time::UnixTime;

pub use self::config::EtcdConfig;

use self::runtime::Requests;
use self::shared::Shared;
use super::{Condition, Entry, Movable, Outcome, Store, Table, Transaction, Write};
use crate::Result;

/// etcd takes so many operations in one transaction, if nobody has said otherwise (`--max-txn-ops`).
pub(super) const MOST_WRITES: usize = 100;

/// What is done every few seconds takes about so long at most.
const SOON: Duration = Duration::from_secs(4);

/// A store in etcd.
pub struct EtcdStore {
    shared: Arc<Shared>,
    requests: Requests,
    counts: Counts,
}

impl EtcdStore {
    /// Opens the store of a directory, or makes it.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] if etcd does not answer, [`crate::Error::Condition`] if the store's records are
    /// elsewhere or on their way.
    pub fn open(config: &EtcdConfig) -> Result<Self> {
        let store = Self::open_to_move(config)?;
        store.condition()?.usable(&store.place())?;
        Ok(store)
    }

    /// The same in whichever condition the store is, for moving records.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] if etcd does not answer.
    pub fn open_to_move(config: &EtcdConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(config)?);
        let requests = Requests::start()?;
        let opening = Arc::clone(&shared);
        requests.wait(async move { opening.open().await })?;
        let store = Self {
            shared,
            requests,
            counts: Counts::default(),
        };
        store.count_anew()?;
        store.shared.health.opened();
        let watching = Arc::clone(&store.shared);
        store.requests.spawn(async move { watching.watch().await });
        Ok(store)
    }

    /// Counts what the tables hold, as far as that is soon done; whether it was.
    fn count_anew(&self) -> Result<bool> {
        let began = Instant::now();
        for table in Table::ALL {
            if began.elapsed() > SOON {
                return Ok(false);
            }
            let shared = Arc::clone(&self.shared);
            let count = self
                .requests
                .wait(async move { shared.count(table).await })?;
            self.counts.set(table, count);
        }
        Ok(true)
    }
}

impl Store for EtcdStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Entry>> {
        let (shared, key) = (Arc::clone(&self.shared), key.to_vec());
        let found = self
            .requests
            .wait(async move { shared.get(table, &key).await })?;
        Ok(found.map(|(_, entry)| entry))
    }

    fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        let new = new_entries(&transaction);
        let shared = Arc::clone(&self.shared);
        let outcome = self
            .requests
            .wait(async move { shared.commit(&transaction).await })?;
        if outcome == Outcome::Committed {
            for table in new {
                self.counts.add(table);
            }
        }
        Ok(outcome)
    }

    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        if most == 0 {
            // Zero is no limit to etcd.
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        self.requests
            .wait(async move { shared.list(table, &prefix, after.as_deref(), most).await })
    }

    fn count(&self, table: Table) -> Result<u64> {
        self.shared.health.can_read()?;
        Ok(self.counts.get(table))
    }

    fn expire(&self, now: UnixTime, most: usize) -> Result<usize> {
        if !self.count_anew()? {
            // etcd is busy; what has ended is so without being removed.
            return Ok(0);
        }
        let shared = Arc::clone(&self.shared);
        self.requests
            .wait(async move { shared.expire(now, most).await })
    }
}

impl Movable for EtcdStore {
    fn place(&self) -> String {
        self.shared.place()
    }

    fn condition(&self) -> Result<Condition> {
        let shared = Arc::clone(&self.shared);
        self.requests.wait(async move { shared.condition().await })
    }

    fn set_condition(&self, condition: Condition) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.requests
            .wait(async move { shared.set_condition(condition).await })
    }
}

/// The tables in which a transaction makes an entry where there was none.
fn new_entries(transaction: &Transaction) -> Vec<Table> {
    let absent = |table: &Table, key: &[u8]| {
        let mut checks = transaction.checks.iter();
        checks.any(|(checked, under, seen)| checked == table && under == key && seen.is_none())
    };
    let puts = transaction.writes.iter().filter_map(|write| match write {
        Write::Put { table, key, .. } => Some((table, key)),
        Write::Delete { .. } => None,
    });
    puts.filter(|(table, key)| absent(table, key))
        .map(|(table, _)| *table)
        .collect()
}

/// How many entries there are, as far as this front end knows.
#[derive(Debug, Default)]
struct Counts([AtomicU64; Table::ALL.len()]);

impl Counts {
    fn of(&self, table: Table) -> Option<&AtomicU64> {
        let place = Table::ALL.iter().position(|it| *it == table)?;
        self.0.get(place)
    }

    fn get(&self, table: Table) -> u64 {
        let count = self.of(table);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn set(&self, table: Table, to: u64) {
        if let Some(count) = self.of(table) {
            count.store(to, Ordering::Relaxed);
        }
    }

    fn add(&self, table: Table) {
        if let Some(count) = self.of(table) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_counted() {
        let entry = Entry {
            value: vec![],
            revision: 1,
            expires: UnixTime(1),
        };
        let transaction = Transaction::new()
            .check(Table::Names, "new", None)
            .check(Table::Names, "old", Some(&entry))
            .put(Table::Names, "new", [], UnixTime(1))
            .put(Table::Names, "old", [], UnixTime(1))
            .delete(Table::Leases, "gone");
        assert_eq!(new_entries(&transaction), [Table::Names]);
    }
}
