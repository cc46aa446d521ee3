use super::*;

fn put(key: &str, value: &str, expires: u64) -> Transaction {
    Transaction::new().put(Table::Names, key, value, UnixTime(expires))
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

#[test]
fn a_store_on_its_way_to_another_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.redb");
    for condition in [Condition::Moving, Condition::Filling, Condition::Moved] {
        let store = RedbStore::open_to_move(&path).unwrap();
        store.set_condition(condition).unwrap();
        drop(store);
        let error = RedbStore::open(&path).err().unwrap();
        assert!(matches!(error, Error::Condition { .. }), "{error}");
        let store = RedbStore::open_to_move(&path).unwrap();
        assert_eq!(store.condition().unwrap(), condition);
        store.set_condition(Condition::Ready).unwrap();
        drop(store);
        drop(RedbStore::open(&path).unwrap());
    }
}
