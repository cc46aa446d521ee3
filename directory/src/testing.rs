//! What tests look into, and only the daemon uses otherwise.

pub use crate::registry::{AdmissionPolicy, Decision, Limits, Refusal, Registry};
pub use crate::store::{RedbStore, Store, Table};
