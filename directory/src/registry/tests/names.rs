//! Names: first come, first served, and kept for their holders.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::registry::names::{NAME_GRACE, NAMES_PER_ID};

#[test]
fn a_name_is_the_first_claimants() {
    let registry = registry();
    let first = name(1, "freespeech", NOW);
    registry.claim_name(&first, NOW).unwrap();
    let second = registry.claim_name(&name(2, "freespeech", NOW.plus(1)), NOW.plus(1));
    refused(
        second,
        RefusalCode::Taken,
        "freespeech.anon belongs to another ID",
    );
    assert_eq!(registry.lookup_name(&first.label, NOW), Ok(Some(first)));
    assert_eq!(registry.name_of(&first.id, NOW), Ok(Some(first)));
    registry.claim_name(&first, NOW).unwrap();
    let renewed = name(1, "freespeech", NOW.plus(50));
    registry.claim_name(&renewed, NOW.plus(50)).unwrap();
    refused(
        registry.claim_name(&first, NOW.plus(50)),
        RefusalCode::Older,
        "newer",
    );
}

#[test]
fn a_name_that_was_not_renewed_waits_for_its_owner() {
    let registry = registry();
    let first = name(1, "freespeech", NOW);
    registry.claim_name(&first, NOW).unwrap();
    let after = first.expires;
    // It does not resolve, and nobody else gets it, for a while.
    assert_eq!(registry.lookup_name(&first.label, after), Ok(None));
    assert_eq!(registry.name_of(&first.id, after), Ok(None));
    let other = |at| registry.claim_name(&name(2, "freespeech", at), at);
    refused(other(after), RefusalCode::Taken, "another");
    assert_eq!(registry.sweep(after.plus(NAME_GRACE - 1)).unwrap(), 0);
    registry
        .claim_name(&name(1, "freespeech", after), after)
        .unwrap();
    let end = after.plus(86_400 + NAME_GRACE);
    refused(other(end.minus(1)), RefusalCode::Taken, "another");
    // Then it is free, swept or not, and the first one's no more.
    other(end).unwrap();
    let id = first.id;
    assert_eq!(registry.name_of(&id, end), Ok(None));
    assert_eq!(registry.names_left(&id), 0);
    // Nothing but what says that the first one once got a name.
    assert_eq!(registry.sweep(end).unwrap(), 1);
}

#[test]
fn an_id_holds_so_many_names() {
    let registry = registry();
    for n in 0..NAMES_PER_ID {
        registry
            .claim_name(&name(1, &format!("name{n}"), NOW), NOW)
            .unwrap();
    }
    let more = registry.claim_name(&name(1, "more", NOW), NOW);
    refused(more, RefusalCode::Full, "16 names");
    registry
        .claim_name(&name(1, "name3", NOW.plus(1)), NOW.plus(1))
        .unwrap();
    registry.claim_name(&name(2, "more", NOW), NOW).unwrap();
    assert_eq!(
        registry
            .name_of(&name(1, "x", NOW).id, NOW)
            .unwrap()
            .unwrap()
            .label
            .as_str(),
        "name0"
    );
}

/// A store in which two who list the names of an ID meet once, before either goes on.
struct Meeting {
    store: RedbStore,
    place: Barrier,
    open: AtomicBool,
}

impl Store for Arc<Meeting> {
    fn get(&self, table: Table, key: &[u8]) -> crate::Result<Option<Entry>> {
        self.store.get(table, key)
    }
    fn commit(&self, transaction: Transaction) -> crate::Result<Outcome> {
        self.open.store(false, Ordering::SeqCst);
        self.store.commit(transaction)
    }
    fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> crate::Result<Vec<(Vec<u8>, Entry)>> {
        let found = self.store.list(table, prefix, after, most);
        if table == Table::NamesOf && self.open.load(Ordering::SeqCst) {
            self.place.wait();
        }
        found
    }
    fn count(&self, table: Table) -> crate::Result<u64> {
        self.store.count(table)
    }
    fn expire(&self, now: UnixTime, most: usize) -> crate::Result<usize> {
        self.store.expire(now, most)
    }
}

#[test]
fn an_id_holds_so_many_names_also_by_claims_at_once() {
    let store = Arc::new(Meeting {
        store: RedbStore::in_memory().unwrap(),
        place: Barrier::new(2),
        open: AtomicBool::new(false),
    });
    // Two front ends of one owner.
    let registries = [(); 2].map(|()| open(Box::new(Arc::clone(&store)), Limits::default()));
    for n in 1..NAMES_PER_ID {
        let record = name(1, &format!("name{n}"), NOW);
        registries[0].claim_name(&record, NOW).unwrap();
    }
    store.open.store(true, Ordering::SeqCst);
    let granted = std::thread::scope(|scope| {
        let claims = [(&registries[0], "one"), (&registries[1], "two")]
            .map(|(registry, label)| {
                scope.spawn(move || registry.claim_name(&name(1, label, NOW), NOW))
            })
            .map(|claim| claim.join().unwrap());
        claims.iter().filter(|claim| claim.is_ok()).count()
    });
    assert_eq!(granted, 1);
    let id = name(1, "one", NOW).id;
    assert_eq!(registries[1].names_left(&id), NAMES_PER_ID);
}

#[test]
fn many_claim_one_name_and_one_gets_it() {
    let registry = registry();
    let granted: Vec<_> = std::thread::scope(|scope| {
        let claims: Vec<_> = (1..=12)
            .map(|n| {
                let registry = &registry;
                scope.spawn(move || registry.claim_name(&name(n, "prize", NOW), NOW).is_ok())
            })
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .collect()
    });
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
    let holder = registry
        .lookup_name(&Label::new("prize").unwrap(), NOW)
        .unwrap()
        .unwrap();
    let winner = granted.iter().position(|granted| *granted).unwrap() as u8 + 1;
    assert_eq!(holder.id, name(winner, "prize", NOW).id);
}

impl Registry {
    /// How many names the store has under an ID.
    fn names_left(&self, id: &AnonymousId) -> usize {
        self.store
            .list(Table::NamesOf, &id.0, None, 100)
            .unwrap()
            .len()
    }
}
