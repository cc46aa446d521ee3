//! What tests look into, and only the daemon uses otherwise.

pub use crate::migrate::{Progress, cancel, migrate};
pub use crate::registry::{AdmissionPolicy, Decision, Limits, Refusal, Registry};
pub use crate::store::{
    Condition, Entry, EtcdConfig, EtcdStore, LINGER, Movable, Outcome, RedbStore, Store, Table,
    Transaction,
};
