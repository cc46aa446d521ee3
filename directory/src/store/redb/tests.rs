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
