//! Opening the store that the configuration names.

use std::path::Path;

use super::{Condition, EtcdConfig, EtcdStore, Movable, RedbStore, Store, Table};
use crate::{Error, Result};

/// Opens the store of a directory: that in etcd if there is one, or the file `database`.
///
/// # Errors
/// [`Error::Condition`] also if the file has records that etcd should have: whoever starts with an empty
/// store gives names and addresses away that others hold.
pub fn open(database: &Path, etcd: Option<&EtcdConfig>) -> Result<Box<dyn Store>> {
    let Some(etcd) = etcd else {
        return Ok(Box::new(RedbStore::open(database)?));
    };
    if database.exists() {
        check_left(&RedbStore::open_to_move(database)?)?;
    }
    Ok(Box::new(EtcdStore::open(etcd)?))
}

/// Whether a store that is used no more has nothing that is needed.
fn check_left(store: &RedbStore) -> Result<()> {
    let reason = match store.condition()? {
        Condition::Moved => return Ok(()),
        Condition::Moving => {
            "its records were being moved to etcd, and that was not finished; run `mixline-directory migrate` \
             once more, or give it up by `migrate --cancel`"
        }
        Condition::Ready | Condition::Filling if is_empty(store)? => return Ok(()),
        Condition::Ready | Condition::Filling => {
            "it has records, and `store` in the configuration names etcd; move them by `mixline-directory migrate \
             --from redb --to etcd`, or move the file away if they are not wanted"
        }
    };
    Err(Error::Condition {
        store: store.place(),
        reason: reason.to_owned(),
    })
}

/// Whether a store has no entries.
fn is_empty(store: &dyn Store) -> Result<bool> {
    for table in Table::ALL {
        if !store.list(table, &[], None, 1)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}
