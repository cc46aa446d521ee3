//! What holds for every store, in a file and in etcd.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/etcd.rs"]
mod etcd;

use std::sync::atomic::{AtomicUsize, Ordering};

use etcd::Etcd;
use mixline_directory::testing::{
    EtcdConfig, EtcdStore, LINGER, Outcome, RedbStore, Store, Table, Transaction,
};
use mixline_protocol::time::UnixTime;

/// Ends of entries; both stores take any.
const SOON: u64 = 1_800_000_000;

fn put(key: &str, value: &str, expires: u64) -> Transaction {
    Transaction::new().put(Table::Names, key, value, UnixTime(expires))
}

/// Runs what must hold on a fresh store of each kind.
struct Suite<'a> {
    open: &'a dyn Fn() -> Box<dyn Store>,
}

impl Suite<'_> {
    fn run(&self) {
        self.compare_and_set();
        self.a_failed_check_undoes_the_rest();
        self.a_key_that_went_and_came_is_not_the_same();
        self.entries_end_when_they_should();
        self.lists_by_prefix_in_pages();
        self.the_last_write_of_a_key_counts();
        self.one_of_many_wins();
        self.any_bytes_are_kept();
        self.what_is_there_is_counted();
    }

    fn compare_and_set(&self) {
        let store = (self.open)();
        let create = |value| put("k", value, SOON).check(Table::Names, "k", None);
        assert_eq!(store.commit(create("a")).unwrap(), Outcome::Committed);
        assert_eq!(store.commit(create("b")).unwrap(), Outcome::Conflict);
        let seen = store.get(Table::Names, b"k").unwrap().unwrap();
        assert_eq!(
            (seen.value.as_slice(), seen.expires),
            (b"a".as_slice(), UnixTime(SOON))
        );
        let update = |value| put("k", value, SOON + 1).check(Table::Names, "k", Some(&seen));
        assert_eq!(store.commit(update("b")).unwrap(), Outcome::Committed);
        assert_eq!(store.commit(update("c")).unwrap(), Outcome::Conflict);
        assert_eq!(store.get(Table::Names, b"k").unwrap().unwrap().value, b"b");
        assert_eq!(store.get(Table::Leases, b"k").unwrap(), None);
    }

    fn a_failed_check_undoes_the_rest(&self) {
        let store = (self.open)();
        let mut transaction = put("a", "1", SOON).put(Table::Leases, "x", "1", UnixTime(SOON));
        transaction = transaction.check(Table::LeaseOf, "missing", None);
        assert_eq!(store.commit(transaction).unwrap(), Outcome::Committed);
        let there = store.get(Table::Names, b"a").unwrap().unwrap();
        let failing = put("b", "2", SOON).check(Table::LeaseOf, "missing", Some(&there));
        assert_eq!(store.commit(failing).unwrap(), Outcome::Conflict);
        assert_eq!(store.get(Table::Names, b"b").unwrap(), None);
    }

    fn a_key_that_went_and_came_is_not_the_same(&self) {
        let store = (self.open)();
        let _ = store.commit(put("k", "a", SOON)).unwrap();
        let seen = store.get(Table::Names, b"k").unwrap().unwrap();
        let gone = Transaction::new().delete(Table::Names, "k");
        assert_eq!(store.commit(gone).unwrap(), Outcome::Committed);
        assert_eq!(store.get(Table::Names, b"k").unwrap(), None);
        let _ = store.commit(put("k", "a", SOON)).unwrap();
        let late = put("k", "b", SOON).check(Table::Names, "k", Some(&seen));
        assert_eq!(store.commit(late).unwrap(), Outcome::Conflict);
    }

    fn entries_end_when_they_should(&self) {
        let store = (self.open)();
        for (key, expires) in [("a", 0), ("b", 1), ("c", 3 * LINGER)] {
            let _ = store.commit(put(key, "", SOON + expires)).unwrap();
        }
        // Renewed: the first end is void.
        let _ = store.commit(put("a", "", SOON + 6 * LINGER)).unwrap();
        let keys = || -> Vec<_> {
            let found = store.list(Table::Names, b"", None, 10).unwrap();
            found.into_iter().map(|(key, _)| key).collect()
        };
        // Whether there was anything.
        let at = |time| store.expire(UnixTime(SOON + time), 10).unwrap() > 0;
        assert!(!at(0));
        assert_eq!(keys(), [b"a", b"b", b"c"]);
        assert!(at(1 + LINGER));
        assert_eq!(keys(), [b"a", b"c"]);
        assert!(!at(1 + LINGER));
        assert!(at(4 * LINGER));
        assert_eq!(keys(), [b"a"]);
        // A time that is long past what was there.
        assert!(at(1000 * LINGER));
        assert!(keys().is_empty());
        assert!(!at(1000 * LINGER));
        // What is to stay stays.
        let _ = store.commit(put("e", "", u64::MAX)).unwrap();
        let _ = store.expire(UnixTime(SOON + 2000 * LINGER), 10).unwrap();
        assert_eq!(keys(), [b"e"]);
        let gone = Transaction::new().delete(Table::Names, "e");
        assert_eq!(store.commit(gone).unwrap(), Outcome::Committed);
        // What comes later ends as well.
        let _ = store.commit(put("d", "", SOON)).unwrap();
        assert_eq!(keys(), [b"d"]);
    }

    fn lists_by_prefix_in_pages(&self) {
        let store = (self.open)();
        for key in ["a", "b1", "b2", "b3", "c"] {
            let _ = store.commit(put(key, key, SOON)).unwrap();
        }
        // Another table whose name begins like that of this one.
        let other = Transaction::new().put(Table::NamesOf, "b4", "", UnixTime(SOON));
        assert_eq!(store.commit(other).unwrap(), Outcome::Committed);
        let list = |prefix: &[u8], after: Option<&[u8]>, most| -> Vec<String> {
            let found = store.list(Table::Names, prefix, after, most).unwrap();
            let keys = found.into_iter().map(|(key, _)| String::from_utf8(key));
            keys.map(Result::unwrap).collect()
        };
        assert_eq!(list(b"b", None, 10), ["b1", "b2", "b3"]);
        assert_eq!(list(b"b", None, 2), ["b1", "b2"]);
        assert_eq!(list(b"b", None, 0), [""; 0]);
        assert_eq!(list(b"b", Some(b"b2"), 10), ["b3"]);
        assert_eq!(list(b"b", Some(b"a"), 1), ["b1"]);
        assert_eq!(list(b"b", Some(b"c"), 10), [""; 0]);
        assert_eq!(list(b"", None, 10), ["a", "b1", "b2", "b3", "c"]);
        assert_eq!(list(b"", Some(b"b3"), 10), ["c"]);
    }

    fn the_last_write_of_a_key_counts(&self) {
        let store = (self.open)();
        let twice = put("k", "a", SOON).put(Table::Names, "k", "b", UnixTime(SOON + 1));
        assert_eq!(store.commit(twice).unwrap(), Outcome::Committed);
        assert_eq!(store.get(Table::Names, b"k").unwrap().unwrap().value, b"b");
        let gone = put("k", "c", SOON).delete(Table::Names, "k");
        assert_eq!(store.commit(gone).unwrap(), Outcome::Committed);
        assert_eq!(store.get(Table::Names, b"k").unwrap(), None);
    }

    fn one_of_many_wins(&self) {
        let store = (self.open)();
        let winners: usize = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..16)
                .map(|n| {
                    let claim = put("k", &n.to_string(), SOON).check(Table::Names, "k", None);
                    let store = &store;
                    scope.spawn(move || store.commit(claim).unwrap() == Outcome::Committed)
                })
                .collect();
            let won = claims.into_iter().map(|claim| claim.join().unwrap());
            won.map(usize::from).sum()
        });
        assert_eq!(winners, 1);
    }

    fn any_bytes_are_kept(&self) {
        let store = (self.open)();
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for key in [&[0][..], &[0xff, 0xff], &all] {
            let value = Transaction::new().put(Table::Leases, key, all.clone(), UnixTime(SOON));
            assert_eq!(store.commit(value).unwrap(), Outcome::Committed);
            assert_eq!(store.get(Table::Leases, key).unwrap().unwrap().value, all);
        }
        let found = store.list(Table::Leases, &[0xff], None, 10).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, [0xff, 0xff]);
    }

    fn what_is_there_is_counted(&self) {
        let store = (self.open)();
        for key in ["a", "b"] {
            let new = put(key, "", SOON).check(Table::Names, key, None);
            assert_eq!(store.commit(new).unwrap(), Outcome::Committed);
        }
        assert_eq!(store.count(Table::Names).unwrap(), 2);
        let _ = store.expire(UnixTime(SOON + LINGER), 10).unwrap();
        let _ = store.expire(UnixTime(SOON + LINGER), 10).unwrap();
        assert_eq!(store.count(Table::Names).unwrap(), 0);
        assert_eq!(store.count(Table::Leases).unwrap(), 0);
    }
}

#[test]
fn a_file_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    let open = || -> Box<dyn Store> {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Box::new(RedbStore::open(&dir.path().join(number.to_string())).unwrap())
    };
    Suite { open: &open }.run();
}

#[test]
fn etcd_is_a_store() {
    let etcd = Etcd::start(3);
    let made = AtomicUsize::new(0);
    let open = || -> Box<dyn Store> {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let config = EtcdConfig {
            prefix: format!("test{number}/"),
            ..etcd.config(number)
        };
        Box::new(EtcdStore::open(&config).unwrap())
    };
    Suite { open: &open }.run();
}
