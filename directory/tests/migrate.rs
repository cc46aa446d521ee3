//! Records move from a file to etcd and back, whole, whatever is interrupted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/etcd.rs"]
mod etcd;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use etcd::Etcd;
use mixline_directory::testing::{
    Condition, Entry, EtcdStore, Movable, Outcome, RedbStore, Store, Table, Transaction, cancel,
    migrate,
};
use mixline_directory::{Error, Result};
use mixline_protocol::time::UnixTime;

fn now() -> UnixTime {
    SystemTime::now().into()
}

/// So many entries in every table, and some that have ended; how many have not.
fn fill(store: &dyn Store, lasting: u32) -> u64 {
    for table in Table::ALL {
        let mut all = Transaction::new();
        for n in 0..lasting + 3 {
            let expires = if n < lasting {
                now().plus(3600 + u64::from(n) * 60)
            } else {
                now().minus(60)
            };
            let key = [&n.to_be_bytes()[..], &[0xff, table as u8]].concat();
            all = all.put(table, key, vec![n as u8; n as usize], expires);
        }
        assert_eq!(store.commit(all).unwrap(), Outcome::Committed);
    }
    u64::from(lasting) * Table::ALL.len() as u64
}

/// All that a store holds and that has not ended.
fn content(store: &dyn Store) -> Vec<(Table, Vec<u8>, Vec<u8>, UnixTime)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        for (key, entry) in store.list(table, &[], None, 1000).unwrap() {
            if entry.expires > now() {
                all.push((table, key, entry.value, entry.expires));
            }
        }
    }
    all
}

#[track_caller]
fn refused<T>(result: Result<T>, word: &str) {
    let error = result.err().expect("it was not refused");
    let text = error.to_string();
    assert!(text.contains(word), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn records_move_to_etcd_and_back() {
    let etcd = Etcd::start(3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.redb");
    let file = RedbStore::open(&path).unwrap();
    let entries = fill(&file, 257);
    let before = content(&file);
    let remote = EtcdStore::open(&etcd.config(0)).unwrap();
    // Two front ends, which may still run.
    let other = EtcdStore::open(&etcd.config(1)).unwrap();
    let told = Cell::new(0);
    let moved = migrate(&file, &remote, |_| told.set(told.get() + 1)).unwrap();
    assert_eq!(moved, entries);
    assert!(told.get() > 2 * Table::ALL.len());
    assert_eq!(content(&remote), before);
    assert_eq!(content(&other), before);
    drop(file);
    refused(RedbStore::open(&path), "moved to another store");
    let file = RedbStore::open_to_move(&path).unwrap();
    refused(migrate(&file, &remote, |_| ()), "moved already");
    // Something changes there, which the old copy lacks.
    let (table, key, ..) = &before[0];
    let change = Transaction::new().delete(*table, key.clone()).put(
        Table::Names,
        "new",
        "value",
        now().plus(600),
    );
    assert_eq!(other.commit(change).unwrap(), Outcome::Committed);
    let changed = content(&other);
    assert_ne!(changed, before);
    // A front end that was not stopped answers nothing more, and stores nothing, from the beginning on.
    let late = |word: &str| {
        refused(other.get(Table::Names, b"new"), word);
        let late = Transaction::new().put(Table::Names, "late", "", now().plus(600));
        refused(other.commit(late), word);
    };
    let moved = migrate(&remote, &file, |_| late("being moved to another store"));
    assert_eq!(moved.unwrap(), entries);
    assert_eq!(content(&file), changed);
    for _ in 0..2 {
        late("were moved to another store");
    }
    refused(EtcdStore::open(&etcd.config(0)), "moved to another store");
    drop(file);
    assert_eq!(content(&RedbStore::open(&path).unwrap()), changed);
}

#[test]
fn a_store_with_records_is_not_overwritten() {
    let etcd = Etcd::start(1);
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    let file = RedbStore::open(&from).unwrap();
    fill(&file, 2);
    let remote = EtcdStore::open(&etcd.config(0)).unwrap();
    let one = Transaction::new().put(Table::Leases, "k", "v", now().plus(600));
    assert_eq!(remote.commit(one).unwrap(), Outcome::Committed);
    refused(migrate(&file, &remote, |_| ()), "has records");
    assert_eq!(remote.condition().unwrap(), Condition::Ready);
    assert_eq!(file.condition().unwrap(), Condition::Ready);
    refused(cancel(&file), "not being moved");
    let target = RedbStore::open(&to).unwrap();
    target.set_condition(Condition::Moving).unwrap();
    refused(migrate(&file, &target, |_| ()), "being moved itself");
    target.set_condition(Condition::Filling).unwrap();
    refused(migrate(&target, &file, |_| ()), "being filled itself");
}

/// A store that takes so many more changes, and then fails.
struct Failing<S> {
    store: Arc<S>,
    left: Arc<AtomicUsize>,
}

impl<S: Movable> Failing<S> {
    fn change<T>(&self, change: impl FnOnce(&S) -> Result<T>) -> Result<T> {
        let fewer = |left: usize| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .map_err(|_| Error::Store("the power is gone".into()))?;
        change(&self.store)
    }
}

impl<S: Movable> Store for Failing<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Entry>> {
        self.store.get(table, key)
    }
    fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        self.change(|store| store.commit(transaction))
    }
    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        self.store.list(table, prefix, after, most)
    }
    fn count(&self, table: Table) -> Result<u64> {
        self.store.count(table)
    }
    fn expire(&self, now: UnixTime, most: usize) -> Result<usize> {
        self.store.expire(now, most)
    }
}

impl<S: Movable> Movable for Failing<S> {
    fn place(&self) -> String {
        self.store.place()
    }
    fn condition(&self) -> Result<Condition> {
        self.store.condition()
    }
    fn set_condition(&self, condition: Condition) -> Result<()> {
        self.change(|store| store.set_condition(condition))
    }
}

/// A move that is interrupted before each of its changes.
#[test]
fn an_interrupted_move_is_finished_or_given_up() {
    let dir = tempfile::tempdir().unwrap();
    for cancelled in [false, true] {
        for changes in 0.. {
            let open = |name: &str| {
                let path = dir.path().join(format!("{name}-{changes}-{cancelled}"));
                Arc::new(RedbStore::open_to_move(&path).unwrap())
            };
            let (from, to) = (open("from"), open("to"));
            let entries = fill(from.as_ref(), 3);
            let before = content(from.as_ref());
            let left = Arc::new(AtomicUsize::new(changes));
            let failing = |store: &Arc<RedbStore>| Failing {
                store: Arc::clone(store),
                left: Arc::clone(&left),
            };
            let done = migrate(&failing(&from), &failing(&to), |_| ());
            let is_usable = |store: &RedbStore| {
                store.condition().unwrap() == Condition::Ready && !content(store).is_empty()
            };
            assert!(
                !(is_usable(&from) && is_usable(&to)),
                "both, after {changes}"
            );
            if done.is_ok() {
                assert!(changes > Table::ALL.len());
                break;
            }
            assert!(!is_usable(&to), "half of it, after {changes}");
            if cancelled && from.condition().unwrap() == Condition::Moving {
                cancel(from.as_ref()).unwrap();
                assert!(is_usable(&from));
                // What happens meanwhile is moved later.
                let gone = Transaction::new().delete(before[0].0, before[0].1.clone());
                assert_eq!(from.commit(gone).unwrap(), Outcome::Committed);
                assert_eq!(
                    migrate(from.as_ref(), to.as_ref(), |_| ()).unwrap(),
                    entries - 1
                );
                assert_eq!(content(to.as_ref()), before[1..]);
            } else {
                assert_eq!(
                    migrate(from.as_ref(), to.as_ref(), |_| ()).unwrap(),
                    entries
                );
                assert_eq!(content(to.as_ref()), before);
            }
            assert!(!is_usable(&from) && is_usable(&to));
        }
    }
}
